"""The main faults in a real deployment: SuperLink and SuperNodes in processes of their own, with TLS and keys."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "flower-deployment" / "demo.py"

pytestmark = [
    pytest.mark.timeout(560),
    pytest.mark.xdist_group("deployment"),  # one fleet at a time
    pytest.mark.skipif(
        not (shutil.which("openssl") and shutil.which("ssh-keygen")),
        reason="certificates need openssl and ssh-keygen",
    ),
]


def demonstrate(folder, *options):
    """Run the demonstration, whatever happens to an end: when it is terminated it stops what it has started."""
    command = [sys.executable, str(DEMO), "--folder", str(folder), "--limit", "500", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        output, _ = process.communicate()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    assert process.returncode == 0, output
    return output


def left_over(folder):
    """Return the processes that run with Flower's home in the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"FLWR_HOME={folder}".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes())
        except OSError:  # it has ended, or is not ours
            continue
    return found


def test_every_fault_in_a_real_deployment(tmp_path):
    """Clients raise, die, hang, repeat themselves, send garbage and NaN; the server is killed; the model is the right one."""
    output = demonstrate(tmp_path, "--every-fault")
    counted = output.splitlines()[1:6]
    for line, words in zip(
        counted, ("0: failed", "[0]", "1: payload", "0: stale-round", "1: non-finite"), strict=True
    ):
        assert words in line
    assert output.splitlines()[-1].startswith("status ")
    assert "finished:completed" in output.splitlines()[-1]
    assert left_over(tmp_path) == []


@pytest.mark.slow
def test_the_demonstration_ends_with_the_right_model(tmp_path):
    output = demonstrate(tmp_path)
    assert "status finished:completed" in output
    assert "1: payload" in output
    assert left_over(tmp_path) == []


def test_what_was_started_is_stopped_when_the_demonstration_is_cut_short(tmp_path):
    """A time limit of the test, say: the SuperLink listens, and is gone when the demonstration is."""
    process = subprocess.Popen(
        [sys.executable, str(DEMO), "--folder", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        while not (tmp_path / "node-0.log").exists():
            assert process.poll() is None
            time.sleep(0.2)
        assert len(left_over(tmp_path)) >= 2
    finally:
        process.terminate()
        process.wait(60)
    assert left_over(tmp_path) == []
