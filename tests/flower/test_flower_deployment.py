"""The main faults in a real deployment: SuperLink and SuperNodes in processes of their own, with TLS and keys."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "examples" / "flower-deployment" / "demo.py"

pytestmark = [
    pytest.mark.timeout(560),
    pytest.mark.xdist_group("deployment"),  # one fleet at a time
    pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc"),
]

LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
"""127.0.0.1 as the kernel writes it, plain and mapped into IPv6, in the order of the bytes in memory."""


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


def processes(folder):
    """Return the processes that run with Flower's home in the folder, as their directories in /proc."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is not ours
            if f"FLWR_HOME={folder}".encode() in (process / "environ").read_bytes():
                found.append(process)
    return found


def listening(folder):
    """Return the addresses, as the kernel writes them, on which these processes listen."""
    sockets = set()
    for process in processes(folder):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                sockets.add(str(descriptor.readlink()))
    table = [
        line.split() for name in ("tcp", "tcp6") for line in Path("/proc/net", name).read_text().splitlines()
    ]
    # Columns: 1 local address and port, 3 state (0A: listening), 9 inode.
    return {row[1].partition(":")[0] for row in table if row[3] == "0A" and f"socket:[{row[9]}]" in sockets}


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
    assert processes(tmp_path) == []


@pytest.mark.slow
def test_the_demonstration_ends_with_the_right_model(tmp_path):
    output = demonstrate(tmp_path)
    assert "status finished:completed" in output
    assert "1: payload" in output
    assert processes(tmp_path) == []


def test_only_the_loopback_listens_and_whatever_was_started_is_stopped(tmp_path):
    """The demonstration is cut short, by a time limit of the test, say."""
    process = subprocess.Popen(
        [sys.executable, str(DEMO), "--folder", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        log = tmp_path / "node-0.log"
        while not (log.exists() and "SuperNode ID" in log.read_text()):
            assert process.poll() is None
            time.sleep(0.2)
        assert len(processes(tmp_path)) >= 2
        assert listening(tmp_path)
        assert listening(tmp_path) <= LOOPBACK
    finally:
        process.terminate()
        process.wait(60)
    assert processes(tmp_path) == []
