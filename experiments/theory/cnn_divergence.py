"""How far FedAdam-SSM drifts from centralised Adam on a CNN, beside what the bounds allow.

    python experiments/theory/cnn_divergence.py [--rounds 6] [--local-steps 10]

Ten classes of Fashion-MNIST, five devices with Dirichlet(0.1) shares of 1,000 images, exact (full-batch) gradients, so that
every constant of `docs/theory.md` can be measured at every step. Writes `results/cnn_divergence.json` and the figure
`docs/figures/theory-cnn-divergence.svg`. About eight minutes on one free core.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib import pyplot as plt

from comask.data.load import load_dataset
from comask.data.partition import make_federation
from comask.flat import FlatModel
from comask.models.registry import build_model
from comask.theory import (
    AdamSetting,
    PathConstants,
    ProblemConstants,
    Sparsity,
    bound_scores,
    captured_energy,
    convergence_bound_nonconvex,
    divergence_bound,
    mask_weights,
    measure_round,
    measure_step,
    momentum_error,
    path_divergence_bound,
    sparsification_bound,
    weighted_convergence_bound,
)

HERE = Path(__file__).parent
OUTPUT = HERE / "results" / "cnn_divergence.json"
FIGURE = HERE.parents[1] / "docs" / "figures" / "theory-cnn-divergence.svg"
CLIENTS, IMAGES, DENSITY, SEED = 5, 1000, 0.05, 0


class Problem:
    """The mean loss of each device and of all, with exact gradients, as functions of one flat vector."""

    def __init__(self) -> None:
        dataset = load_dataset("fashion-mnist-mini")
        share = len(dataset.train_targets) // IMAGES
        small = replace(
            dataset, train_inputs=dataset.train_inputs[::share], train_targets=dataset.train_targets[::share]
        )
        federation = make_federation(small, "dirichlet:0.1", CLIENTS, seed=SEED, min_samples=20)
        self.flat = FlatModel(build_model("cnn", small, seed=SEED))
        mean, std = np.array(small.mean)[:, None, None], np.array(small.std)[:, None, None]
        self.parts = [
            (
                torch.from_numpy(((small.train_inputs[part] / 255 - mean) / std).astype(np.float32)),
                torch.from_numpy(small.train_targets[part].astype(np.int64)),
            )
            for part in federation.clients
        ]
        self.shares = np.array([len(targets) for _, targets in self.parts]) / sum(
            len(t) for _, t in self.parts
        )
        self.start = self.flat.params_array().astype(np.float64)

    def device(self, client: int, params: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the loss of one device and its gradient."""
        self.flat.load(params.astype(np.float32), np.empty(0, np.float32))
        self.flat.zero_grad()
        inputs, targets = self.parts[client]
        loss = torch.nn.functional.cross_entropy(self.flat.module(inputs), targets)
        loss.backward()
        return loss.item(), self.flat.vector.grad.numpy().astype(np.float64)

    def all(self, params: np.ndarray) -> tuple[float, np.ndarray, list[np.ndarray]]:
        """Return the mean loss, its gradient, and the devices' gradients at the same weights."""
        each = [self.device(client, params) for client in range(CLIENTS)]
        losses, gradients = zip(*each, strict=True)
        return float(self.shares @ losses), np.tensordot(self.shares, gradients, 1), list(gradients)


def adam_step(state: list[np.ndarray], gradient: np.ndarray, adam: AdamSetting) -> list[np.ndarray]:
    """Equation (1)."""
    w, m, v = state
    m = adam.beta1 * m + (1 - adam.beta1) * gradient
    v = adam.beta2 * v + (1 - adam.beta2) * gradient**2
    return [w - adam.lr * m / np.sqrt(v + adam.eps), m, v]


def top_k(scores: np.ndarray, num_kept: int) -> np.ndarray:
    kept = np.zeros(scores.size, bool)
    kept[np.argpartition(scores, scores.size - num_kept)[-num_kept:]] = True
    return kept


def distance(state: list[np.ndarray], reference: list[np.ndarray]) -> list[float]:
    return [float(np.linalg.norm(x - y)) for x, y in zip(state, reference, strict=True)]


