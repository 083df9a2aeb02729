"""What the bounds start from: the optimiser's settings, the problem's constants, and what a shared mask preserves.

Symbols and equation numbers are those of `docs/theory.md`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from comask.errors import ConfigError


def require_positive(name: str, value: float) -> None:
    """Raise `ConfigError` unless `value` is a positive finite number."""
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} must be a positive finite number, got {value}.")


def require_non_negative(name: str, value: float) -> None:
    """Raise `ConfigError` unless `value` is a finite number that is not negative."""
    if not (math.isfinite(value) and value >= 0):
        raise ConfigError(f"{name} must be a finite number that is not negative, got {value}.")


def require_count(name: str, value: int) -> None:
    """Raise `ConfigError` unless `value` is at least 1."""
    if value < 1:
        raise ConfigError(f"{name} must be at least 1, got {value}.")


def require_density(name: str, value: float) -> None:
    """Raise `ConfigError` unless `value` is in (0, 1]."""
    if not 0 < value <= 1:
        raise ConfigError(f"{name} must be in (0, 1], got {value}.")


@dataclass(frozen=True, slots=True)
class AdamSetting:
    """Local Adam without bias correction, epsilon inside the root: equation (1).

    Attributes:
        lr: Learning rate, positive.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        eps: Added to the second moment inside the root, positive.
        local_steps: Local steps a round, `L`.
    """

    lr: float
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    local_steps: int = 1

    def __post_init__(self) -> None:
        require_positive("lr", self.lr)
        require_positive("eps", self.eps)
        require_count("local_steps", self.local_steps)
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0 <= beta < 1:
                raise ConfigError(f"{name} must be in [0, 1), got {beta}.")


@dataclass(frozen=True, slots=True)
class ProblemConstants:
    """The constants of assumptions A1 to A3: crude ones from the problem, or sharper ones measured along a run.

    Attributes:
        dim: Number of weights, `d`.
        smoothness: Lipschitz constant of the global gradient in the Euclidean norm, `rho`.
        grad_bound: Bound on every coordinate of every gradient met, `G`.
        heterogeneity: Root of the weighted mean of `delta_n ** 2`, where `delta_n` bounds the distance between the
            gradient that device n uses and the global gradient at the same weights.
        second_moment_floor: Smallest entry of the second moment met after any step, `nu`; 0 is the crude constant.
    """

    dim: int
    smoothness: float
    grad_bound: float
    heterogeneity: float = 0.0
    second_moment_floor: float = 0.0

    def __post_init__(self) -> None:
        require_count("dim", self.dim)
        require_positive("grad_bound", self.grad_bound)
        require_non_negative("smoothness", self.smoothness)
        require_non_negative("heterogeneity", self.heterogeneity)
        if not 0 <= self.second_moment_floor <= self.grad_bound**2:
            raise ConfigError(
                f"second_moment_floor must be in [0, grad_bound ** 2 = {self.grad_bound**2}], got {self.second_moment_floor}."
            )


def moment_ratio(beta1: float, beta2: float) -> float:
    """Return `C`, the largest `m ** 2 / v` that local Adam and a shared mask allow: Lemma 1, equation (5).

    Infinite when `beta1 ** 2 >= beta2`: then a burst of gradients outlives its own second moment.
    """
    if beta1**2 >= beta2:
        return math.inf
    return (1 - beta1) ** 2 / ((1 - beta2) * (1 - beta1**2 / beta2))


def step_bound(problem: ProblemConstants, adam: AdamSetting) -> float:
    """Return `U`: one local step moves no weight by more than `lr * U`. Lemma 1, equation (6).

    At most `sqrt(C)` whatever the gradients and epsilon are, because the shared mask keeps `m ** 2 <= C * v`. With
    separate masks for M and V only `grad_bound / sqrt(eps)` is left.
    """
    least = max(problem.grad_bound**2 / moment_ratio(adam.beta1, adam.beta2), problem.second_moment_floor)
    return problem.grad_bound / math.sqrt(least + adam.eps)


def preconditioner_range(problem: ProblemConstants, adam: AdamSetting) -> tuple[float, float]:
    """Return the least and the greatest value of `1 / sqrt(v + eps)`: equation (7)."""
    return (
        1 / math.sqrt(problem.grad_bound**2 + adam.eps),
        1 / math.sqrt(problem.second_moment_floor + adam.eps),
    )


def step_sensitivity(problem: ProblemConstants, adam: AdamSetting) -> tuple[float, float]:
    """Return the Lipschitz constants of `m / sqrt(v + eps)` in m and in v: Lemma 2, equation (8).

    The second is the smaller of two: from `|m| <= G`, and from `m ** 2 <= C * v`, whose maximum lies at `v = eps / 2`.
    With the usual settings (eps = 1e-6, G about 1) the latter is hundreds of times smaller.
    """
    floor, eps = problem.second_moment_floor, adam.eps
    in_m = 1 / math.sqrt(floor + eps)
    by_magnitude = problem.grad_bound / (2 * (floor + eps) ** 1.5)
    worst = max(floor, eps / 2)
    by_ratio = math.sqrt(moment_ratio(adam.beta1, adam.beta2) * worst) / (2 * (worst + eps) ** 1.5)
    return in_m, min(by_magnitude, by_ratio)
