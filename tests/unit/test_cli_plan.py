"""`comask plan`: its rows are what their parts say, its times are measured, its words are in the guide."""

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
from cli_fakes import call

from comask.errors import ConfigError, UnknownNameError
from comask.experiments import timing
from comask.experiments.coded_sizes import predicted_bytes
from comask.experiments.plan_config import PLAN_SETTINGS, PlanConfig
from comask.experiments.plan_show import plan_facts, show_plan
from comask.experiments.planning import make_plan
from comask.experiments.timing import Work, measure_work
from comask.theory import AdamSetting, ProblemConstants, Sparsity, convergence_bound_nonconvex
from comask.wire import CODECS

GUIDE = (Path(__file__).parents[2] / "docs" / "guides" / "plan.md").read_text(encoding="utf-8")
DIM = 20_000
QUESTION = PlanConfig(params="20k", budget="10kB", uplink="2Mbit/s", clients=7)


def work(algorithm, codec, dim, density, *, rounds):
    """Compression takes a second, what is dense takes a tenth, and half precision takes none."""
    return Work(0.0 if codec == "half" else 1.0 if algorithm.startswith("fedadam-") else 0.1, 0.0)


def answer(**changes):
    return make_plan(replace(QUESTION, **changes), measure=work)


def line(plan, algorithm, codec):
    (found,) = [line for line in plan.lines if (line.algorithm, line.codec) == (algorithm, codec)]
    return found


def test_a_line_is_what_its_parts_say():
    plan = answer()
    ssm = line(plan, "fedadam-ssm", "compact")
    dense = predicted_bytes("fedadam", "exact", DIM, 1.0)
    assert ssm.num_kept == 1000
    assert ssm.upload_bytes == predicted_bytes("fedadam-ssm", "compact", DIM, 0.05)
    assert ssm.round_bytes == 7 * ssm.upload_bytes
    assert ssm.upload_seconds == 8 * ssm.upload_bytes / 2e6
    assert ssm.saving == dense / ssm.upload_bytes
    assert line(plan, "fedavg", "exact").num_kept == DIM


def test_at_break_even_both_uploads_take_equally_long():
    ssm = line(answer(), "fedadam-ssm", "exact")
    dense = predicted_bytes("fedadam", "exact", DIM, 1.0)
    assert 8 * ssm.upload_bytes / ssm.break_even + 1.0 == pytest.approx(8 * dense / ssm.break_even + 0.1)


def test_break_even_says_when_it_pays_always_never_or_is_compared_with():
    plan = answer(algorithms="fedadam,fedadam-top", codec="exact,half,coo64", density=1.0)
    pays = {(row["algorithm"], row["codec"]): row["pays"] for row in plan_facts(plan)["lines"]}
    assert pays["fedadam", "exact"] == "baseline"
    assert pays["fedadam", "half"] == "always"
    assert pays["fedadam-top", "coo64"] == "never"  # three lists of all positions beside all values


def test_the_budgets_density_fits_and_one_position_more_does_not():
    found = line(answer(), "fedadam-ssm", "exact").budget_density
    assert predicted_bytes("fedadam-ssm", "exact", DIM, found) <= 10_000
    assert predicted_bytes("fedadam-ssm", "exact", DIM, found + 1 / DIM) > 10_000
    assert line(answer(), "fedadam", "exact").budget_density is None
    assert line(answer(budget=None), "fedadam-ssm", "exact").budget_density is None


def test_predictions_are_ratios_of_the_bounds():
    plan = answer()
    problem, adam = ProblemConstants(DIM, 30, 8, 30), AdamSetting(1e-3, local_steps=30)
    for number, feedback in enumerate((False, True)):
        kept = Sparsity(0.05, error_feedback=feedback)

        def bound(adam, kept):
            return convergence_bound_nonconvex(problem, adam, kept, rounds=40, gap=2.3)

        assert plan.bounds[number] == bound(adam, kept)
        wanted = {
            ("local_steps", 60): bound(replace(adam, local_steps=60), kept),
            ("lr", 5e-4): bound(replace(adam, lr=5e-4), kept),
            ("density", 0.2): bound(adam, replace(kept, density=0.2)),
        }
        found = {
            (p.quantity, p.value): (p.fed_back if feedback else p.plain) * plan.bounds[number]
            for p in plan.predictions
        }
        assert {key: found[key] for key in wanted} == pytest.approx(wanted)


