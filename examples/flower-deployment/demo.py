"""A real fleet with faults: 3 nodes, 5 rounds, one node killed in round 2, one sending garbage in round 3.

Run with `python demo.py`; with `--every-fault` clients also raise, hang, repeat themselves and send NaN, and the whole
server is killed in round 4 and started again. The exit code is 0 if the run finished, every fault was counted for what it
was, and the model is, bit for bit, the one that the same rounds give in a single process.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from comask_demo import task
from comask_demo.faults import Gate
from deployment import Deployment
from outcome import DEMO, EVERY_FAULT, Plan, check, print_report, read_lines

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run the demonstration; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--every-fault", action="store_true", help="more faults; the server is killed in round 4"
    )
    parser.add_argument("--limit", type=float, default=600.0, help="seconds after which the run has failed")
    parser.add_argument("--folder", type=Path, help="where to keep everything; by default a temporary folder")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # so that what was started is stopped
    plan = EVERY_FAULT if arguments.every_fault else DEMO
    if arguments.folder is not None:
        return run(plan, arguments.folder.resolve(), arguments.limit)
    with tempfile.TemporaryDirectory(prefix="comask-demo-") as name:
        return run(plan, Path(name), arguments.limit)


def run(plan: Plan, folder: Path, limit: float) -> int:
    """Run a plan in a folder; return the exit code."""
    output, signals = folder / "output", folder / "signals"
    for each in (output, signals):
        each.mkdir(parents=True)
    began = time.monotonic()
    status = run_fleet(plan, folder, began + limit)
    rounds = read_lines(output / "rounds.jsonl")
    print_report(status, rounds, output, time.monotonic() - began)
    problems = check(plan, status, rounds, output)
    if problems:
        for log in sorted(folder.glob("*.log")):
            print(f"--- the end of {log.name}\n{log.read_text()[-3000:]}")
    for problem in problems:
        print(f"FAILED: {problem}")
    return 1 if problems else 0


def run_fleet(plan: Plan, folder: Path, deadline: float) -> list[dict]:
    """Start everything, do what is done to the fleet from outside, wait for the end; return Flower's record of each run."""
    output = folder / "output"
    with Deployment(folder, HERE) as fleet:
        for client in range(task.NUM_CLIENTS):
            config = f'partition-id={client} comask-folder="{folder / f"node-{client}-files"}" '
            config += f'signals="{folder / "signals"}" faults="{plan.of_client(client)}"'
            fleet.add_node(f"node-{client}", config)

        def start() -> None:
            fleet.flwr("run", str(HERE), "demo", "--run-config", f'output="{output}" timeout={plan.timeout}')

        start()
        for number, client, fault in plan.from_outside:
            gate = Gate(folder / "signals", client, number)
            wait_until(lambda gate=gate: gate.reached, deadline)
            if fault == "die":
                fleet.kill(f"node-{client}")
            elif fault == "hang":
                wait_until(lambda number=number: completed(output) >= number, deadline)
            elif fault == "wait":
                fleet.kill("superlink")
                fleet.start_superlink()
                start()
            gate.open()
        wait_until(lambda: completed(output) == plan.rounds, deadline)
        while not str((runs := fleet.runs())[-1]["status"]).startswith("finished"):
            if time.monotonic() > deadline:
                break
        return runs


def completed(output: Path) -> int:
    """Return the last round that was completed."""
    return len(read_lines(output / "rounds.jsonl"))


def wait_until(condition: Callable[[], bool], deadline: float) -> None:
    """Look five times a second until something is so, or the time is over."""
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)


if __name__ == "__main__":
    sys.exit(main())
