"""What is planned to go wrong, what must come of it, and the report."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from comask_demo import task

from comask.algorithms.base import ClientContext, Memory, ServerState, Upload
from comask.flat import FlatModel
from comask.seeding import derive_seed
from comask.session import ClientRound
from comask.wire import decode, encode

OUTCOMES = {
    "raise": {"failed"},
    "die": {"failed", "dropped"},  # whichever is first: that Flower notices, or the end of the round's time
    "hang": {"dropped"},
    "garbage": {"payload"},
    "nan": {"non-finite"},
    "repeat": {"stale-round"},
}
"""How a client's fault is counted. One that waits for the server to be killed does nothing wrong."""

MESSAGE_OVERHEAD = 3000
"""Bytes that Flower may count a message beyond its payload: names, the header, metrics, and one record for each object."""


@dataclass(frozen=True)
class Plan:
    """A run with faults.

    Attributes:
        faults: For each client, its fault in each round; see `comask_demo.faults`.
        timeout: Seconds that the clients of a round have. Flower notices a dead node after about a minute.
        rounds: How many.
    """

    faults: Mapping[int, Mapping[int, str]]
    timeout: float
    rounds: int = 5

    def of_client(self, client: int) -> str:
        """Return a client's faults as its node's configuration has them."""
        return " ".join(f"{number}:{name}" for number, name in self.faults.get(client, {}).items())

    @property
    def from_outside(self) -> list[tuple[int, int, str]]:
        """The round, client and name of what needs a hand from outside, in order."""
        every = [(n, client, name) for client, plan in self.faults.items() for n, name in plan.items()]
        return sorted(
            ((n, client, name) for n, client, name in every if name in ("die", "hang", "wait")),
            key=lambda each: (each[0], each[2]),  # "die" before "hang" before "wait"
        )

    def expected(self, number: int) -> tuple[list[int], dict[int, set[str]]]:
        """Return who takes part in a round, and how each of the others is counted."""
        others = {}
        for client, plan in self.faults.items():
            fault = plan.get(number, "")
            if fault in OUTCOMES:
                others[client] = OUTCOMES[fault]
            elif any(name == "die" and when < number for when, name in plan.items()):
                others[client] = set()
        return [client for client in range(task.NUM_CLIENTS) if client not in others], others


DEMO = Plan({1: {3: "garbage"}, 2: {2: "die"}}, timeout=90.0)

EVERY_FAULT = Plan(
    {
        0: {1: "raise", 4: "repeat"},
        1: {2: "hang", 3: "garbage", 4: "wait", 5: "nan"},
        2: {2: "die"},
    },
    timeout=60.0,
)


def check(plan: Plan, runs: list[dict], rounds: list[dict], output: Path) -> list[str]:
    """Return what is not as it must be."""
    if runs[-1].get("status") != "finished:completed":
        return [f"Flower says that the run is {runs[-1].get('status')!r}."]
    if [report["round"] for report in rounds] != list(range(1, plan.rounds + 1)):
        return [f"The rounds were {[report['round'] for report in rounds]}."]
    problems = [problem for report in rounds for problem in check_round(plan, report)]
    state, sizes = replay(rounds)
    with np.load(output / "model.npz", allow_pickle=False) as archive:
        if archive["streams"].tobytes() != state.model.streams.tobytes():
            problems.append("The model is not the one that the same rounds give in a single process.")
    for report, size in zip(rounds, sizes, strict=True):
        refused = {each["reason"] for each in report["refused"]}
        if (
            "non-finite" not in refused and report["uplink_bytes"] != size
        ):  # a payload with NaN is counted too
            problems.append(
                f"The uploads of round {report['round']} were {report['uplink_bytes']} bytes, not {size}."
            )
    return problems + check_bytes(plan, runs, rounds)


def check_round(plan: Plan, report: dict) -> list[str]:
    """Return what is not as it must be with a round's clients."""
    number, problems = report["round"], []
    participants, others = plan.expected(number)
    if report["participants"] != participants:
        problems.append(f"In round {number}, {report['participants']} took part, not {participants}.")
    counted = dict.fromkeys(report["dropped"], "dropped")
    counted |= {each["client"]: each["reason"] for each in report["refused"]}
    problems += [
        f"In round {number}, client {client} was counted as {counted.get(client)!r}, not {allowed}."
        for client, allowed in others.items()
        if allowed and counted.get(client) not in allowed
    ]
    if report["memory_lost"]:
        problems.append(f"In round {number}, {report['memory_lost']} had lost their residuals.")
    return problems


