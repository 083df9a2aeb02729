import pytest

from comask.algorithms import ALGORITHMS, algorithm_options
from comask.errors import ConfigError, DataNotFoundError, UnknownNameError
from comask.experiments.config import CompareConfig, RunConfig
from comask.experiments.resolve import algorithm_arguments, resolve, resolve_all

TINY = {"model": "logistic", "clients": 2}


@pytest.mark.parametrize("name", ALGORITHMS)
def test_nothing_is_left_open_and_resolving_twice_changes_nothing(name):
    config = resolve(RunConfig(algorithm=name))
    assert config.model == "cnn"
    assert algorithm_arguments(config) == dict(algorithm_options(name))
    assert resolve(config) == config


def test_density_and_lr_reach_the_algorithm():
    arguments = algorithm_arguments(RunConfig(density=0.01, lr=0.5))
    assert (arguments["density"], arguments["lr"]) == (0.01, 0.5)


def test_an_option_for_one_algorithm_wins_over_one_for_all_and_is_no_business_of_others():
    options = {"beta1": 0.5, "fedadam-ssm": {"beta1": 0.6, "lr": 0.2}, "fedavg": {"momentum": 0.5}}
    arguments = algorithm_arguments(RunConfig(lr=0.1, options=options))
    assert (arguments["beta1"], arguments["lr"]) == (0.6, 0.2)


def test_options_take_the_type_of_their_default():
    options = {"beta1": 0, "feedback": "w, m"}
    arguments = algorithm_arguments(RunConfig(options=options))
    assert arguments["beta1"] == 0.0
    assert isinstance(arguments["beta1"], float)
    assert arguments["feedback"] == ("w", "m")


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"algorithm": "fedadm"}, UnknownNameError, r"Unknown algorithm 'fedadm'\. Did you mean 'fedadam'\?"),
        (
            {"options": {"beta3": 0.1}},
            UnknownNameError,
            r"option of fedadam-ssm 'beta3'\. Did you mean 'beta",
        ),
        ({"algorithm": "fedavg", "density": 0.1}, UnknownNameError, "Unknown option of fedavg 'density'"),
        (
            {"options": {"beta1": "much"}},
            ConfigError,
            r"Option beta1 must be of type float \(default 0\.9\), got 'much'",
        ),
        ({"options": {"per_tensor": 1}}, ConfigError, "Option per_tensor must be of type bool"),
        ({"options": {"beta1": 2.0}}, ConfigError, r"beta1=\.\.\.\) must be in \[0, 1\), got 2\.0"),
        (
            {"dataset": "fashion-mnst"},
            UnknownNameError,
            r"data set 'fashion-mnst'\. Did you mean 'fashion-mnist'\?",
        ),
        ({"partition": "dirchlet:1"}, UnknownNameError, r"partition 'dirchlet'\. Did you mean 'dirichlet'\?"),
        ({"partition": "shards:x"}, ConfigError, "S in 'shards:S' must be a whole number"),
        ({"model": "cn"}, UnknownNameError, r"model 'cn'\. Did you mean 'cnn'\?"),
        ({"model": "char_lstm"}, ConfigError, "model 'char_lstm' is for text data"),
    ],
)
def test_what_cannot_run_is_refused_with_the_nearest_name_or_what_is_allowed(settings, error, message):
    with pytest.raises(error, match=message):
        resolve(RunConfig(**settings))


def test_data_that_are_nowhere_are_refused(tmp_path, monkeypatch):
    def nowhere(name, *, root):
        raise DataNotFoundError(f"{name} is not in {root}")

    monkeypatch.setattr("comask.data.load_dataset", nowhere)
    with pytest.raises(DataNotFoundError, match="svhn is not in"):
        resolve(RunConfig(dataset="svhn", data_root=str(tmp_path)))


def test_a_comparison_gives_each_algorithm_the_options_it_has():
    config = CompareConfig(
        algorithms="fedavg,fedadam-ssm",
        seeds=2,
        base=RunConfig(**TINY, density=0.1, options={"momentum": 0.5}),
    )
    runs = resolve_all(config)
    assert [(run.algorithm, run.seed, run.density) for run in runs] == [
        ("fedavg", 0, None),
        ("fedavg", 1, None),
        ("fedadam-ssm", 0, 0.1),
        ("fedadam-ssm", 1, 0.1),
    ]
    assert [run.options.get("momentum") for run in runs] == [0.5, 0.5, None, None]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            CompareConfig(algorithms="fedavg", base=RunConfig(density=0.1)),
            "Unknown option of these algorithms 'density'",
        ),
        (CompareConfig(algorithms="fedavg,fedadm"), r"Unknown algorithm 'fedadm'\. Did you mean 'fedadam'\?"),
        (CompareConfig(algorithms=","), "algorithms must name at least one of fedadam, .*, got ','"),
        (CompareConfig(base=RunConfig(options={"fedavgg": {"lr": 1.0}})), "algorithm in options 'fedavgg'"),
    ],
)
def test_a_comparison_that_cannot_run_is_refused(config, message):
    with pytest.raises(ConfigError, match=message):
        resolve_all(config)
