from pathlib import Path

import pytest
from paper_records import FILES, write_run, write_study

from comask.algorithms import ALGORITHMS
from comask.errors import ComaskError, ConfigError, UnknownNameError
from comask.experiments.config import RunConfig
from comask.experiments.paper.expansion import expand
from comask.experiments.paper.places import run_path
from comask.experiments.paper.records import finished_run
from comask.experiments.paper.study import load_paper
from comask.experiments.paper.tuning import Tuned, choose, plan, rates, tune
from comask.experiments.resolve import with_algorithm_options

REAL = Path(__file__).parents[2] / "experiments" / "paper"


def fixed(rate):
    return lambda _variant: rate


@pytest.fixture
def paper(tmp_path):
    return load_paper(write_study(tmp_path))


def test_a_part_expands_to_every_variant_point_and_seed_seed_by_seed(paper):
    planned = expand(paper.studies["effect"], fixed(2e-3))
    assert [(run.seed, dict(run.point)) for run in planned] == [
        (0, {"local_steps": 1}),
        (0, {"local_steps": 2}),
        (1, {"local_steps": 1}),
        (1, {"local_steps": 2}),
    ]
    assert {run.config.lr for run in planned} == {2e-3}
    assert [run.config.local_steps for run in planned] == [1, 2, 1, 2]
    assert planned[0].label == "fedadam-ssm (local_steps 1)"


def test_a_part_that_tunes_varies_each_variants_own_rates(paper):
    planned = expand(paper.studies["tuning"], fixed(None))
    tried = {(run.variant.label, run.config.lr) for run in planned}
    assert tried == {
        *((name, rate) for name in ("fedadam", "fedadam-ssm", "top, eps outside") for rate in (1e-3, 3e-3)),
        ("fedavg", 0.1),
        ("fedavg", 0.3),
    }
    assert {run.seed for run in planned} == {100}


def test_density_and_options_go_to_those_that_have_them(paper):
    configs = {run.variant.label: run.config for run in expand(paper.studies["compare"], fixed(1e-3))}
    assert {label: config.density for label, config in configs.items()} == {
        "fedadam": None,
        "fedadam-ssm": 0.1,
        "top, eps outside": 0.1,
        "fedavg": None,
    }
    assert configs["top, eps outside"].options["eps"] == 1e-8
    assert configs["fedadam-ssm"].options["eps"] == 1e-6


def test_runs_wait_for_their_learning_rate(paper):
    planned = expand(paper.studies["compare"], fixed(None))
    assert all(run.config is None and run.path is None for run in planned)


def test_a_runs_folder_follows_from_what_it_is():
    base = RunConfig(
        algorithm="fedadam-ssm", dataset="fashion-mnist", model="cnn", rounds=7, workers=1, seed=2
    )
    assert run_path(with_algorithm_options(base)) == Path(
        "fashion-mnist_cnn_dirichlet-0.1/fedadam-ssm_lr=0.001/seed-2"
    )
    other = RunConfig(
        algorithm="fedadam-ssm",
        dataset="fashion-mnist",
        model="cnn",
        partition="iid",
        clients=4,
        lr=0.01,
        density=0.5,
        options={"mask": "bound"},
    )
    assert run_path(with_algorithm_options(other)) == Path(
        "fashion-mnist_cnn_iid_clients=4/fedadam-ssm_lr=0.01_density=0.5_mask=bound/seed-0"
    )


def test_parts_share_runs_that_are_the_same(paper):
    compare = expand(paper.studies["compare"], fixed(1e-3))
    effect = expand(paper.studies["effect"], fixed(1e-3))
    assert not {run.path for run in compare} & {run.path for run in effect}  # density 0.1 against 0.05
    assert len({run.path for run in compare}) == len(compare)


def test_a_longer_run_serves_a_part_that_asks_for_fewer_rounds(paper):
    planned = expand(paper.studies["effect"], fixed(1e-3))[0]
    settings = {
        name: getattr(planned.config, name) for name in ("algorithm", "clients", "local_steps", "batch_size")
    }
    settings |= {"lr": 1e-3, "workers": 0, "density": 0.05}
    write_run(paper.runs / planned.path, [0.1, 0.2, 0.3], **settings)
    found = finished_run(planned, paper.runs)
    assert [record.test_accuracy for record in found.records] == [0.1, 0.2]


