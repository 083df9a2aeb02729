"""What separates the direction a device moves in from the gradient: Lemmas 5 and 6 of `docs/theory.md`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from comask.theory.compressors import residual_factor
from comask.theory.constants import (
    AdamSetting,
    ProblemConstants,
    preconditioner_range,
    require_density,
    require_non_negative,
    step_bound,
)


@dataclass(frozen=True, slots=True)
class Sparsity:
    """What is kept, and what happens to the rest.

    Attributes:
        density: Kept fraction `k / d`, in (0, 1].
        error_feedback: Whether the dropped part of dW is kept by the device and added to its next update.
        captured: Share of the energy of dW (with error feedback: of dW plus residual) that every mask of the run keeps,
            at least; None means the density, which any top-k of that vector guarantees.
        stale: Bound on the distance between the broadcast first moment and the gradient at the broadcast model (with error
            feedback: at the virtual model), in root mean square over rounds (for `convergence_bound_convex`: the largest
            of them), measured; None means `2 G sqrt(d)`. Of this at most `2 G sqrt(k)` lies on the kept positions.
    """

    density: float = 1.0
    error_feedback: bool = False
    captured: float | None = None
    stale: float | None = None

    def __post_init__(self) -> None:
        require_density("density", self.density)
        if self.captured is not None:
            require_density("captured", self.captured)
        if self.stale is not None:
            require_non_negative("stale", self.stale)

    @property
    def energy(self) -> float:
        """The share of the energy that is surely kept."""
        return self.density if self.captured is None else self.captured


@dataclass(frozen=True, slots=True)
class MomentumError:
    """Bounds on the root mean square, over local steps and devices, of first moment minus gradient: equation (30).

    Attributes:
        stale: From the first moment that was broadcast, on all positions.
        stale_kept: The same on kept positions only.
        heterogeneity: From the difference between a device's gradient and the global one.
        drift: From the distance that local steps travel.
        residual: From the distance between the model and the virtual model of error feedback.
    """

    stale: float
    stale_kept: float
    heterogeneity: float
    drift: float
    residual: float

    @property
    def total(self) -> float:
        """On all positions."""
        return self.stale + self.heterogeneity + self.drift + self.residual

    @property
    def kept(self) -> float:
        """On kept positions."""
        return self.stale_kept + self.heterogeneity + self.drift + self.residual


def residual_bound(problem: ProblemConstants, adam: AdamSetting, sparsity: Sparsity) -> float:
    """Return `z`, the most that error feedback can hold back on a device, as a norm: Lemma 5, equation (29)."""
    if not sparsity.error_feedback:
        return 0.0
    return residual_factor(sparsity.energy) * round_length(problem, adam)


def momentum_error(problem: ProblemConstants, adam: AdamSetting, sparsity: Sparsity) -> MomentumError:
    """Bound first moment minus gradient, root mean square over local steps and devices: Lemma 6, equation (30)."""
    steps = np.arange(1, adam.local_steps + 1)
    decay = adam.beta1**steps
    travelled = (steps - 1) - adam.beta1 * (1 - adam.beta1 ** (steps - 1)) / (1 - adam.beta1)
    fresh = _rms(1 - decay)
    root_dim = math.sqrt(problem.dim)
    crude = 2 * problem.grad_bound * root_dim
    stale = crude if sparsity.stale is None else min(sparsity.stale, crude)
    return MomentumError(
        stale=_rms(decay) * stale,
        stale_kept=_rms(decay) * min(stale, crude * math.sqrt(sparsity.density)),
        heterogeneity=fresh * problem.heterogeneity,
        drift=_rms(travelled) * problem.smoothness * adam.lr * step_bound(problem, adam) * root_dim,
        residual=fresh * problem.smoothness * residual_bound(problem, adam, sparsity),
    )


def stale_momentum_bound(
    problem: ProblemConstants, adam: AdamSetting, initial: float, *, exact_gradients: bool = False
) -> float:
    """Bound the distance between broadcast first moment and gradient in every round of dense FedAdam: equation (31).

    Args:
        problem: The constants.
        adam: The optimiser's settings.
        initial: That distance before the first round; `||grad F(W)||` when the moments start at zero.
        exact_gradients: Devices use exact gradients of functions that are each `smoothness`-smooth and whose weighted
            mean is F: heterogeneity then cancels in the mean.

    Returns:
        A value for `Sparsity.stale` at density 1. With a mask, positions that are not sent keep their stale momentum and no
        such contraction holds: measure it, or live with `2 G sqrt(d)`.
    """
    require_non_negative("initial", initial)
    steps, beta = adam.local_steps, adam.beta1
    travelled = (steps - 1) - beta * (1 - beta ** (steps - 1)) / (1 - beta)
    pace = problem.smoothness * adam.lr * step_bound(problem, adam) * math.sqrt(problem.dim)
    fresh = 1 - beta**steps
    heterogeneity = 0.0 if exact_gradients else problem.heterogeneity
    return max(initial, heterogeneity + pace * (travelled + steps) / fresh)


def preconditioner_disagreement(problem: ProblemConstants, adam: AdamSetting) -> float:
    """Return how far `1 / sqrt(v + eps)` can differ between devices, averaged over local steps: Theorem 6, (36).

    Zero at `beta2 -> 1`: devices start a round from the same second moment.
    """
    steps = np.arange(1, adam.local_steps + 1)
    high = preconditioner_range(problem, adam)[1]
    low = 1 / np.sqrt(high**-2 + (1 - adam.beta2**steps) * problem.grad_bound**2)
    return float(np.mean((1 - adam.beta1**steps) * (high - low) / 2))


def round_length(problem: ProblemConstants, adam: AdamSetting) -> float:
    """Bound ||dW|| of one device in one round."""
    return adam.lr * adam.local_steps * step_bound(problem, adam) * math.sqrt(problem.dim)


def _rms(values: ArrayLike) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
