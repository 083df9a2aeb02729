import json
import re

import pytest
from cli_fakes import PARAMETERS, call, install

from comask.experiments.config import RunConfig
from comask.experiments.folder import RunFolder, read_rounds

SMALL = ("--model", "logistic", "--clients", 3, "--workers", 0)


def test_a_run_writes_its_folder(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    out = tmp_path / "run"
    code, stdout, stderr = call(capsys, "run", *SMALL, "--rounds", 3, "--out", out)
    assert code == 0
    assert stdout.startswith("3 rounds, accuracy ")
    assert f"in {out}" in stdout
    assert (
        "fedadam-ssm, seed 0: logistic on fashion-mnist-mini, 3 clients, dirichlet:0.1, 1,000 parameters; "
        in stderr
    )
    assert "cpu, in process, float32 (measured)" in stderr
    config = RunConfig.load(out / "config.toml", {})
    assert (config.device, config.precision, config.model, config.density) == (
        "cpu",
        "float32",
        "logistic",
        0.05,
    )
    records = read_rounds(out / "rounds.jsonl")
    assert [record.round for record in records] == [1, 2, 3]
    summary = json.loads((out / "summary.json").read_text())
    assert summary["status"] == "finished"
    assert summary["parameters"] == PARAMETERS
    assert summary["uplink_bytes"] == sum(record.uplink_bytes for record in records)
    assert summary["test_accuracy"] == records[-1].test_accuracy
    assert summary["dropped"] == 3
    (session,) = summary["sessions"]
    assert session["command"].startswith("comask run --model logistic")
    assert {"python", "torch", "numpy", "comask", "platform"} <= set(session["environment"])


def test_the_recorded_configuration_runs_again_to_the_same_records(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    call(capsys, "run", *SMALL, "--rounds", 3, "--seed", 7, "--out", tmp_path / "a")
    call(capsys, "run", "--config", tmp_path / "a" / "config.toml", "--out", tmp_path / "b")
    assert (tmp_path / "a" / "rounds.jsonl").read_bytes() == (tmp_path / "b" / "rounds.jsonl").read_bytes()
    assert (tmp_path / "a" / "config.toml").read_bytes() == (tmp_path / "b" / "config.toml").read_bytes()


@pytest.mark.parametrize("interrupt_at", [1, 2, 5])
def test_ctrl_c_says_how_to_continue_and_continuing_ends_in_the_same_records(
    tmp_path, monkeypatch, capsys, interrupt_at
):
    install(monkeypatch)
    call(capsys, "run", *SMALL, "--rounds", 5, "--out", tmp_path / "whole")
    install(monkeypatch, interrupt_at=interrupt_at)
    out = tmp_path / "run"
    code, stdout, stderr = call(capsys, "run", *SMALL, "--rounds", 5, "--out", out)
    assert code == 130
    assert stdout == ""
    assert f"Interrupted. Continue with: comask run --resume {out}" in stderr
    assert json.loads((out / "summary.json").read_text())["status"] == "interrupted"
    install(monkeypatch)
    code, _, _ = call(capsys, "run", "--resume", out)
    assert code == 0
    assert (out / "rounds.jsonl").read_bytes() == (tmp_path / "whole" / "rounds.jsonl").read_bytes()
    sessions = json.loads((out / "summary.json").read_text())["sessions"]
    assert [session["first_round"] for session in sessions] == [1, interrupt_at]


def test_resuming_keeps_the_precision_that_was_measured(tmp_path, monkeypatch, capsys):
    install(monkeypatch, interrupt_at=2)
    call(capsys, "run", *SMALL, "--rounds", 3, "--out", tmp_path)
    opened = install(monkeypatch)
    call(capsys, "run", "--resume", tmp_path)
    assert opened[0].precision_reason == "as asked"
    assert json.loads((tmp_path / "summary.json").read_text())["precision_reason"] == "measured"


def test_a_finished_run_is_left_alone_and_may_be_extended(tmp_path, monkeypatch, capsys):
    opened = install(monkeypatch)
    call(capsys, "run", *SMALL, "--rounds", 2, "--out", tmp_path)
    assert call(capsys, "run", "--resume", tmp_path)[0] == 0
    assert len(opened) == 1
    assert call(capsys, "run", "--resume", tmp_path, "--rounds", 4)[0] == 0
    assert len(read_rounds(tmp_path / "rounds.jsonl")) == 4
    assert RunConfig.load(tmp_path / "config.toml", {}).rounds == 4


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--seed", 1),
            "--seed is 0 in .* and cannot become 1; a resumed run may change --data-root, --rounds, --workers",
        ),
        (("-o", "beta1=0.5"), "Options are .* and cannot become"),
        (("--rounds", 1), "--rounds must be at least 2, the rounds that .* already has, got 1"),
        (("--precision", "bfloat16"), "--precision is 'float32' in .* and cannot become 'bfloat16'"),
        (("--overwrite",), "--overwrite cannot be given together with --resume"),
        (("--out", "x"), "--out cannot be given together with --resume"),
    ],
)
def test_a_resumed_run_refuses_what_would_make_it_another(tmp_path, monkeypatch, capsys, flags, message):
    install(monkeypatch)
    call(capsys, "run", *SMALL, "--rounds", 2, "--out", tmp_path)
    code, _, stderr = call(capsys, "run", "--resume", tmp_path, *flags)
    assert code == 2
    assert re.search(message, stderr)


