import csv
import json

import pytest
from cli_fakes import call, install

from comask.experiments.config import RunConfig
from comask.experiments.folder import read_rounds

SMALL = ("--model", "logistic", "--clients", 3, "--workers", 0, "--rounds", 4)
TWO = ("--algorithms", "fedadam,fedadam-ssm", "--seeds", 2)


def records(folder):
    return {
        file.parent.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("rounds.jsonl")
    }


def test_a_comparison_writes_a_folder_for_each_algorithm_and_seed_and_a_table(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    code, stdout, stderr = call(capsys, "compare", *SMALL, *TWO, "--out", tmp_path)
    assert code == 0
    assert set(records(tmp_path)) == {
        f"{name}/seed-{seed}" for name in ("fedadam", "fedadam-ssm") for seed in (0, 1)
    }
    assert "fedadam-ssm, seed 1: 4 rounds, accuracy" in stdout
    assert "4/4 fedadam-ssm, seed 1: cpu, in process, float32" in stderr
    table = (tmp_path / "table.md").read_text()
    assert table in stdout
    rows = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [row["algorithm"] for row in rows] == ["fedadam", "fedadam-ssm"]
    finals = [
        read_rounds(tmp_path / "fedadam" / f"seed-{seed}" / "rounds.jsonl")[-1].test_accuracy
        for seed in (0, 1)
    ]
    assert float(rows[0]["final_accuracy"]) == pytest.approx(sum(finals) / 2)


def test_an_interrupted_comparison_continues_where_it_stopped_to_the_same_records(
    tmp_path, monkeypatch, capsys
):
    install(monkeypatch)
    call(capsys, "compare", *SMALL, *TWO, "--out", tmp_path / "whole")
    out = tmp_path / "part"
    install(monkeypatch, interrupt_at=4)
    code, _, stderr = call(capsys, "compare", *SMALL, *TWO, "--out", out)
    assert code == 130
    assert f"Continue with: comask compare --resume {out}" in stderr
    assert set(records(out)) == {"fedadam/seed-0"}
    opened = install(monkeypatch)
    assert call(capsys, "compare", "--resume", out)[0] == 0
    assert [simulation.start_round for simulation in opened] == [4, 1, 1, 1]
    assert records(out) == records(tmp_path / "whole")
    opened = install(monkeypatch)
    assert call(capsys, "compare", "--resume", out)[0] == 0
    assert opened == []


def test_a_comparison_may_grow(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    call(capsys, "compare", *SMALL, *TWO, "--out", tmp_path)
    opened = install(monkeypatch)
    flags = ("--rounds", 5, "--seeds", 3, "--algorithms", "fedadam,fedadam-ssm,fedavg")
    assert call(capsys, "compare", "--resume", tmp_path, *flags)[0] == 0
    assert [simulation.start_round for simulation in opened] == [5, 5, 1, 5, 5, 1, 1, 1, 1]
    assert len(records(tmp_path)) == 9


def test_a_comparison_is_refused_what_would_change_its_runs(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    call(capsys, "compare", *SMALL, *TWO, "--out", tmp_path)
    before = (tmp_path / "compare.toml").read_text()
    code, _, stderr = call(capsys, "compare", "--resume", tmp_path, "--density", 0.5)
    assert code == 2
    assert "--density is 0.05 in" in stderr
    assert (tmp_path / "compare.toml").read_text() == before


def test_the_first_run_settles_the_precision_of_all(tmp_path, monkeypatch, capsys):
    opened = install(monkeypatch)
    call(capsys, "compare", *SMALL, *TWO, "--out", tmp_path)
    assert [simulation.precision_reason for simulation in opened] == [
        "measured",
        "as asked",
        "as asked",
        "as asked",
    ]
    configs = [RunConfig.load(file, {}) for file in tmp_path.rglob("config.toml")]
    assert {(config.device, config.precision) for config in configs} == {("cpu", "float32")}


def test_an_old_comparison_is_replaced_only_when_asked_and_entirely(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    call(capsys, "compare", *SMALL, *TWO, "--out", tmp_path)
    code, _, stderr = call(capsys, "compare", *SMALL, "--algorithms", "fedavg", "--out", tmp_path)
    assert code == 2
    assert "Continue it with --resume" in stderr
    assert call(capsys, "compare", *SMALL, "--algorithms", "fedavg", "--out", tmp_path, "--overwrite")[0] == 0
    assert set(records(tmp_path)) == {"fedavg/seed-0"}


def test_json_prints_one_object_a_round_of_every_run(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    _, stdout, stderr = call(capsys, "compare", *SMALL, *TWO, "--json", "--out", tmp_path)
    lines = [json.loads(line) for line in stdout.splitlines()]
    assert [(line["algorithm"], line["seed"], line["round"]) for line in lines] == [
        (name, seed, number)
        for name in ("fedadam", "fedadam-ssm")
        for seed in (0, 1)
        for number in (1, 2, 3, 4)
    ]
    assert stderr == ""


def test_on_a_terminal_the_table_has_the_main_columns(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    _, stdout, _ = call(capsys, "compare", *SMALL, *TWO, "--out", tmp_path)
    assert "Final accuracy" in stdout
    assert "Mask's share" not in stdout
    assert "| --- |" not in stdout


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--algorithms", "fedadm"), "Unknown algorithm 'fedadm'. Did you mean 'fedadam'?"),
        (("--seeds", "0"), "--seeds must be an integer of at least 1, got 0."),
        (("--target", "2"), "--target must be a number with 0 < value <= 1, got 2.0."),
        (("--resume", "nowhere"), "nowhere holds no compare.toml: it is not the folder of a comparison."),
    ],
)
def test_a_comparison_that_cannot_run_is_a_usage_error(tmp_path, capsys, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    code, _, stderr = call(capsys, "compare", *SMALL, *flags)
    assert (code, message in stderr) == (2, True), stderr
    assert list(tmp_path.iterdir()) == []
