"""Test accuracy by mask rule, for short and long rounds: does the mask of Theorem 4 train better than top-k of |dW|?

    python experiments/theory/mask_rules.py [--seeds 0 1] [--rules w bound signed]

The CNN on fashion-mnist-mini, ten devices with Dirichlet(0.1) shares, batches of 32, density 0.02, no error feedback. The
accuracy is the mean over the last quarter of the rounds. Writes `results/mask_rules.json`. About ten minutes on one free core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from comask.data.load import load_dataset
from comask.data.partition import make_federation
from comask.flat import FlatModel
from comask.masks import mask_rule, num_kept, top_k
from comask.models.registry import build_model
from comask.seeding import derive_rng
from comask.theory import bound_scores

OUTPUT = Path(__file__).parent / "results" / "mask_rules.json"
CLIENTS, BATCH, DENSITY = 10, 32, 0.02
ADAM = {"lr": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6}
ROUNDS = {3: 120, 30: 24}  # by local steps


def select(rule: str, delta: np.ndarray, end: np.ndarray, local_steps: int) -> np.ndarray:
    """Return the positions that a rule keeps of the changes `(3, d)`, from the state at the end of the round."""
    kept = num_kept(DENSITY, delta.shape[1])
    if rule not in {"bound", "signed"}:
        return mask_rule(rule)(delta, kept).astype(np.int64)
    return top_k(
        bound_scores(*delta, end[2], end[1], **ADAM, local_steps=local_steps, signed=rule == "signed"), kept
    )


def train(rule: str, local_steps: int, seed: int) -> float:
    """Return the mean test accuracy over the last quarter of the rounds."""
    dataset = load_dataset("fashion-mnist-mini")
    federation = make_federation(dataset, "dirichlet:0.1", CLIENTS, seed=seed, min_samples=BATCH)
    flat = FlatModel(build_model("cnn", dataset, seed=seed))
    mean, std = (torch.tensor(x).view(1, -1, 1, 1) for x in (dataset.mean, dataset.std))
    images, tests = (
        (torch.from_numpy(x) / 255 - mean) / std for x in (dataset.train_inputs, dataset.test_inputs)
    )
    labels, answers = (
        torch.from_numpy(x.astype(np.int64)) for x in (dataset.train_targets, dataset.test_targets)
    )
    shares = np.array([len(client) for client in federation.clients]) / sum(map(len, federation.clients))
    state = np.stack([flat.params_array(), np.zeros(flat.dim), np.zeros(flat.dim)]).astype(np.float32)
    accuracies = []
    for r in range(ROUNDS[local_steps]):
        total = np.zeros_like(state)
        for n, client in enumerate(federation.clients):
            w, m, v = (torch.from_numpy(row.copy()) for row in state)
            rng = derive_rng(seed, "batches", r, n)
            for _ in range(local_steps):
                batch = torch.from_numpy(rng.choice(client, BATCH, replace=False))
                flat.vector.data.copy_(w)
                flat.zero_grad()
                functional.cross_entropy(flat.module(images[batch]), labels[batch]).backward()
                gradient = flat.vector.grad
                m.lerp_(gradient, 1 - ADAM["beta1"])
                v.mul_(ADAM["beta2"]).addcmul_(gradient, gradient, value=1 - ADAM["beta2"])
                w.addcdiv_(m, (v + ADAM["eps"]).sqrt(), value=-ADAM["lr"])
            end = np.stack([w.numpy(), m.numpy(), v.numpy()])
            delta = end - state
            kept = select(rule, delta, end, local_steps)
            total[:, kept] += np.float32(shares[n]) * delta[:, kept]
        state += total
        if r >= ROUNDS[local_steps] * 3 // 4:
            flat.vector.data.copy_(torch.from_numpy(state[0]))
            with torch.no_grad():
                accuracies.append((flat.module(tests).argmax(1) == answers).double().mean().item())
    return float(np.mean(accuracies))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rules", nargs="+", default=["w", "bound", "signed"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, dict[str, list[float]]] = {}
    for steps in ROUNDS:
        for seed in arguments.seeds:
            for rule in arguments.rules:
                accuracy = train(rule, steps, seed)
                results.setdefault(f"L = {steps}", {}).setdefault(rule, []).append(round(accuracy, 4))
                print(f"L = {steps}, seed {seed}, {rule}: {accuracy:.4f}", flush=True)
                OUTPUT.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