def run(problem: Problem, adam: AdamSetting, rounds: int) -> dict:
    """Train beside centralised Adam and measure everything that the bounds need."""
    dim, num_kept = problem.start.size, round(DENSITY * problem.start.size)
    state = [problem.start, np.zeros(dim), np.zeros(dim)]
    reference = state
    path, dropped, server, device, losses, masks, gradients = [], [], [[0.0] * 3], [], [], [], []
    grad_bound, floor, delta, captured, stale = 0.0, np.inf, np.zeros(CLIENTS), 1.0, []
    measures, after, share = [], [], []
    for r in range(rounds):
        locals_, row, apart = [state] * CLIENTS, [], [[distance(state, reference)] * CLIENTS]
        loss, central, _ = problem.all(state[0])
        losses.append(loss)
        gradients.append(float(np.linalg.norm(central)))
        stale.append(float(np.linalg.norm(state[1] - central)))
        scale = np.zeros((CLIENTS, dim))
        for _ in range(adam.local_steps):
            ahead = problem.all(reference[0])[1]
            following = adam_step(reference, ahead, adam)
            constants = []
            for n in range(CLIENTS):
                _, there, each = problem.all(locals_[n][0])
                before = locals_[n][0], reference[0]
                locals_[n] = adam_step(locals_[n], each[n], adam)
                one = measure_step(
                    tuple(locals_[n]), tuple(following), (each[n], there, ahead), before, adam.eps
                )
                constants.append(one)
                scale[n] += 1 / np.sqrt(locals_[n][2] + adam.eps) / adam.local_steps
                delta[n] = max(delta[n], float(one.heterogeneity))
                grad_bound = max(grad_bound, *(float(np.abs(g).max()) for g in (each[n], there, ahead)))
                floor = min(floor, float(locals_[n][2].min()))
            reference = following
            row.append(constants)
            apart.append([distance(local, reference) for local in locals_])
        path.append(row)
        device.append(apart)
        changes = [np.array([x - old for x, old in zip(local, state, strict=True)]) for local in locals_]
        kept = [top_k(np.abs(change[0]), num_kept) for change in changes]
        captured = min(captured, *(captured_energy(change[0], num_kept) for change in changes))
        by_device = np.array([change[0] for change in changes])
        measures.append(
            measure_round(by_device, scale, kept, gradient=central, shares=problem.shares, adam=adam)
        )
        share.append(measures[-1].energy_kept / measures[-1].energy)
        lost = sum(p * change * ~s for p, change, s in zip(problem.shares, changes, kept, strict=True))
        dropped.append(np.linalg.norm(lost, axis=1).tolist())
        masks.append(compare_masks(changes[0], locals_[0], adam, num_kept))
        sent = sum(p * change * s for p, change, s in zip(problem.shares, changes, kept, strict=True))
        state = [old + x for old, x in zip(state, sent, strict=True)]
        server.append(distance(state, reference))
        after.append(
            weighted_convergence_bound(
                measures,
                adam,
                smoothness=max(float(one.smoothness) for row in path for step in row for one in step),
                gap=max(0.0, losses[0] - problem.all(state[0])[0]),
            )
        )
        print(f"round {r + 1}: loss {loss:.3f}, distance of W {server[-1][0]:.3f}")
    constants = ProblemConstants(
        dim,
        float(PathConstants.stack(path).smoothness.max()),
        grad_bound,
        float(np.sqrt(problem.shares @ delta**2)),
        floor,
    )
    return {
        "path": PathConstants.stack(path), "dropped": np.array(dropped), "server": np.array(server),
        "device": np.array(device), "constants": constants, "masks": masks, "losses": losses,
        "weighted": [float(np.sqrt(np.mean([one.gradient for one in measures[: r + 1]]))) for r in range(rounds)],
        "weighted_bound": after, "energy_kept": share,
        "gradients": gradients, "captured": captured, "stale": float(np.sqrt(np.mean(np.square(stale)))),
    }  # fmt: skip


def compare_masks(
    changes: np.ndarray, end: list[np.ndarray], adam: AdamSetting, num_kept: int
) -> dict[str, float]:
    """Return, by mask rule, the first-order error of the next round's weights, over that of top-k |dW|."""
    settings = {
        "lr": adam.lr,
        "beta1": adam.beta1,
        "beta2": adam.beta2,
        "eps": adam.eps,
        "local_steps": adam.local_steps,
    }
    signed = bound_scores(*changes, end[2], end[1], signed=True, **settings).astype(np.float64)
    scores = {
        **dict(zip("wmv", np.abs(changes), strict=True)),
        "bound": bound_scores(*changes, end[2], end[1], **settings),
        "signed": signed,
    }
    errors = {rule: float(np.linalg.norm(signed[~top_k(score, num_kept)])) for rule, score in scores.items()}
    return {rule: error / errors["w"] for rule, error in errors.items()}