def test_a_folder_with_another_run_than_its_name_says_is_refused(paper):
    planned = expand(paper.studies["effect"], fixed(1e-3))[0]
    write_run(paper.runs / planned.path, [0.1, 0.2], algorithm="fedadam")
    with pytest.raises(
        ConfigError, match=r"--algorithm is 'fedadam' in .*config.toml and cannot become 'fedadam-ssm'"
    ):
        finished_run(planned, paper.runs)


GRID = (0.001, 0.003, 0.01, 0.03, 0.1)


def test_the_best_rate_is_chosen_and_the_grids_end_is_marked():
    found = choose("x", (0.1, 0.3, 1.0), {0.1: 0.5, 0.3: 0.7, 1.0: 0.6})
    assert (found.rate, found.at_edge) == (0.3, False)
    found = choose("x", (0.1, 0.3, 1.0), {0.1: 0.9, 0.3: 0.7, 1.0: 0.7})
    assert (found.rate, found.at_edge) == (0.1, True)
    unfinished = choose("x", (0.1, 0.3), {0.1: 0.9})
    assert (unfinished.wanted, unfinished.rate, unfinished.at_edge) == ((0.1, 0.3), None, False)


def test_of_rates_that_tie_the_one_nearest_to_the_middle_is_used_then_the_lower():
    assert choose("x", (0.1, 0.3, 1.0), {0.1: 0.7, 0.3: 0.7, 1.0: 0.704}).rate == 0.3
    assert choose("x", (0.1, 0.3, 1.0), {0.1: 0.7, 0.3: 0.6, 1.0: 0.7}).rate == 0.1
    assert choose("x", (0.1, 0.3, 1.0), {0.1: 0.7, 0.3: 0.7, 1.0: 0.706}).rate == 1.0


def test_the_search_begins_in_the_middle_and_stays_there_if_the_best_does():
    assert choose("x", GRID, {}).wanted == (0.003, 0.01, 0.03)
    found = choose("x", GRID, {0.003: 0.5, 0.01: 0.6, 0.03: 0.5, 0.1: 0.9})
    assert (found.wanted, found.rate, found.at_edge) == ((0.003, 0.01, 0.03), 0.01, False)
    assert 0.1 not in found.scores


def test_the_search_goes_outwards_while_the_best_is_at_the_end():
    known = {0.003: 0.6, 0.01: 0.5, 0.03: 0.4}
    assert choose("x", GRID, known) == Tuned("x", GRID[:4], known, None, at_edge=False)
    better, worse = {**known, 0.001: 0.7}, {**known, 0.001: 0.5}
    assert choose("x", GRID, better) == Tuned("x", GRID[:4], better, 0.001, at_edge=True)
    assert choose("x", GRID, worse) == Tuned("x", GRID[:4], worse, 0.003, at_edge=False)
    upwards = choose("x", GRID, {0.003: 0.4, 0.01: 0.5, 0.03: 0.6})
    assert upwards.wanted == GRID[1:]


def write_tuning(paper, accuracies):
    """Write the tuning runs of fedadam-ssm: accuracies by learning rate."""
    for run in expand(paper.studies["tuning"], fixed(None)):
        if run.variant.label == "fedadam-ssm" and run.config.lr in accuracies:
            config = run.config
            write_run(
                paper.runs / run.path,
                accuracies[config.lr],
                **{
                    n: getattr(config, n)
                    for n in ("algorithm", "lr", "density", "clients", "local_steps", "batch_size", "seed")
                },
                workers=0,
            )


