"""A real fleet with faults: 3 nodes, 5 rounds, one node killed in round 2, one sending garbage in round 3.

Run with `python demo.py`. The exit code is 0 if the run finished, every fault was counted for what it was, and the model
is, bit for bit, the one that the same rounds give in a single process.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from comask_demo import task
from deployment import Deployment

from comask.algorithms.base import ClientContext, Memory, ServerState, Upload
from comask.flat import FlatModel
from comask.seeding import derive_seed
from comask.session import ClientRound
from comask.wire import decode, encode

HERE = Path(__file__).resolve().parent
ROUNDS = 5
KILLED, GARBAGE = 2, 1
"""The client whose node is killed in round 2, and the one that sends garbage in round 3."""


def main() -> int:
    """Run the demonstration; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=float, default=230.0, help="seconds after which the run has failed")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="comask-demo-") as name:
        folder = Path(name)
        output = folder / "output"
        output.mkdir()
        began = time.monotonic()
        status = run_fleet(folder, output, began + arguments.limit)
        rounds = read_lines(output / "rounds.jsonl")
        problems = check(status, rounds, output)
        print_report(status, rounds, output, time.monotonic() - began)
        if problems:
            for log in sorted(folder.glob("*.log")):
                print(f"--- the end of {log.name}\n{log.read_text()[-3000:]}")
    for problem in problems:
        print(f"FAILED: {problem}")
    return 1 if problems else 0


def run_fleet(folder: Path, output: Path, deadline: float) -> dict:
    """Start everything, pull the plug of one node when it says that it trains, and wait for the end of the run."""
    marker = folder / "client-is-training"
    faults = {
        KILLED: f' hang-in-round=2 marker="{marker}"',
        GARBAGE: " garbage-in-round=3",
    }
    with Deployment(folder, HERE) as fleet:
        for client in range(task.NUM_CLIENTS):
            config = f'partition-id={client} comask-folder="{folder / f"node-{client}-files"}"'
            fleet.add_node(f"node-{client}", config + faults.get(client, ""))
        fleet.flwr("run", str(HERE), "demo", "--run-config", f'output="{output}"')
        wait_until(marker.exists, deadline)
        fleet.kill(f"node-{KILLED}")
        wait_until(lambda: len(read_lines(output / "rounds.jsonl")) == ROUNDS, deadline)
        while not str((status := fleet.run_status()).get("status")).startswith("finished"):
            if time.monotonic() > deadline:
                break
        return status


def wait_until(condition: Callable[[], bool], deadline: float) -> None:
    """Look twice a second until something is so, or the time is over."""
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.5)


def check(status: dict, rounds: list[dict], output: Path) -> list[str]:
    """Return what is not as it must be."""
    if status.get("status") != "finished:completed":
        return [f"Flower says that the run is {status.get('status')!r}."]
    others = sorted({0, 1, 2} - {KILLED})
    honest = sorted({*others} - {GARBAGE})
    expected = [[0, 1, 2], others, honest, others, others]
    problems = []
    if [report["participants"] for report in rounds] != expected:
        problems.append(
            f"The participants were {[report['participants'] for report in rounds]}, not {expected}."
        )
    if len(rounds) == ROUNDS:
        if KILLED not in missing(rounds[1]):
            problems.append("The killed node is not missing from round 2.")
        if [GARBAGE, "payload"] not in [[r["client"], r["reason"]] for r in rounds[2]["refused"]]:
            problems.append("The garbage of round 3 was not refused as a payload.")
    with np.load(output / "model.npz", allow_pickle=False) as archive:
        if archive["streams"].tobytes() != replay(rounds).model.streams.tobytes():
            problems.append("The model is not the one that the same rounds give in a single process.")
    return problems


def missing(report: dict) -> list[int]:
    """Return the clients of a round that never answered, or whose failure Flower reported."""
    return report["dropped"] + [r["client"] for r in report["refused"] if r["reason"] == "failed"]


def replay(rounds: list[dict]) -> ServerState:
    """Run the same rounds with the same participants in this process, without Flower."""
    federation, model = task.load_federation(), FlatModel(task.make_model())
    algorithm = task.ALGORITHM
    state = algorithm.server.init(model.params_array(), model.buffers_array())
    memories: dict[int, Memory] = {}
    for report in rounds:
        number, uploads = state.round + 1, []
        broadcast = algorithm.server.broadcast(state)
        sent = decode(encode(broadcast, algorithm.downlink), dim=model.dim)
        for client in report["participants"]:
            context = ClientContext(number, client, task.SEED, model.layout, algorithm.uplink)
            local = ClientRound(algorithm, model, replace(sent), memories.get(client, {}), context)
            seeds = partial(_stream_seed, number, client)
            task.train(model.module, local.optimizer, federation, client, seeds)
            reply = local.finish()
            memories[client] = reply.memory
            update = decode(reply.payload, dim=model.dim, layout=model.layout)
            uploads.append(Upload(client, float(len(federation.clients[client])), update))
        state = algorithm.server.aggregate(state, uploads)
    return state


def _stream_seed(number: int, client: int, name: str) -> int:
    return derive_seed(task.SEED, name, number, client)


def print_report(status: dict, rounds: list[dict], output: Path, seconds: float) -> None:
    """Print what happened, and Flower's bytes beside ours."""
    scores = dict(read_lines(output / "accuracy.jsonl"))
    print("round  took part  missing  refused            accuracy  payload bytes up   payload bytes down")
    for report in rounds:
        refused = ", ".join(f"{r['client']}: {r['reason']}" for r in report["refused"]) or "-"
        print(
            f"{report['round']:5}  {report['participants']!s:9}  {report['dropped']!s:7}  {refused:17}  "
            f"{scores.get(report['round'], float('nan')):8.1%}  {report['uplink_bytes']:16,}  {report['downlink_bytes']:19,}"
        )
    up, down = (sum(report[f"{way}_bytes"] for report in rounds) for way in ("uplink", "downlink"))
    traffic = status.get("network-traffic", {})
    print(f"total payload bytes: {up:,} up, {down:,} down")
    print(f"Flower's own count:  {traffic.get('inbound-bytes')} up, {traffic.get('outbound-bytes')} down")
    print(f"status {status.get('status')}, {seconds:.0f} s")


def read_lines(file: Path) -> list:
    """Return the JSON values of a file's lines."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


if __name__ == "__main__":
    sys.exit(main())
