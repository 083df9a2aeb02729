import tomllib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from comask.errors import ConfigError, UnknownNameError
from comask.experiments.config import (
    COMPARE_SETTINGS,
    SETTINGS,
    CompareConfig,
    RunConfig,
    merge_options,
    parse_option,
)
from comask.experiments.tomlfile import write_toml


def write(folder, text):
    file = folder / "c.toml"
    file.write_text(text)
    return file


def test_a_flag_overrides_the_file_and_the_file_overrides_the_default(tmp_path):
    file = write(tmp_path, "clients = 7\nrounds = 9\n")
    config = RunConfig.load(file, {"rounds": 3, "seed": None})
    assert (config.clients, config.rounds, config.seed) == (7, 3, RunConfig().seed)


def test_options_are_merged_one_by_one_also_inside_an_algorithms_table(tmp_path):
    file = write(tmp_path, "[options]\nbeta1 = 0.8\neps = 1e-8\n[options.fedavg]\nlr = 0.1\nmomentum = 0.5\n")
    config = RunConfig.load(file, {"options": {"beta1": 0.7, "fedavg": {"lr": 0.2}}})
    assert config.options == {"beta1": 0.7, "eps": 1e-8, "fedavg": {"lr": 0.2, "momentum": 0.5}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rouns = 3", r"Unknown key in .*c\.toml 'rouns'\. Did you mean 'rounds'\?"),
        ("local-steps = 3", r"Did you mean 'local_steps'\?"),
        ("rounds = 'ten'", r"rounds in .*c\.toml must be an integer of at least 1, got 'ten'\."),
        ("rounds = true", "must be an integer of at least 1, got True"),
        ("rounds = 1.5", r"must be an integer of at least 1, got 1\.5"),
        ("rounds = 0", "must be an integer of at least 1, got 0"),
        ("density = 0", r"density in .* must be a number with 0 < value <= 1, got 0\.0"),
        ("dropout = 1.0", r"dropout in .* must be a number with 0 <= value < 1, got 1\.0"),
        ("lr = inf", "lr in .* must be a finite number above 0, got inf"),
        ("lr = nan", "lr in .* must be a finite number above 0, got nan"),
        ("dataset = 3", "dataset in .* must be a data set's name, got 3"),
        ("dataset = ''", "dataset in .* must be a data set's name, got ''"),
        ("device = 'tpu'", "device in .* must be one of auto, cpu, cuda, got 'tpu'"),
        ("options = 3", "options in .* must be a table of names and values, got 3"),
        (
            "[options]\nbeta1 = [1, 2]",
            r"beta1 must be a number, a text, true, false or a list of texts, got \[1, 2\]",
        ),
        ("[options]\nlr = 0.1", "lr must be given as a setting of its own"),
        ("rounds = ", "is not valid TOML"),
    ],
)
def test_a_file_is_refused_with_its_name_the_key_and_what_is_allowed(tmp_path, text, message):
    with pytest.raises(ConfigError, match=message):
        RunConfig.load(write(tmp_path, text), {})


def test_a_file_that_is_not_there_or_a_folder_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"no\.toml does not exist"):
        RunConfig.load(tmp_path / "no.toml", {})
    with pytest.raises(ConfigError, match="is a folder"):
        RunConfig.load(tmp_path, {})


def test_a_file_that_is_not_text_is_refused(tmp_path):
    file = tmp_path / "c.toml"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not valid TOML"):
        RunConfig.load(file, {})


def test_the_constructor_checks_as_files_and_flags_do():
    with pytest.raises(ConfigError, match="clients must be an integer of at least 1, got 0"):
        RunConfig(clients=0)


def test_an_integer_is_read_as_a_number_where_one_is_meant(tmp_path):
    assert RunConfig.load(write(tmp_path, "density = 1"), {}).density == 1.0


@pytest.mark.parametrize(
    ("text", "table"),
    [
        ("beta1=0.95", {"beta1": 0.95}),
        ("eps_inside_sqrt=false", {"eps_inside_sqrt": False}),
        ("codec=half", {"codec": "half"}),
        ("codec = 'half'", {"codec": "half"}),
        ("feedback=['w', 'm']", {"feedback": ["w", "m"]}),
        ("fedavg.lr=1e-1", {"fedavg": {"lr": 0.1}}),
        ("name=a=b", {"name": "a=b"}),
    ],
)
def test_an_option_flag_is_a_name_and_a_toml_value_or_text(text, table):
    assert parse_option(text) == table


@pytest.mark.parametrize("text", ["beta1", "=3", "fedavg.=3", ""])
def test_an_option_flag_without_name_or_value_is_refused(text):
    with pytest.raises(ConfigError, match=r"--option must be NAME=VALUE or ALGORITHM\.NAME=VALUE, got"):
        parse_option(text)


def test_later_options_win():
    merged = merge_options([{"a": 1, "x": {"b": 1}}, {"a": 2}, {"x": {"c": 3}}])
    assert merged == {"a": 2, "x": {"b": 1, "c": 3}}


scalars = st.one_of(st.booleans(), st.integers(), st.floats(allow_nan=False), st.text())
names = st.text(min_size=1)


@given(
    st.dictionaries(
        names, st.one_of(scalars, st.lists(st.text()), st.dictionaries(names, scalars, min_size=1))
    )
)
def test_what_is_written_as_toml_reads_back_equal(table):
    assert tomllib.loads(write_toml(table)) == table


def test_none_is_left_out_of_toml():
    assert write_toml({"a": None, "b": 1}) == "b = 1\n"


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(),
        RunConfig(
            algorithm="fedavg",
            lr=0.1,
            seed=3,
            workers=0,
            data_root='a "b"\\c',
            options={"codec": "half", "feedback": ("w",), "fedavg": {"momentum": 0.5}},
        ),
    ],
)
def test_a_configuration_survives_its_file(tmp_path, config):
    assert RunConfig.load(write(tmp_path, config.to_toml()), {}) == config


def test_a_comparison_survives_its_file(tmp_path):
    config = CompareConfig(
        algorithms="fedadam,fedavg", seeds=2, base=RunConfig(clients=3, options={"beta1": 0.5})
    )
    assert CompareConfig.load(write(tmp_path, config.to_toml()), {}) == config


def test_a_comparison_lists_every_algorithm_and_seed_once():
    config = CompareConfig(algorithms="b, a,b", seeds=2, base=RunConfig(seed=5))
    runs = [(run.algorithm, run.seed) for run in config.runs(["a", "b", "c"])]
    assert runs == [("b", 5), ("b", 6), ("a", 5), ("a", 6)]
    assert replace(config, algorithms="all").names(["a", "b", "c"]) == ("a", "b", "c")


def test_a_comparisons_file_may_list_algorithms(tmp_path):
    assert CompareConfig.load(write(tmp_path, 'algorithms = ["a", "b"]'), {}).names(()) == ("a", "b")


def test_a_comparison_has_no_single_algorithm(tmp_path):
    with pytest.raises(UnknownNameError, match=r"'algorithm'\. Did you mean 'algorithms'\?"):
        CompareConfig.load(write(tmp_path, 'algorithm = "fedavg"'), {})


def test_only_settings_that_leave_the_rounds_done_as_they_are_may_change():
    assert {name for name, row in SETTINGS.items() if row.may_change} == {"rounds", "workers", "data_root"}


def test_both_tables_hold_the_fields_of_the_configurations():
    assert set(SETTINGS) | {"options"} == set(RunConfig.__dataclass_fields__)
    assert set(COMPARE_SETTINGS) == set(SETTINGS) - {"algorithm"} | {"algorithms", "seeds"}
