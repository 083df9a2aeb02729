"""How fast FedAdam-SSM converges, and to where: Theorems 5 to 8 of `docs/theory.md`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError
from comask.theory.constants import (
    AdamSetting,
    ProblemConstants,
    preconditioner_range,
    require_count,
    require_non_negative,
    require_positive,
)
from comask.theory.momentum import (
    MomentumError,
    Sparsity,
    momentum_error,
    preconditioner_disagreement,
    residual_bound,
    round_length,
)

Vector = NDArray[np.float64]


def convergence_bound_nonconvex(
    problem: ProblemConstants,
    adam: AdamSetting,
    sparsity: Sparsity,
    *,
    rounds: int,
    gap: float,
    exact_gradients: bool = False,
) -> float:
    """Bound the root mean square over rounds of `||grad F(W)||` at the broadcast models of rounds 0 to R - 1.

    Theorem 5 (33) without error feedback, Theorem 6 (35) with it or at density 1.

    Args:
        problem: The constants.
        adam: The optimiser's settings.
        sparsity: What is kept.
        rounds: Rounds, `R`.
        gap: `F(W_0) - inf F`.
        exact_gradients: Devices use exact gradients of functions that are each `smoothness`-smooth and whose weighted
            mean is F. Heterogeneity then counts only as far as the devices' second moments disagree. Used by Theorem 6.
    """
    require_count("rounds", rounds)
    require_non_negative("gap", gap)
    low, high = preconditioner_range(problem, adam)
    error = momentum_error(problem, adam, sparsity)
    progress = gap / (adam.lr * adam.local_steps * rounds) + _curvature_cost(problem, adam, sparsity)
    if _is_dense_or_fed_back(sparsity):
        wrong = _weighted_error(problem, adam, error, exact_gradients=exact_gradients)
        virtual = _largest_root(wrong, progress) / math.sqrt(low)
        return virtual + problem.smoothness * residual_bound(problem, adam, sparsity)
    root = _largest_root(math.sqrt(high) * error.kept, progress)
    return math.sqrt(high / low) * (root / math.sqrt(sparsity.energy * low) + error.total)


def convergence_bound_convex(
    problem: ProblemConstants,
    adam: AdamSetting,
    sparsity: Sparsity,
    *,
    rounds: int,
    gap: float,
    strong_convexity: float = 0.0,
    radius: float = math.inf,
    exact_gradients: bool = False,
) -> Vector:
    """Bound the optimality gap `F(W) - inf F` of the broadcast model after each round.

    Theorem 7 (38) and (39): with strong convexity (or only the Polyak-Lojasiewicz inequality) the gap shrinks
    geometrically to a floor, with convexity alone as 1 / R. The free parameter of Young's inequality is the best of 64;
    where both `strong_convexity` and `radius` are known, each round takes the smaller of their two bounds.

    Args:
        problem: The constants; `smoothness` must hold on the whole space if there is error feedback.
        adam: The optimiser's settings.
        sparsity: What is kept.
        rounds: Rounds, `R`.
        gap: `F(W_0) - inf F`.
        strong_convexity: `mu` with `||grad F||^2 >= 2 mu (F - inf F)`; 0 if none is known.
        radius: Largest distance of a broadcast model (with error feedback: of the virtual model) from a minimiser of the
            convex F; infinite if none is known.
        exact_gradients: As in `convergence_bound_nonconvex`.

    Returns:
        Shape `(rounds + 1,)`, from `gap` itself (round 0).

    Raises:
        ConfigError: If neither `strong_convexity` nor `radius` is given, or a number is out of range.
    """
    require_count("rounds", rounds)
    require_non_negative("gap", gap)
    require_non_negative("strong_convexity", strong_convexity)
    if strong_convexity == 0:
        if math.isinf(radius):
            raise ConfigError(
                "Give strong_convexity > 0 or a finite radius: without either no gap can be bounded."
            )
        require_positive("radius", radius)
    split = np.geomspace(1e-4, 0.9, 64)  # Young's free parameter s
    gain, loss = _round_gain_and_loss(problem, adam, sparsity, split, exact_gradients=exact_gradients)
    length = adam.lr * adam.local_steps
    loss = length * (loss + _curvature_cost(problem, adam, sparsity))
    linear, quadratic = length * gain * 2 * strong_convexity, length * gain / radius**2

    bound = np.full((rounds + 1, split.size), float(gap))
    for r in range(rounds):
        bound[r + 1] = loss + np.minimum(
            _shrink_linear(bound[r], linear), _shrink_quadratic(bound[r], quadratic)
        )
    best: Vector = bound.min(axis=1)
    z = residual_bound(problem, adam, sparsity)
    best[1:] = np.square(np.sqrt(best[1:]) + math.sqrt(problem.smoothness / 2) * z)
    return best


def heterogeneity_floor(
    problem: ProblemConstants, adam: AdamSetting, sparsity: Sparsity
) -> tuple[float, float]:
    """Return what heterogeneity costs at least (for some problem) and at most (for all): Theorem 8, (41) and (40).

    Both are values of `||grad F||` that remain after any number of rounds as the learning rate goes to 0 and local steps
    outlast momentum. The gap between them is only in the conditioning of `1 / sqrt(v + eps)`; both grow as
    `1 / sqrt(density)` without error feedback. With it (or dense) the least cost is 0. The example behind the least cost
    has second moments near 0, so a positive `second_moment_floor` may exclude it.
    """
    low, high = preconditioner_range(problem, adam)
    delta = problem.heterogeneity
    if _is_dense_or_fed_back(sparsity):
        return 0.0, math.sqrt(high / low) * delta
    kept = math.sqrt(sparsity.density * problem.dim)
    slope = min(delta / kept, problem.grad_bound)  # of the example, on its k contested positions
    least = math.sqrt((1 / sparsity.density - 1) * adam.eps / (slope**2 + adam.eps)) * slope * kept
    return least, (high / (low * math.sqrt(sparsity.energy)) + math.sqrt(high / low)) * delta


def _is_dense_or_fed_back(sparsity: Sparsity) -> bool:
    return sparsity.error_feedback or sparsity.density == 1


def _curvature_cost(problem: ProblemConstants, adam: AdamSetting, sparsity: Sparsity) -> float:
    """Second-order term of the descent lemma per unit of `lr L`: equation (32)."""
    moved = 1.0 if sparsity.error_feedback else sparsity.density
    length = round_length(problem, adam)
    return problem.smoothness * length**2 * moved / (2 * adam.lr * adam.local_steps)


def _weighted_error(
    problem: ProblemConstants, adam: AdamSetting, error: MomentumError, *, exact_gradients: bool
) -> float:
    """Bound the error in the norm that the preconditioner weighs: psi of equation (34)."""
    low, high = preconditioner_range(problem, adam)
    from_devices = math.sqrt(high) * error.heterogeneity
    if exact_gradients:
        disagreement = preconditioner_disagreement(problem, adam)
        from_devices = min(from_devices, disagreement * problem.heterogeneity / math.sqrt(low))
    return math.sqrt(high) * (error.stale + error.drift + error.residual) + from_devices


def _round_gain_and_loss(
    problem: ProblemConstants,
    adam: AdamSetting,
    sparsity: Sparsity,
    split: Vector,
    *,
    exact_gradients: bool,
) -> tuple[Vector, Vector]:
    """Return alpha and beta of `progress >= alpha ||grad F||^2 - beta`: equation (37), one for each `split`."""
    low, high = preconditioner_range(problem, adam)
    error = momentum_error(problem, adam, sparsity)
    if _is_dense_or_fed_back(sparsity):
        wrong = _weighted_error(problem, adam, error, exact_gradients=exact_gradients)
        return (1 - split) * low, wrong**2 / (4 * split)
    share = sparsity.energy * low
    gain = (1 - split) ** 2 * share * low / high
    return gain, high * error.kept**2 / (4 * split) + (1 - split) ** 2 / split * share * error.total**2


def _largest_root(error: float, progress: float) -> float:
    """Return the largest a with `a^2 - a error <= progress`."""
    return (error + math.sqrt(error**2 + 4 * progress)) / 2


def _shrink_linear(gap: Vector, rate: Vector) -> Vector:
    """Return the supremum of `t - rate t` over t in [0, gap]."""
    return np.asarray(gap * np.maximum(0, 1 - rate), np.float64)


def _shrink_quadratic(gap: Vector, rate: Vector) -> Vector:
    """Return the supremum of `t - rate t^2` over t in [0, gap]."""
    with np.errstate(divide="ignore"):
        peak = np.minimum(gap, 1 / (2 * rate))
    return np.asarray(peak - rate * peak**2, np.float64)