def summarise(problem: Problem, adam: AdamSetting, measured: dict) -> dict:
    """Evaluate every bound on what was measured."""
    constants, rounds = measured["constants"], len(measured["dropped"])
    crude = replace(constants, second_moment_floor=0.0)
    path_server, path_device = path_divergence_bound(
        measured["path"], adam, shares=problem.shares, sparsification=measured["dropped"]
    )
    sparsity = Sparsity(DENSITY, captured=measured["captured"], stale=measured["stale"])
    return {
        "setting": {"lr": adam.lr, "beta1": adam.beta1, "beta2": adam.beta2, "eps": adam.eps, "local_steps": adam.local_steps},
        "constants": {
            "dim": constants.dim, "smoothness": constants.smoothness, "grad_bound": constants.grad_bound,
            "heterogeneity": constants.heterogeneity, "second_moment_floor": constants.second_moment_floor,
            "captured": measured["captured"], "stale": measured["stale"],
        },
        "loss": measured["losses"],
        "mask_weights": list(mask_weights(crude, adam)),
        "mask_errors": measured["masks"],
        "server": measured["server"].tolist(),
        "path": path_server.tolist(),
        "device": measured["device"].max(axis=2).tolist(),
        "path_device": path_device.max(axis=2).tolist(),
        "data": divergence_bound(constants, adam, rounds=rounds, sparsification=measured["dropped"]).server.tolist(),
        "crude": divergence_bound(
            crude, adam, rounds=rounds, sparsification=sparsification_bound(crude, adam, DENSITY)
        ).server.tolist(),
        "gradient": float(np.sqrt(np.mean(np.square(measured["gradients"])))),
        "gradient_bound": convergence_bound_nonconvex(constants, adam, sparsity, rounds=rounds, gap=measured["losses"][0]),
        "weighted_gradient": measured["weighted"],
        "weighted_gradient_bound": measured["weighted_bound"],
        "weighted_energy_kept": measured["energy_kept"],
        "momentum_error": momentum_error(constants, adam, sparsity).total,
    }  # fmt: skip


def draw(results: dict[str, dict]) -> None:
    """Draw distances and preconditioned gradients, measured and bounded, against steps; a column for each epsilon."""
    mpl.rcParams["svg.hashsalt"] = "comask"
    figure, grid = plt.subplots(
        2, len(results), figsize=(10, 6.5), sharex=True, sharey="row", layout="constrained",
        squeeze=False, height_ratios=(3, 2),
    )  # fmt: skip
    for (upper, lower), (title, result) in zip(grid.T, results.items(), strict=True):
        steps = result["setting"]["local_steps"]
        ticks = steps * np.arange(len(result["server"]))
        for key, label, style in [
            (
                "data",
                "bound (17), one constant for all steps",
                "C1--",
            ),  # the crude constants' line is the same
            ("path", "bound (17'), every step's constants: broadcast", "C2s"),
            ("server", "measured: broadcast", "ko"),
        ]:
            upper.plot(ticks[1:], np.array(result[key])[1:, 0], style, label=label)
        for key, label, style in [
            ("path_device", "bound (17'), every step's constants: farthest device", "C2-"),
            ("device", "measured: farthest device", "k-"),
        ]:
            for r, row in enumerate(np.array(result[key])[:, :, 0]):
                upper.plot(ticks[r] + np.arange(steps + 1), row, style, lw=1, label=None if r else label)
        upper.set(title=title, yscale="log", ylim=(1e-2, None))
        lower.plot(ticks[1:], result["weighted_gradient_bound"], "C2s-", lw=1, label="bound (45)")
        lower.plot(ticks[1:], result["weighted_gradient"], "ko-", lw=1, label="measured")
        lower.set(xlabel="local steps", yscale="log")
    grid[0, 0].set_ylabel("distance of the weights\nto centralised Adam")
    grid[1, 0].set_ylabel("preconditioned gradient,\nroot mean square so far")
    for axis in grid[:, 0]:
        axis.legend(fontsize="small", frameon=False)
    FIGURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--local-steps", type=int, default=10)
    parser.add_argument("--draw", action="store_true", help="measure nothing, draw what there is")
    arguments = parser.parse_args()
    if arguments.draw:
        draw(json.loads(OUTPUT.read_text()))
        return
    torch.set_num_threads(1)
    problem, results = Problem(), {}
    for eps in (1e-6, 1e-3):
        adam = AdamSetting(1e-3, eps=eps, local_steps=arguments.local_steps)
        results[f"eps = {eps:g}"] = summarise(problem, adam, run(problem, adam, arguments.rounds))
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(results, indent=1) + "\n")
    draw(results)


if __name__ == "__main__":
    main()