def test_rates_are_read_from_the_records_of_tuning(paper):
    study = paper.studies["tuning"]
    write_tuning(paper, {1e-3: [0.9, 0.1]})  # mean 0.5 over the last evaluations
    assert tune(study, paper.runs)["fedadam-ssm"].rate is None
    write_tuning_again = {3e-3: [0.2, 0.7]}  # mean 0.45
    write_tuning(paper, write_tuning_again)
    tuned = tune(study, paper.runs)["fedadam-ssm"]
    assert tuned.scores == {1e-3: pytest.approx(0.5), 3e-3: pytest.approx(0.45)}
    assert tuned.rate == 1e-3
    look_up = rates(paper, paper.studies["compare"])
    assert look_up(paper.variants["fedadam-ssm"]) == 1e-3
    assert look_up(paper.variants["fedadam"]) is None
    planned = plan(paper, paper.studies["compare"])
    assert {run.variant.label for run in planned if run.config is not None} == {"fedadam-ssm"}


def test_a_part_that_tunes_plans_what_its_search_has_reached(tmp_path):
    wide = FILES["paper"].replace("adam = [1e-3, 3e-3]", "adam = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]")
    paper = load_paper(write_study(tmp_path, paper=wide))

    def planned():
        runs = plan(paper, paper.studies["tuning"])
        return [run.config.lr for run in runs if run.variant.label == "fedadam-ssm"]

    assert planned() == [3e-4, 1e-3, 3e-3]
    write_tuning(paper, {3e-4: [0.5, 0.5], 1e-3: [0.6, 0.6], 3e-3: [0.7, 0.7]})
    assert planned() == [3e-4, 1e-3, 3e-3, 1e-2]
    assert rates(paper, paper.studies["compare"])(paper.variants["fedadam-ssm"]) is None


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("paper", "order =", "ordr =", "Unknown key in .*paper.toml 'ordr'.*order"),
        ("paper", 'grid = "sgd"', 'grid = "sgb"', "Unknown grid of variant 'fedavg' 'sgb'.*sgd"),
        ("paper", 'algorithm = "fedadam-top"', 'algorithm = "fedadam-tpo"', "fedadam-tpo.*fedadam-top"),
        (
            "paper",
            "adam = [1e-3, 3e-3]",
            "adam = [1e-3, 0]",
            "grids.adam in .* must be a finite number above 0, got 0",
        ),
        (
            "compare",
            'kind = "comparison"',
            'kind = "compare"',
            "kind in .* must be one of tuning, comparison, effect",
        ),
        ("compare", "rounds = 3", "round = 3", "Unknown key in .*compare.toml 'round'.*rounds"),
        ("compare", "rounds = 3", "rounds = 0", "rounds in .* must be an integer of at least 1, got 0"),
        ("compare", 'tuning = "tuning"', 'tuning = "effect"', "Unknown tuning in compare.toml 'effect'"),
        ("compare", 'model = "logistic"', "", "must name the model"),
        ("effect", "local_steps = [1, 2]\n", "local_stepz = [1, 2]\n", "local_stepz.*local_steps"),
        ("effect", '"fedadam-ssm"', '"fedadam-sms"', "Unknown variant in .* 'fedadam-sms'.*fedadam-ssm"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path, name, old, new, message):
    assert old in FILES[name]
    folder = write_study(tmp_path, **{name: FILES[name].replace(old, new)})
    with pytest.raises(ComaskError, match=message):
        load_paper(folder)


def test_a_part_that_does_not_exist_is_named(paper):
    assert [study.name for study in paper.chosen(["effect", "tuning"])] == ["tuning", "effect"]
    with pytest.raises(UnknownNameError, match=r"'efect'.*effect"):
        paper.chosen(["efect"])


def test_the_study_has_every_algorithm_and_its_parts_expand():
    paper = load_paper(REAL)
    assert {variant.algorithm for variant in paper.variants.values()} == set(ALGORITHMS)
    for study in paper.studies.values():
        planned = expand(study, fixed(1e-3))
        assert len({run.path for run in planned}) == len(planned)
        assert all(run.config.precision == "float32" for run in planned)
    tuning_seeds = {run.seed for run in expand(paper.studies["tuning"], fixed(None))}
    compared_seeds = {run.seed for run in expand(paper.studies["dirichlet"], fixed(1e-3))}
    assert not tuning_seeds & compared_seeds
    assert len(compared_seeds) == 3
