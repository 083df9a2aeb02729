"""Test accuracy by mask rule, for short and long rounds: does the mask of Theorem 4 train better than top-k of |dW|?

    python experiments/theory/mask_rules.py            # runs what is missing, then prints and draws
    python experiments/theory/mask_rules.py --report   # prints and draws what is there

Two tasks (the CNN on fashion-mnist-mini, the perceptron on CIFAR-10), ten clients with Dirichlet(0.1) shares, batches of 32,
density 0.02, no error feedback, three seeds, through the simulator and its codec. Each run is one line of
`results/mask_rules.jsonl`, written when it ends: a second start goes on where the first was stopped. Draws
`docs/figures/theory-mask-rules.svg`. About 40 minutes on one free core.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt

from comask.algorithms import make_algorithm
from comask.algorithms.base import ClientContext, ClientRule, Memory
from comask.data.load import load_dataset
from comask.data.partition import make_federation
from comask.hyperparams import AdamConfig
from comask.masks import num_kept, top_k
from comask.models.registry import build_model
from comask.simulation import simulate
from comask.state import FIRST_MOMENT, SECOND_MOMENT, WEIGHTS, ModelState
from comask.theory import bound_scores, coordinate_sensitivities
from comask.wire.update import Update

HERE = Path(__file__).parent
OUTPUT = HERE / "results" / "mask_rules.jsonl"
FIGURE = HERE.parents[1] / "docs" / "figures" / "theory-mask-rules.svg"
CLIENTS, BATCH, DENSITY = 10, 32, 0.02
RULES = ("w", "bound", "fair", "v", "m")
TASKS = {"fashion-mnist-mini": "cnn", "cifar10": "mlp"}
ROUNDS = {3: {"fashion-mnist-mini": 120, "cifar10": 200}, 30: {"fashion-mnist-mini": 24, "cifar10": 40}}
EVALUATIONS = 20
PROBES = 6
Key = tuple[str, int, int, str]


@dataclass(frozen=True)
class Probe:
    """A client rule that notes, for every upload of some rounds, what (25) says of it, and changes nothing.

    Attributes:
        inner: The rule itself.
        adam: Local Adam's settings.
        every: Rounds from one note to the next.
        notes: One dict an upload.
    """

    inner: ClientRule
    adam: AdamConfig
    every: int
    notes: list[dict[str, float]] = field(default_factory=list, compare=False, repr=False)

    def begin(self, broadcast: Update, memory: Memory) -> ModelState:
        """Do as the inner rule does."""
        return self.inner.begin(broadcast, memory)

    def finish(
        self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext
    ) -> tuple[Update, Memory]:
        """Do as the inner rule does, and note what it did."""
        update, memory = self.inner.finish(start, end, memory, context)
        if context.round % self.every == 0:
            self.notes.append(self._note(start, end, update, context.steps))
        return update, memory

    def _note(self, start: ModelState, end: ModelState, update: Update, steps: int) -> dict[str, float]:
        delta, m, v = (
            end.streams - start.streams,
            end.streams[FIRST_MOMENT],
            np.maximum(end.streams[SECOND_MOMENT], 0),
        )
        settings = {
            "lr": self.adam.lr,
            "beta1": self.adam.beta1,
            "beta2": self.adam.beta2,
            "eps": self.adam.eps,
            "local_steps": steps,
        }
        in_m, in_v = coordinate_sensitivities(v, m, **settings)
        parts = np.stack([delta[WEIGHTS], in_m * delta[FIRST_MOMENT], in_v * delta[SECOND_MOMENT]])
        scores = bound_scores(*delta, v, m, **settings)
        kept = np.zeros(scores.size, bool)
        kept[update.blocks[0].indices] = True
        k = num_kept(DENSITY, scores.size)
        best, by_weights = top_k(scores, k), top_k(np.abs(delta[WEIGHTS]), k)
        energy = np.square(scores.astype(np.float64))
        shares = np.square(parts.astype(np.float64)).sum(axis=1) / energy.sum()
        lengths = np.linalg.norm(delta.astype(np.float64), axis=1)
        return {
            "share_w": shares[0], "share_m": shares[1], "share_v": shares[2],
            "length_w": lengths[0], "length_m": lengths[1], "length_v": lengths[2],
            "dropped": float(np.sqrt(energy[~kept].sum() / np.delete(energy, best).sum())),
            "dropped_by_w": float(np.sqrt(np.delete(energy, by_weights).sum() / np.delete(energy, best).sum())),
            "common_with_w": float(kept[by_weights].mean()),
        }  # fmt: skip


def train(key: Key) -> dict[str, Any]:
    """Make one run; its accuracy is the mean over the last quarter of the evaluations."""
    name, steps, seed, rule = key
    dataset = load_dataset(name)
    federation = make_federation(dataset, "dirichlet:0.1", CLIENTS, seed=seed, min_samples=BATCH)
    rounds = ROUNDS[steps][name]
    algorithm = make_algorithm("fedadam-ssm", mask=rule, density=DENSITY)
    probe = Probe(algorithm.client, algorithm.local, max(1, rounds // PROBES))
    model = partial(build_model, TASKS[name], dataset, seed=seed)
    run = simulate(
        replace(algorithm, client=probe), federation, model, rounds=rounds, seed=seed, local_steps=steps, batch_size=BATCH,
        eval_every=max(1, rounds // EVALUATIONS), workers=0, device="cpu", precision="float32",
    )  # fmt: skip
    seen = [record for record in run if record.test_accuracy is not None]
    last = seen[-max(1, len(seen) // 4) :]
    notes = {name: float(np.mean([note[name] for note in probe.notes])) for name in probe.notes[0]}
    return {
        "dataset": name, "model": TASKS[name], "local_steps": steps, "seed": seed, "rule": rule, "rounds": rounds,
        "accuracy": round(float(np.mean([record.test_accuracy for record in last])), 5),
        "loss": round(float(np.mean([record.test_loss for record in last])), 5),
        "curve": [[record.round, round(record.test_accuracy, 4)] for record in seen],
        **{name: float(f"{value:.4g}") for name, value in notes.items()},
    }  # fmt: skip


def read() -> dict[Key, dict[str, Any]]:
    lines = OUTPUT.read_text().splitlines() if OUTPUT.exists() else []
    runs = [json.loads(line) for line in lines]
    return {(run["dataset"], run["local_steps"], run["seed"], run["rule"]): run for run in runs}


def values(runs: dict[Key, dict[str, Any]], name: str, steps: int, rule: str, what: str) -> np.ndarray:
    """Return one number of every seed that has a run of this rule and one of `w`, in the order of the seeds."""
    mine = {key: run for key, run in runs.items() if key[:2] == (name, steps) and key[3] == rule}
    return np.array(
        [run[what] for key, run in sorted(mine.items()) if (name, steps, key[2], "w") in runs], np.float64
    )


def spread(x: np.ndarray) -> str:
    return f"{100 * x.mean():.1f} ± {100 * x.std(ddof=1):.1f}" if len(x) > 1 else f"{100 * x.mean():.1f}"


def show(runs: dict[Key, dict[str, Any]]) -> None:
    """Print the tables of `docs/theory.md`, section 5."""
    cases = [
        (name, steps) for steps in ROUNDS for name in TASKS if len(values(runs, name, steps, "w", "accuracy"))
    ]
    titles = " | ".join(f"{name}, L = {steps}" for name, steps in cases)
    print(f"\n| rule | {titles} |\n| --- |{' ---: |' * len(cases)}")
    for rule in RULES:
        cells = [values(runs, name, steps, rule, "accuracy") for name, steps in cases]
        print(f"| `{rule}` | {' | '.join(spread(x) if len(x) else '' for x in cells)} |")
    print(f"\nbound minus w, seed by seed\n| {titles} |")
    differences = [
        100 * (values(runs, *case, "bound", "accuracy") - values(runs, *case, "w", "accuracy"))
        for case in cases
        if len(values(runs, *case, "bound", "accuracy")) == len(values(runs, *case, "w", "accuracy"))
    ]
    print(f"| {' | '.join(' '.join(f'{x:+.1f}' for x in row) for row in differences)} |")
    print("\nobjective (25) that the rule's masks drop, over the least")
    for rule in RULES:
        cells = [values(runs, name, steps, rule, "dropped") for name, steps in cases]
        print(f"| `{rule}` | {' | '.join(f'{x.mean():.3f}' if len(x) else '' for x in cells)} |")
    adam = AdamConfig()
    print("\nwhat the bound says of the uploads of `w` (means over seeds, rounds and clients)")
    names = (
        "beta1^L", "sum beta1^l", "sum beta2^l", "share of dW", "share of dM", "share of dV", "lost by w", "common bound, w",
        "||dW||", "||dM||", "||dV||",
    )  # fmt: skip
    print(f"| case | {' | '.join(names)} |")
    for name, steps in cases:
        powers = np.arange(1, steps + 1)
        row = [
            adam.beta1**steps,
            np.sum(adam.beta1**powers),
            np.sum(adam.beta2**powers),
            *(
                values(runs, name, steps, "w", what).mean()
                for what in ("share_w", "share_m", "share_v", "dropped_by_w")
            ),
            values(runs, name, steps, "bound", "common_with_w").mean(),
            *(values(runs, name, steps, "w", f"length_{stream}").mean() for stream in "wmv"),
        ]
        print(f"| {name}, L = {steps} | {' | '.join(f'{x:.3g}' for x in row)} |")


def draw(runs: dict[Key, dict[str, Any]]) -> None:
    """Draw every run as a point, runs of one seed joined, and the rules' means."""
    mpl.rcParams["svg.hashsalt"] = "comask"
    figure, grid = plt.subplots(len(TASKS), len(ROUNDS), figsize=(9, 6.5), layout="constrained", sharey="row")
    for row, name in zip(grid, TASKS, strict=True):
        for axis, steps in zip(row, ROUNDS, strict=True):
            seeds = sorted({key[2] for key in runs if key[:2] == (name, steps)})
            for seed, colour in zip(seeds, ("#0072B2", "#D55E00", "#009E73"), strict=False):
                points = [
                    (place, 100 * runs[name, steps, seed, rule]["accuracy"])
                    for place, rule in enumerate(RULES)
                    if (name, steps, seed, rule) in runs
                ]
                axis.plot(
                    *np.transpose(points), "o-", color=colour, lw=0.8, ms=5, alpha=0.8, label=f"seed {seed}"
                )
            for place, rule in enumerate(RULES):
                mine = values(runs, name, steps, rule, "accuracy")
                if len(mine):
                    axis.hlines(100 * mine.mean(), place - 0.3, place + 0.3, color="#999999", lw=3, zorder=1)
            axis.set(xticks=range(len(RULES)), xticklabels=RULES, xlim=(-0.5, len(RULES) - 0.5))
            axis.set_title(f"{name}, {TASKS[name]}, L = {steps}", fontsize=10)
            axis.grid(axis="y", color="#E6E6E6", lw=0.7)
            axis.spines[["top", "right"]].set_visible(False)
        row[0].set_ylabel("test accuracy (%)")
    grid[0, 0].plot([], [], color="#999999", lw=3, label="mean")
    grid[0, 0].legend(fontsize=8, frameon=False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--report", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.report:
        OUTPUT.parent.mkdir(exist_ok=True)
        done = read()
        for seed, name, steps, rule in itertools.product(arguments.seeds, arguments.tasks, ROUNDS, RULES):
            if (name, steps, seed, rule) in done:
                continue
            run = train((name, steps, seed, rule))
            with OUTPUT.open("a") as file:
                file.write(json.dumps(run) + "\n")
            print(f"{name}, L = {steps}, seed {seed}, {rule}: {run['accuracy']:.4f}", flush=True)
    runs = read()
    show(runs)
    draw(runs)


if __name__ == "__main__":
    main()