def check_bytes(plan: Plan, runs: list[dict], rounds: list[dict]) -> list[str]:
    """Compare Flower's count with ours: they differ by names and headers, and by what was sent and never taken in."""
    messages = sum(len(report["cohort"]) for report in rounds) + task.NUM_CLIENTS  # with their introductions
    upload = max(report["uplink_bytes"] // max(len(report["participants"]), 1) for report in rounds)
    broadcast = rounds[0]["downlink_bytes"] // len(rounds[0]["cohort"])  # whole: nobody had a model yet
    faults = [name for each in plan.faults.values() for name in each.values()]
    unseen = 4096 * faults.count("garbage") + upload * (faults.count("hang") + faults.count("repeat"))
    again = task.NUM_CLIENTS * faults.count("wait")  # messages of the round in which the server was killed
    unread = sum(
        client in report["cohort"]
        for client, each in plan.faults.items()
        for when, name in each.items()
        for report in rounds
        if name == "die" and when < report["round"]
    )
    problems = []
    for way, less, more in (
        ("uplink", 0, unseen + again * upload),
        ("downlink", unread * broadcast, again * broadcast),
    ):
        ours, flowers = sum(report[f"{way}_bytes"] for report in rounds), traffic(runs)[way]
        if not ours - less <= flowers <= ours + more + MESSAGE_OVERHEAD * messages:
            problems.append(f"Flower counts {flowers} {way} bytes, comask {ours}.")
    return problems


def traffic(runs: list[dict]) -> dict[str, int]:
    """Return the bytes that Flower counted, over all runs."""
    found = [run.get("network-traffic", {}) for run in runs]
    return {
        way: sum(int(each.get(f"{name}-bytes", 0)) for each in found)
        for way, name in (("uplink", "inbound"), ("downlink", "outbound"))
    }


def replay(rounds: list[dict]) -> tuple[ServerState, list[int]]:
    """Run the same rounds with the same participants in this process, without Flower and without interruption.

    Returns:
        The server's last state, and the bytes of each round's uploads.
    """
    federation, model = task.load_federation(), FlatModel(task.make_model())
    algorithm = task.ALGORITHM
    state = algorithm.server.init(model.params_array(), model.buffers_array())
    memories: dict[int, Memory] = {}
    sizes = []
    for report in rounds:
        number, uploads, size = state.round + 1, [], 0
        broadcast = algorithm.server.broadcast(state)
        sent = decode(encode(broadcast, algorithm.downlink), dim=model.dim)
        for client in report["participants"]:
            context = ClientContext(number, client, task.SEED, model.layout, algorithm.uplink)
            local = ClientRound(algorithm, model, replace(sent), memories.get(client, {}), context)
            seeds = partial(_stream_seed, number, client)
            task.train(model.module, local.optimizer, federation, client, seeds)
            reply = local.finish()
            memories[client] = reply.memory
            size += len(reply.payload)
            update = decode(reply.payload, dim=model.dim, layout=model.layout)
            uploads.append(Upload(client, float(len(federation.clients[client])), update))
        state = algorithm.server.aggregate(state, uploads)
        sizes.append(size)
    return state, sizes


def _stream_seed(number: int, client: int, name: str) -> int:
    return derive_seed(task.SEED, name, number, client)


def print_report(runs: list[dict], rounds: list[dict], output: Path, seconds: float) -> None:
    """Print what happened, and Flower's bytes beside ours."""
    scores = dict(read_lines(output / "accuracy.jsonl"))
    print(f"round  took part  missing  {'refused':26}  accuracy  payload bytes up   payload bytes down")
    for report in rounds:
        refused = ", ".join(f"{r['client']}: {r['reason']}" for r in report["refused"]) or "-"
        print(
            f"{report['round']:5}  {report['participants']!s:9}  {report['dropped']!s:7}  {refused:26}  "
            f"{scores.get(report['round'], float('nan')):8.1%}  {report['uplink_bytes']:16,}  {report['downlink_bytes']:19,}"
        )
    up, down = (sum(report[f"{way}_bytes"] for report in rounds) for way in ("uplink", "downlink"))
    counted = traffic(runs)
    print(f"total payload bytes: {up:,} up, {down:,} down")
    print(f"Flower's own count:  {counted['uplink']:,} up, {counted['downlink']:,} down")
    print(f"status {', '.join(str(run.get('status')) for run in runs)}, {seconds:.0f} s")


def read_lines(file: Path) -> list:
    """Return the JSON values of a file's lines."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
