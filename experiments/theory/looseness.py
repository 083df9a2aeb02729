"""How far the bounds are from what they bound, and where the distance comes from.

    python experiments/theory/looseness.py

Random quadratics and logistic regressions (8 weights, 3 devices), 300 instances a setting. From left to right one more constant is measured instead
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
    residual_bound,
    sparsification_bound,
    weighted_convergence_bound,
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
    "small steps, logistic": (AdamSetting(1e-2, 0.9, 0.99, 10.0, 4), 200, None),
}


def median(values: list[float]) -> float:
    return float(np.median(values))


def divergence_row(
    adam: AdamSetting, rounds: int, spread: float | None, num_kept: int, *, feedback: bool
) -> dict[str, float]:
    """Return the median of bound / measured for the broadcast weights after the last round."""
    problem, start = instances(spread)
    run = fedsim.simulate(problem, adam, start, rounds=rounds, num_kept=num_kept, error_feedback=feedback)
    held_back = np.linalg.norm(run.virtual - run.weights, axis=2).max(axis=0)
    ratios: dict[str, list[float]] = {"crude": [], "floor of v": [], "dropped": [], "every step": []}
    for i in range(BATCH):
        crude, data = run.constants(problem, i, floor=False), run.constants(problem, i)
        measured, dropped = run.server_distance[-1, i, 0], run.dropped[:, i]
        kept = Sparsity(num_kept / DIM, feedback)

        def bound(constants, sparsification, residual):
            options = {"residual": residual} if feedback else {}
            return divergence_bound(
                constants, adam, rounds=rounds, sparsification=sparsification, **options
            ).server[-1, 0]

        path, _ = path_divergence_bound(
            run.path_of(i),
            adam,
            shares=problem.shares[i],
            sparsification=dropped,
            residual=held_back[i] if feedback else None,
        )
        bounds = {
            "crude": bound(
                crude, sparsification_bound(crude, adam, kept.density), residual_bound(crude, adam, kept)
            ),
            "floor of v": bound(
                data, sparsification_bound(data, adam, kept.density), residual_bound(data, adam, kept)
            ),
            "dropped": bound(data, dropped, held_back[i]),
            "every step": path[-1, 0],
        }
        for name, value in bounds.items():
            ratios[name].append(value / measured)
    return {name: median(values) for name, values in ratios.items()}


def gradient_row(
    adam: AdamSetting, rounds: int, spread: float | None, num_kept: int, *, feedback: bool
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
        "own norm (45)": [],
        "gap (38)": [],
    }
    values = problem.value(run.virtual[[0, -1]].transpose(1, 0, 2))
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
        path = run.measures_of(i, adam)
        own = weighted_convergence_bound(
            path, adam, smoothness=problem.smoothness[i], gap=max(0.0, values[i, 0] - values[i, 1])
        )
        ratios["own norm (45)"].append(own / np.sqrt(np.mean([one.gradient for one in path])))
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


def instances(spread: float | None):
    """Draw quadratics whose minimisers and curvatures are `spread` apart, or logistic regressions for None."""
    rng = np.random.default_rng(0)
    if spread is None:
        problem = fedsim.random_logistic(rng, batch=BATCH, devices=DEVICES, dim=DIM, skew=0.5, ridge=0.1)
    else:
        problem = fedsim.random_quadratics(
            rng, batch=BATCH, devices=DEVICES, dim=DIM, spread=spread, tilt=0.3 * spread
        )
    return problem, rng.normal(size=(BATCH, DIM))


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    names = list(next(iter(rows.values())))
    print(f"\n{title}\n| setting | {' | '.join(names)} |\n| --- |{' ---: |' * len(names)}")
    for setting, row in rows.items():
        print(f"| {setting} | {' | '.join(two_digits(row[name]) for name in names)} |")


def two_digits(x: float) -> str:
    return f"{float(f'{x:.2g}'):,g}" if x < 100 else f"{x:,.0f}"


def main() -> None:
    tables: dict[str, dict[str, dict[str, float]]] = {"divergence": {}, "gradient": {}}
    for name, (adam, rounds, spread) in SETTINGS.items():
        for num_kept in (2, DIM):
            label = f"{name}, {num_kept} of {DIM} kept"
            for feedback in (False, True) if num_kept < DIM else (False,):
                title = label + (", feedback" if feedback else "")
                for table, row in (("divergence", divergence_row), ("gradient", gradient_row)):
                    tables[table][title] = row(adam, rounds, spread, num_kept, feedback=feedback)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "looseness.json").write_text(json.dumps(tables, indent=1) + "\n")
    for title, rows in tables.items():
        show(title, rows)


if __name__ == "__main__":
    main()
