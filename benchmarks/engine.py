"""Seconds per round of the simulator, against the loop that a user would write without it.

The job is the README's: a CNN on Fashion-MNIST, 20 clients, Dirichlet 0.1, 30 local steps of 32 samples, no evaluation.
The plain loop does the same steps in the same number of processes at the same precision: standard modules,
`torch.optim.Adam`, one batch gathered a step, dense changes of weights and moments averaged by numpy. It has no mask, no
codec, no checks. A second one differs in one line, which puts images channels-last as the simulator does. They take turns, round by
round, so that a machine whose speed drifts slows all; the figures to quote are the medians of the paired ratios.

    python benchmarks/engine.py [--rounds 10] [--workers 2] [--algorithm fedadam-ssm] [--dataset fashion-mnist-mini]
"""

from __future__ import annotations

import argparse
import multiprocessing as mp
import platform
import statistics
import time
from functools import partial
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import nn

from comask.algorithms import make_algorithm
from comask.data import Federation, load_dataset, make_federation
from comask.models import build_model
from comask.simulation import PHASES, simulate
from comask.simulation.workers import default_workers

STEPS, BATCH, CLIENTS, LR = 30, 32, 20, 1e-3
LOOPS = {"plain loop": torch.contiguous_format, "plain loop, channels-last": torch.channels_last}


def plain_worker(pipe: Connection, federation: Federation, precision: str, loop: str) -> None:
    """Train the clients that come through the pipe, as a script would."""
    torch.set_num_threads(1)
    dataset = federation.dataset
    images = (
        torch.from_numpy(dataset.train_inputs).float().div_(255).sub_(dataset.mean[0]).div_(dataset.std[0])
    )
    images = images.to(memory_format=LOOPS[loop])
    labels = torch.from_numpy(dataset.train_targets).long()
    model = build_model("cnn", dataset, seed=0)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)
    parameters = list(model.parameters())
    loss_of = nn.CrossEntropyLoss()
    rng = np.random.default_rng()
    while True:
        try:
            client, streams = pipe.recv()
        except EOFError:
            return
        offset = 0
        with torch.no_grad():
            for p in parameters:
                w, m, v = (torch.from_numpy(row[offset : offset + p.numel()]).view_as(p) for row in streams)
                p.copy_(w)
                optimizer.state[p] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": m.clone(),
                    "exp_avg_sq": v.clone(),
                }
                offset += p.numel()
        samples = rng.permutation(federation.clients[client])
        for step in range(STEPS):
            batch = torch.from_numpy(samples[np.arange(step * BATCH, (step + 1) * BATCH) % len(samples)])
            x, y = images[batch], labels[batch]
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
                loss = loss_of(model(x), y)
            loss.backward()
            optimizer.step()
        state = [optimizer.state[p] for p in parameters]
        after = np.stack(
            [
                torch.cat([p.detach().reshape(-1) for p in parameters]).numpy(),
                torch.cat([s["exp_avg"].reshape(-1) for s in state]).numpy(),
                torch.cat([s["exp_avg_sq"].reshape(-1) for s in state]).numpy(),
            ]
        )
        pipe.send((client, after - streams))


class PlainLoop:
    """Two processes and a loop: what the simulator is measured against."""

    def __init__(self, federation: Federation, workers: int, precision: str, loop: str) -> None:
        context = mp.get_context("spawn")
        self._weights = np.array([len(samples) for samples in federation.clients], np.float64)
        self._weights /= self._weights.sum()
        model = build_model("cnn", federation.dataset, seed=0)
        params = torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy()
        self._streams = np.stack([params, np.zeros_like(params), np.zeros_like(params)])
        self._pipes = []
        for _ in range(workers):
            ours, theirs = context.Pipe()
            context.Process(
                target=plain_worker, args=(theirs, federation, precision, loop), daemon=True
            ).start()
            self._pipes.append(ours)

    def round(self) -> float:
        """Train every client once and average; return the seconds."""
        began = time.perf_counter()
        waiting = list(range(CLIENTS))
        total = np.zeros_like(self._streams)
        for pipe in self._pipes:
            pipe.send((waiting.pop(0), self._streams))
        for _ in range(CLIENTS):
            (pipe, *_) = mp.connection.wait(self._pipes)
            client, change = pipe.recv()
            if waiting:
                pipe.send((waiting.pop(0), self._streams))
            total += (self._weights[client] * change).astype(np.float32)
        self._streams += total
        return time.perf_counter() - began

    def close(self) -> None:
        """Let the workers go."""
        for pipe in self._pipes:
            pipe.close()


def measure(args: argparse.Namespace, precision: str) -> None:
    dataset = load_dataset(args.dataset)
    federation = make_federation(dataset, "dirichlet:0.1", CLIENTS, seed=0)
    loops = {loop: PlainLoop(federation, args.workers, precision, loop) for loop in LOOPS}
    run = simulate(
        make_algorithm(args.algorithm),
        federation,
        partial(build_model, "cnn", dataset, seed=0),
        rounds=args.rounds + 1,
        seed=0,
        local_steps=STEPS,
        batch_size=BATCH,
        workers=args.workers,
        precision=precision,
        eval_every=0,
    )
    records, seconds = [], {loop: [] for loop in LOOPS}
    with run:
        for number, record in enumerate(run):
            took = {loop: plain.round() for loop, plain in loops.items()}
            if number:  # the first round of each warms up
                records.append(record)
                for loop in LOOPS:
                    seconds[loop].append(took[loop])
    for plain in loops.values():
        plain.close()
    ours = [record.seconds["wall"] for record in records]
    print(f"\n{precision}, {args.workers} workers, {args.rounds} rounds, medians")
    print(f"  comask, {args.algorithm:<28} {statistics.median(ours):7.3f} s a round")
    for loop in LOOPS:
        ratios = sorted(mine / theirs for mine, theirs in zip(ours, seconds[loop], strict=True))
        print(
            f"  {loop + ', dense':<36} {statistics.median(seconds[loop]):7.3f} s a round; comask / this"
            f" {statistics.median(ratios):.3f} (paired; {ratios[0]:.3f} to {ratios[-1]:.3f})"
        )
    for phase in PHASES:
        phase_seconds = statistics.median(record.seconds[phase] for record in records)
        print(f"    {phase:<10} {phase_seconds:8.4f} s, all clients together")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--workers", type=int, default=default_workers())
    parser.add_argument("--algorithm", default="fedadam-ssm")
    parser.add_argument("--dataset", default="fashion-mnist-mini")
    parser.add_argument("--precision", choices=["float32", "bfloat16", "both"], default="both")
    args = parser.parse_args()
    print(
        f"{platform.platform()}, {default_workers()} cores, Python {platform.python_version()}, torch {torch.__version__}"
    )
    for precision in ("float32", "bfloat16") if args.precision == "both" else (args.precision,):
        measure(args, precision)


if __name__ == "__main__":
    main()
