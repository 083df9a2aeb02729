"""What a mask rule does to the momentum that is broadcast, for short and long rounds: why `mask_rules.py` finds what it finds.

    python experiments/theory/mask_momentum.py

The perceptron on fashion-mnist-mini, ten clients with Dirichlet(0.1) shares, batches of 32, density 0.02, one seed; means over the
second half of the rounds. Writes `results/mask_momentum.json` and prints the table of `docs/theory.md`, section 5. About a
minute.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from comask.algorithms import make_algorithm
from comask.algorithms.base import ClientContext, ClientRule, Memory
from comask.data.load import load_dataset
from comask.data.partition import make_federation
from comask.models.registry import build_model
from comask.simulation import simulate
from comask.state import FIRST_MOMENT, SECOND_MOMENT, ModelState
from comask.wire.update import Update

OUTPUT = Path(__file__).parent / "results" / "mask_momentum.json"
ROUNDS = {3: 100, 30: 20}
RULES = ("w", "bound", "fair", "v", "m")
SEED, DENSITY, BATCH = 0, 0.02, 32


@dataclass(frozen=True)
class Probe:
    """A client rule that notes the norm of the first moment that arrives, and the median of |m| / sqrt(v + eps) where it keeps."""

    inner: ClientRule
    eps: float
    notes: list[tuple[float, float]] = field(default_factory=list, compare=False, repr=False)

    def begin(self, broadcast: Update, memory: Memory) -> ModelState:
        """Do as the inner rule does."""
        return self.inner.begin(broadcast, memory)

    def finish(
        self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext
    ) -> tuple[Update, Memory]:
        """Do as the inner rule does, and note."""
        update, memory = self.inner.finish(start, end, memory, context)
        kept = update.blocks[0].indices
        m, v = end.streams[FIRST_MOMENT, kept], end.streams[SECOND_MOMENT, kept]
        ratio = float(np.median(np.abs(m) / np.sqrt(v + self.eps)))
        self.notes.append((float(np.linalg.norm(start.streams[FIRST_MOMENT])), ratio))
        return update, memory


def measure(rule: str, steps: int) -> dict[str, float]:
    """Return the means over the second half of one run, and its last accuracy."""
    dataset = load_dataset("fashion-mnist-mini")
    federation = make_federation(dataset, "dirichlet:0.1", 10, seed=SEED, min_samples=BATCH)
    algorithm = make_algorithm("fedadam-ssm", mask=rule, density=DENSITY)
    probe = Probe(algorithm.client, algorithm.local.eps)
    run = simulate(
        replace(algorithm, client=probe), federation, partial(build_model, "mlp", dataset, seed=SEED),
        rounds=ROUNDS[steps], seed=SEED, local_steps=steps, batch_size=BATCH, eval_every=0, workers=0, device="cpu",
        precision="float32",
    )  # fmt: skip
    for _ in run:
        pass
    momentum, ratio = np.mean(probe.notes[len(probe.notes) // 2 :], axis=0)
    return {
        "broadcast momentum": float(f"{momentum:.3g}"),
        "|m| / sqrt(v + eps), kept": float(f"{ratio:.3g}"),
    }


def main() -> None:
    torch.set_num_threads(1)
    results = {f"L = {steps}": {rule: measure(rule, steps) for rule in RULES} for steps in ROUNDS}
    OUTPUT.write_text(json.dumps(results, indent=1) + "\n")
    for case, rules in results.items():
        for name in next(iter(rules.values())):
            print(f"| {case}, {name} | {' | '.join(f'{rules[rule][name]:.2g}' for rule in RULES)} |")


if __name__ == "__main__":
    main()
