"""The command line with the real simulation behind it, on a task that takes milliseconds a round."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from cli_fakes import call

from comask.experiments.folder import read_rounds

SMALL = ("--model", "logistic", "--clients", 4, "--local-steps", 2, "--workers", 0, "--precision", "float32")


@pytest.fixture(autouse=True)
def one_thread():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_seconds(folder):
    return [record.to_json() | {"seconds": None} for record in read_rounds(folder / "rounds.jsonl")]


def model(folder):
    (state,) = (folder / "checkpoint").glob("state-*.npz")
    with np.load(state, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def test_a_run_killed_at_any_moment_continues_to_the_same_bytes_and_the_same_model(tmp_path, capsys):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    flags = [str(flag) for flag in (*SMALL, "--rounds", 100_000, "--out", killed)]
    command = [sys.executable, "-m", "comask", "run", *flags]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}  # as in this process
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=one_thread) as process:
        records = killed / "rounds.jsonl"
        while process.poll() is None and not (records.exists() and records.read_bytes().count(b"\n") >= 3):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    rounds = records.read_bytes().count(b"\n") + 3
    assert call(capsys, "run", "--resume", killed, "--rounds", rounds)[0] == 0
    assert call(capsys, "run", *SMALL, "--rounds", rounds, "--out", whole)[0] == 0
    assert without_seconds(killed) == without_seconds(whole)
    ours, theirs = model(killed), model(whole)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("lost", ["record", "part of a record", "nothing"])
def test_records_and_checkpoint_of_a_real_run_are_made_to_agree(tmp_path, capsys, lost):
    whole, run = tmp_path / "whole", tmp_path / "run"
    call(capsys, "run", *SMALL, "--rounds", 5, "--out", whole)
    call(capsys, "run", *SMALL, "--rounds", 3, "--out", run)
    records = run / "rounds.jsonl"
    lines = records.read_bytes().splitlines(keepends=True)
    kept = {"record": b"", "part of a record": lines[2][:40], "nothing": lines[2]}[lost]
    records.write_bytes(lines[0] + lines[1] + kept)
    assert call(capsys, "run", "--resume", run, "--rounds", 5)[0] == 0
    assert without_seconds(run) == without_seconds(whole)


def test_a_comparison_and_its_report(tmp_path, capsys):
    algorithms = ("fedadam", "fedadam-top", "fedadam-ssm")
    flags = ("--algorithms", ",".join(algorithms), "--seeds", 2, "--rounds", 3)
    code, stdout, _ = call(capsys, "compare", *SMALL, *flags, "--out", tmp_path)
    assert code == 0
    for name in algorithms:
        for seed in (0, 1):
            summary = json.loads((tmp_path / name / f"seed-{seed}" / "summary.json").read_text())
            parts = [summary[f"{part}_bytes"] for part in ("mask", "value", "buffer", "overhead")]
            assert summary["uplink_bytes"] == sum(parts)
            assert (summary["parameters"], summary["precision_reason"]) == (7850, "as asked")
        assert f"| {name} | 2 |" in stdout
    assert call(capsys, "report", tmp_path)[0] == 0
    assert "fedadam-ssm, seed 0" in (tmp_path / "report" / "report.html").read_text()