def test_a_folder_that_holds_no_run_cannot_be_resumed(tmp_path, capsys):
    code, _, stderr = call(capsys, "run", "--resume", tmp_path)
    assert code == 2
    assert "holds no config.toml: it is not the folder of a run" in stderr


def test_json_prints_one_object_a_round_and_nothing_else(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    _, stdout, stderr = call(capsys, "run", *SMALL, "--rounds", 2, "--json", "--out", tmp_path)
    lines = [json.loads(line) for line in stdout.splitlines()]
    stored = [record.to_json() for record in read_rounds(tmp_path / "rounds.jsonl")]
    assert lines == [
        json.loads(json.dumps({"algorithm": "fedadam-ssm", "seed": 0, **record})) for record in stored
    ]
    assert stderr == ""


def test_on_a_terminal_a_bar_shows_rounds_accuracy_and_bytes(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    _, _, stderr = call(capsys, "run", *SMALL, "--rounds", 2, "--out", tmp_path)
    assert re.search(r"2/2.*accuracy \d\d\.\d\d %, 0\.000\d+ MB up.*0:00:00", stderr)


def test_an_old_run_is_replaced_only_when_asked(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    call(capsys, "run", *SMALL, "--rounds", 2, "--out", tmp_path)
    code, _, stderr = call(capsys, "run", *SMALL, "--rounds", 1, "--out", tmp_path)
    assert code == 2
    assert "already holds a run" in stderr
    assert call(capsys, "run", *SMALL, "--rounds", 1, "--out", tmp_path, "--overwrite")[0] == 0
    assert len(read_rounds(tmp_path / "rounds.jsonl")) == 1


def test_a_flag_that_is_refused_costs_no_old_run(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    call(capsys, "run", *SMALL, "--rounds", 2, "--out", tmp_path)
    assert call(capsys, "run", *SMALL, "--algorithm", "fedadm", "--overwrite", "--out", tmp_path)[0] == 2
    assert len(read_rounds(tmp_path / "rounds.jsonl")) == 2


def test_a_failure_is_recorded_and_the_run_continues_from_there(tmp_path, monkeypatch, capsys):
    from comask.errors import WorkerError

    opened = install(monkeypatch)
    append = RunFolder.append

    def fail_on_the_second(self, record):
        append(self, record)
        if record.round == 2:
            raise WorkerError("worker 1 died")

    monkeypatch.setattr(RunFolder, "append", fail_on_the_second)
    code, _, stderr = call(capsys, "run", *SMALL, "--rounds", 3, "--out", tmp_path)
    assert (code, stderr.splitlines()[-1]) == (1, "comask: worker 1 died")
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"
    monkeypatch.setattr(RunFolder, "append", append)
    assert call(capsys, "run", "--resume", tmp_path)[0] == 0
    assert opened[1].start_round == 3


def test_a_dry_run_prints_what_would_run_and_writes_nothing(tmp_path, capsys):
    out = tmp_path / "run"
    code, stdout, _ = call(capsys, "run", *SMALL, "--dry-run", "--out", out)
    assert code == 0
    file = tmp_path / "c.toml"
    file.write_text(stdout)
    assert RunConfig.load(file, {}).lr == 1e-3
    assert not out.exists()


def test_a_mask_is_an_option_with_a_flag_of_its_own(capsys):
    code, short, _ = call(capsys, "run", "--mask", "bound", "--dry-run")
    _, long, _ = call(capsys, "run", "-o", "mask=bound", "--dry-run")
    assert (code, short) == (0, long)
    assert 'mask = "bound"' in short
    code, _, stderr = call(capsys, "run", "--mask", "best", "--dry-run")
    assert code == 2
    assert "Unknown mask rule 'best'. It must be one of: bound, fair, m, v, w." in stderr


def test_a_damaged_record_is_a_checkpoint_error(tmp_path, monkeypatch, capsys):
    install(monkeypatch)
    call(capsys, "run", *SMALL, "--rounds", 3, "--out", tmp_path)
    (tmp_path / "rounds.jsonl").write_text("{}\n{}\n")
    code, _, stderr = call(capsys, "run", "--resume", tmp_path)
    assert code == 5
    assert "line 1, is not a round's record" in stderr


def test_ctrl_c_before_anything_was_written_offers_nothing_to_continue(tmp_path, monkeypatch, capsys):
    def stop(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("comask.experiments.runner.divide", stop)
    code, _, stderr = call(capsys, "run", *SMALL, "--out", tmp_path / "run")
    assert (code, stderr) == (130, "\nInterrupted.\n")