def test_the_advised_density_has_the_least_bound_for_the_same_bytes():
    plan = answer()
    problem, adam = ProblemConstants(DIM, 30, 8, 30), AdamSetting(1e-3, local_steps=30)
    spent = 40 * predicted_bytes("fedadam-ssm", "exact", DIM, 0.05)
    for feedback, choice in ((False, plan.advice.density), (True, plan.advice.density_fed_back)):
        for density in (0.01, 0.05, 0.2, 1.0):
            rounds = int(spent / predicted_bytes("fedadam-ssm", "exact", DIM, density))
            if rounds:
                kept = Sparsity(density, error_feedback=feedback)
                bound = convergence_bound_nonconvex(problem, adam, kept, rounds=rounds, gap=2.3)
                assert choice.bound <= bound * (1 + 1e-3)
    assert plan.advice.reach == pytest.approx(9 * (1 - 0.9**30))


@pytest.mark.parametrize(
    ("steps", "words"), [(30, "the mask from |dW| loses little"), (3, "try --mask fair")]
)
def test_the_advice_on_the_mask_depends_on_the_local_steps(steps, words, capsys):
    show_plan(answer(local_steps=steps))
    assert words in capsys.readouterr().out


def test_no_prediction_leaves_what_is_possible():
    values = [(p.quantity, p.value) for p in answer(local_steps=1, density=1.0).predictions]
    assert [value for quantity, value in values if quantity == "local_steps"] == [1, 2, 4]
    assert max(value for quantity, value in values if quantity == "density") == 1.0
    assert len(set(values)) == len(values)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"params": None}, ConfigError, "One of --model and --params must be given, got --model None and --params None"),
        ({"model": "cnn"}, ConfigError, "One of --model and --params must be given, got --model cnn and --params 20k"),
        ({"dataset": "svhn"}, ConfigError, "--dataset svhn cannot be given together with --params"),
        ({"params": "4.3G"}, ConfigError, r"--params must be at most 4,294,967,296, got 4\.3G"),
        ({"algorithms": "fedadam-sm"}, UnknownNameError, "Unknown algorithm 'fedadam-sm'. Did you mean 'fedadam-ssm'"),
        ({"codec": "exact,"}, UnknownNameError, "Unknown codec ''"),
        ({"codec": "half,exact, half"}, ConfigError, "Every codec may be named once, got 'half' twice in 'half,exact, half'"),
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused(changes, error, message):
    with pytest.raises(error, match=message):
        answer(**changes)


def test_a_models_parameters_and_buffers_are_counted():
    plan = answer(params=None, model="resnet18", codec="exact", algorithms="fedavg")
    assert plan.num_buffers > 0
    assert line(plan, "fedavg", "exact").upload_bytes == pytest.approx(
        4 * (plan.dim + plan.num_buffers), rel=1e-4
    )
    assert answer(params=None, model="cnn").dim == 215_370


