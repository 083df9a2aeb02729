"""How far the bounds are from what they bound, and where the distance comes from.

    python experiments/theory/looseness.py

Random quadratics (8 weights, 3 devices), 300 instances a setting. From left to right one more constant is measured instead
of bounded, so the drop from column to column is what that constant's worst case costs. Writes `results/looseness.json`
and prints the tables of `docs/theory.md`, section 12. About a minute.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from comask.theory import (
    AdamSetting,
    Sparsity,
    convergence_bound_convex,
    convergence_bound_nonconvex,
    divergence_bound,
    path_divergence_bound,
    preconditioner_range,
    sparsification_bound,
)

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "tests" / "theory"))
import fedsim  # noqa: E402 -- the simulator of the tests

BATCH, DEVICES, DIM = 300, 3, 8
SETTINGS = {
    "usual Adam": (AdamSetting(1e-3, 0.9, 0.999, 1e-6, 10), 10, 0.5),
    "larger epsilon": (AdamSetting(1e-3, 0.9, 0.999, 1e-2, 10), 30, 0.5),
    "small steps": (AdamSetting(1e-2, 0.9, 0.99, 10.0, 4), 200, 0.5),
    "small steps, like data": (AdamSetting(1e-2, 0.9, 0.99, 10.0, 4), 200, 0.02),
}


def median(values: list[float]) -> float:
    return float(np.median(values))


def divergence_row(adam: AdamSetting, rounds: int, spread: float, num_kept: int) -> dict[str, float]:
    """Return the median of bound / measured for the broadcast weights after the last round."""
    problem, start = instances(spread)
    run = fedsim.simulate(problem, adam, start, rounds=rounds, num_kept=num_kept)
    ratios: dict[str, list[float]] = {"crude": [], "floor of v": [], "dropped": [], "every step": []}
    for i in range(BATCH):
        crude, data = run.constants(problem, i, floor=False), run.constants(problem, i)
        measured, dropped = run.server_distance[-1, i, 0], run.dropped[:, i]
        bounds = {
            "crude": divergence_bound(
                crude, adam, rounds=rounds, sparsification=sparsification_bound(crude, adam, num_kept / DIM)
            ),
            "floor of v": divergence_bound(
                data, adam, rounds=rounds, sparsification=sparsification_bound(data, adam, num_kept / DIM)
            ),
            "dropped": divergence_bound(data, adam, rounds=rounds, sparsification=dropped),
        }
        for name, bound in bounds.items():
            ratios[name].append(bound.server[-1, 0] / measured)
        path, _ = path_divergence_bound(
            run.path_of(i), adam, shares=problem.shares[i], sparsification=dropped
        )
        ratios["every step"].append(path[-1, 0] / measured)
    return {name: median(values) for name, values in ratios.items()}


def gradient_row(
    adam: AdamSetting, rounds: int, spread: float, num_kept: int, *, feedback: bool
) -> dict[str, float]:
    """Return the median of bound / measured for the root mean square gradient, and for the last optimality gap."""
    problem, start = instances(spread)
    run = fedsim.simulate(problem, adam, start, rounds=rounds, num_kept=num_kept, error_feedback=feedback)
    points = run.weights.transpose(1, 0, 2)
    gradient = np.sqrt(np.mean(np.square(problem.grad(points[:, :-1])).sum(axis=2), axis=1))
    gaps = problem.value(points) - problem.minimum[:, None]
    ratios: dict[str, list[float]] = {
        "crude": [],
        "floor of v": [],
        "stale, captured": [],
        "momentum error": [],
        "gap (38)": [],
    }
    density = Sparsity(num_kept / DIM, feedback)
    for i in range(BATCH):
        crude, data = run.constants(problem, i, floor=False), run.constants(problem, i)
        stale = np.sqrt(np.mean(run.stale[:, i] ** 2))
        known = Sparsity(num_kept / DIM, feedback, min(1.0, run.captured[i]), stale)
        worst = Sparsity(num_kept / DIM, feedback, min(1.0, run.captured[i]), run.stale[:, i].max())
        more = {"rounds": rounds, "gap": gaps[i, 0]}
        ratios["crude"].append(convergence_bound_nonconvex(crude, adam, density, **more) / gradient[i])
        ratios["floor of v"].append(convergence_bound_nonconvex(data, adam, density, **more) / gradient[i])
        ratios["stale, captured"].append(convergence_bound_nonconvex(data, adam, known, **more) / gradient[i])
        ratios["momentum error"].append(with_measured_error(run, i, data, adam, known, **more) / gradient[i])
        strong = convergence_bound_convex(
            data, adam, worst, strong_convexity=problem.strong_convexity[i], **more
        )
        ratios["gap (38)"].append(strong[-1] / gaps[i, -1])
    return {name: median(values) for name, values in ratios.items()}


def with_measured_error(run, i, constants, adam, sparsity, *, rounds, gap) -> float:
    """Evaluate (33) or (35) with the left side of (30), as measured, in place of its bound; the residual likewise."""
    low, high = preconditioner_range(constants, adam)
    error, kept = np.sqrt(np.mean(np.square(run.momentum_error[:, i]), axis=0))
    moved = 1.0 if sparsity.error_feedback else sparsity.density
    length = adam.lr * adam.local_steps * run.largest_step[i]
    progress = gap / (
        adam.lr * adam.local_steps * rounds
    ) + constants.smoothness * length**2 * DIM * moved / (2 * adam.lr * adam.local_steps)
    if sparsity.error_feedback or sparsity.density == 1:
        wrong = np.sqrt(high) * error
        return (wrong + np.sqrt(wrong**2 + 4 * progress)) / (
            2 * np.sqrt(low)
        ) + constants.smoothness * run.residual[i]
    wrong = np.sqrt(high) * kept
    root = (wrong + np.sqrt(wrong**2 + 4 * progress)) / 2
    return np.sqrt(high / low) * (root / np.sqrt(sparsity.energy * low) + error)


def instances(spread: float):
    rng = np.random.default_rng(0)
    problem = fedsim.random_quadratics(
        rng, batch=BATCH, devices=DEVICES, dim=DIM, spread=spread, tilt=0.3 * spread
    )
    return problem, rng.normal(size=(BATCH, DIM))


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(rows.values())))
    print(f"\n{title}\n| setting | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}")
    for setting, row in rows.items():
        print(f"| {setting} | {' | '.join(f'{row[name]:.3g}' for name in names)} |")


def main() -> None:
    tables: dict[str, dict[str, dict[str, float]]] = {"divergence": {}, "gradient": {}}
    for name, (adam, rounds, spread) in SETTINGS.items():
        for num_kept in (2, DIM):
            label = f"{name}, {num_kept} of {DIM} kept"
            tables["divergence"][label] = divergence_row(adam, rounds, spread, num_kept)
            for feedback in (False, True) if num_kept < DIM else (False,):
                row = gradient_row(adam, rounds, spread, num_kept, feedback=feedback)
                tables["gradient"][label + (", feedback" if feedback else "")] = row
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "looseness.json").write_text(json.dumps(tables, indent=1) + "\n")
    for title, rows in tables.items():
        show(title, rows)


if __name__ == "__main__":
    main()