@pytest.mark.parametrize("codec", ["exact", "extreme", "golomb-8bit"])
def test_work_is_measured_and_longer_vectors_take_in_proportion(codec, monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(timing.time, "process_time", lambda: next(clock))
    assert measure_work("fedadam-ssm", codec, 1000, 0.05) == Work(1.0, 1.0)
    monkeypatch.setattr(timing, "SAMPLE", 2000)
    assert measure_work("fedadam-top", codec, 10_000, 0.05) == Work(5.0, 5.0)


def test_what_is_timed_is_coded_as_the_whole_vector_would_be(monkeypatch):
    coded = []
    monkeypatch.setattr(timing, "SAMPLE", 2000)
    encode = timing.encode
    monkeypatch.setattr(
        timing, "encode", lambda update, codec, **rest: coded.append(codec) or encode(update, codec, **rest)
    )
    measure_work("fedadam-ssm", "exact", 2**30, 0.05)
    assert {codec.indices for codec in coded} == {
        "rice"
    }  # the context model is not tried on so long a vector
    assert CODECS["exact"].indices == "auto"


def test_the_command_prints_both_tables_and_draws(capsys, tmp_path):
    figure = tmp_path / "plan.svg"
    flags = ("--params", "2k", "--budget", "1kB", "--codec", "exact,half", "--figure", figure)
    code, stdout, stderr = call(capsys, "plan", *flags)
    assert (code, stderr) == (0, f"Written: {figure}\n")
    assert "2,000 parameters, density 0.05, 20 clients, uplink 1Mbit/s" in stdout
    for row in (
        "| fedadam | exact | 24 kB |",
        "| fedadam-ssm | half | ",
        "| local steps | 60 |",
        "| density | 0.2 |",
    ):
        assert row in stdout
    assert "timed on 2,000 positions" in stdout
    assert "Assumed, not measured: smoothness 30" in stdout
    drawn = figure.read_text()
    assert drawn.startswith("<?xml")


def test_every_method_has_a_colour_of_its_own():
    from comask.algorithms import ALGORITHMS
    from comask.experiments.plan_figure import colour_of

    assert len({colour_of(name) for name in ALGORITHMS}) == len(ALGORITHMS)


def test_a_method_that_brings_its_own_codec_has_one_line():
    plan = answer(algorithms="fedadam-ssm,stc,one-bit-adam", rounds=40)
    assert [(line.algorithm, line.codec) for line in plan.lines if line.algorithm != "fedadam-ssm"] == [
        ("stc", "own"),
        ("one-bit-adam", "own"),
    ]
    rounds = line(plan, "one-bit-adam", "own")
    warm, cold = (
        predicted_bytes("one-bit-adam", "own", DIM, 0.05, rounds=number) * number for number in (10, 40)
    )
    assert rounds.upload_bytes == pytest.approx(cold / 40)
    assert warm == pytest.approx(10 * predicted_bytes("fedadam", "exact", DIM, 1.0), rel=1e-3)


def test_the_table_says_when_times_are_scaled(capsys):
    show_plan(answer(params="11.2M", algorithms="fedadam-ssm", codec="exact"))
    assert (
        f"timed on {timing.SAMPLE:,} positions of synthetic changes and scaled linearly to 11,200,000"
        in capsys.readouterr().out
    )


def test_on_a_terminal_the_widest_table_fits_into_80_characters(monkeypatch, capsys):
    from rich.console import Console

    monkeypatch.setattr(
        "comask.experiments.plan_show.make_console",
        lambda: Console(force_terminal=True, color_system=None, width=80),
    )
    show_plan(
        answer(
            params="1.7G", budget="100MB", algorithms="fairness-top,fedadam-ssm", codec="exact,compact,half"
        )
    )
    table = capsys.readouterr().out.partition("Setting")[0]
    assert "…" not in table
    rows = [row for row in table.splitlines() if "fairness-top" in row or "fedadam-ssm" in row]
    assert [row.split()[:2] for row in rows][1] == ["fairness-top", "compact"]
    assert all("B " in row and " s" in row and "baseline" not in row for row in rows)
    assert len(rows) == 6


def test_json_holds_every_number_and_no_infinity(capsys):
    code, stdout, _ = call(capsys, "plan", "--params", "2k", "--codec", "exact", "--json")
    facts = json.loads(stdout, parse_constant=pytest.fail)
    assert (code, facts["dim"], facts["timed_positions"]) == (0, 2000, 2000)
    assert [row["algorithm"] for row in facts["lines"]] == [
        "fedadam",
        "fedadam-top",
        "fedadam-ssm",
        "comask",
        "fedavg",
    ]
    for row in facts["lines"]:
        assert (row["break_even"] is None) == (row["pays"] != "below")
        assert math.isfinite(row["work"]["make"])
    assert facts["config"]["smoothness"] == 30


def test_a_bad_amount_is_a_usage_error(capsys):
    code, _, stderr = call(capsys, "plan", "--params", "11.2MB")
    assert code == 2
    assert "--params must be a whole number of at least 1" in stderr


def test_the_guide_has_every_setting_with_its_default_and_what_is_allowed():
    rows = re.findall(r"^\| `(--[a-z-]+)` \| (.*) \| (.*) \| (.*) \|$", GUIDE, re.MULTILINE)
    in_code = [(row.flag, row.fallback, row.help, row.rule.text) for row in PLAN_SETTINGS.values()]
    assert rows == in_code
