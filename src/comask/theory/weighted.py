"""Convergence in the norm that Adam itself uses, from what a run did: Theorem 9 of `docs/theory.md`.

The bounds (33) and (35) need constants that hold for every coordinate at every step; on a neural network their ratio
`q_+ / q_-` alone makes them useless. Sums over coordinates, each with its own preconditioner, need none of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from comask.errors import ConfigError
from comask.theory.constants import AdamSetting, require_non_negative


@dataclass(frozen=True, slots=True)
class RoundMeasures:
    """What one round did, as means over its devices: the sums of equation (44).

    With `q` the mean of `1 / sqrt(v + eps)` over a device's local steps, `u = -dW / (lr L)`, x the global gradient at the
    broadcast model (with error feedback: at the virtual model), and `E = u / q - x`, coordinate by coordinate:

    Attributes:
        gradient: Sum of `q x^2`: the squared norm that is bounded.
        error: Sum of `q E^2` over all positions.
        error_kept: The same over the kept positions.
        energy: Sum of `u^2 / q` over all positions.
        energy_kept: The same over the kept positions.
        moved: Squared norm of the change of the server's model (with error feedback: of the virtual model).
    """

    gradient: float
    error: float
    error_kept: float
    energy: float
    energy_kept: float
    moved: float


def measure_round(
    change: ArrayLike,
    scale: ArrayLike,
    kept: ArrayLike,
    *,
    gradient: ArrayLike,
    shares: ArrayLike,
    adam: AdamSetting,
) -> RoundMeasures:
    """Measure one round for `weighted_convergence_bound`: the sums of equation (44).

    Args:
        change: Shape `(N, d)`: every device's dW, before the mask and without residual.
        scale: Shape `(N, d)`: the mean of `1 / sqrt(v + eps)` over the local steps, `v` after each step; positive.
        kept: Shape `(N, d)`: the masks; all True with error feedback, whose virtual model moves by the whole change.
        gradient: Shape `(d,)`: the global gradient at the broadcast (or virtual) model.
        shares: Shape `(N,)`: the devices' weights, summing to 1.
        adam: The optimiser's settings.

    Raises:
        ConfigError: If shapes do not fit together.
    """
    dw, q, x, p = (np.asarray(a, np.float64) for a in (change, scale, gradient, shares))
    masks = np.asarray(kept, bool)
    if not (
        dw.ndim == 2
        and dw.shape == q.shape == masks.shape
        and x.shape == dw.shape[1:]
        and p.shape == dw.shape[:1]
    ):
        raise ConfigError(
            "change, scale and kept must have one shape (N, d), gradient (d,) and shares (N,), got "
            f"{dw.shape}, {q.shape}, {masks.shape}, {x.shape} and {p.shape}."
        )
    u = dw / (-adam.lr * adam.local_steps)
    error, energy = q * np.square(u / q - x), np.square(u) / q

    def mean(values: NDArray[np.float64]) -> float:
        return float(p @ values.sum(axis=1))

    return RoundMeasures(
        gradient=mean(q * np.square(x)),
        error=mean(error),
        error_kept=mean(error * masks),
        energy=mean(energy),
        energy_kept=mean(energy * masks),
        moved=float(np.square(p @ (dw * masks)).sum()),
    )


def weighted_convergence_bound(
    rounds: Sequence[RoundMeasures], adam: AdamSetting, *, smoothness: float, gap: float
) -> float:
    """Bound the root mean square over rounds of the preconditioned gradient norm: Theorem 9, equation (45).

    What it bounds is `sqrt(mean of gradient)` of the measures. It needs neither a bound on gradients nor a floor of the
    second moment nor full knowledge of heterogeneity: all of these are in the measured error.

    Args:
        rounds: One measure for each round.
        adam: The optimiser's settings.
        smoothness: Lipschitz constant of the global gradient along the run, `rho`.
        gap: `F(W_0) - F(W_R)`, or `F(W_0) - inf F` (with error feedback of the virtual models).

    Raises:
        ConfigError: If there is no round, or a number is out of range.
    """
    if not rounds:
        raise ConfigError("rounds must hold the measures of at least one round, got none.")
    require_non_negative("smoothness", smoothness)
    require_non_negative("gap", gap)

    def mean(name: str) -> float:
        return float(np.mean([getattr(one, name) for one in rounds]))

    length = adam.lr * adam.local_steps
    progress = gap / (length * len(rounds)) + smoothness * mean("moved") / (2 * length)
    kept, energy, error = mean("energy_kept"), mean("energy"), mean("error")
    if kept == energy:  # nothing that moved was dropped: no detour over u
        return _largest_root(error, progress)
    if kept == 0:
        return math.inf
    return math.sqrt(energy / kept) * _largest_root(mean("error_kept"), progress) + math.sqrt(error)


def _largest_root(square: float, progress: float) -> float:
    """Return the largest a with `a^2 - a sqrt(square) <= progress`."""
    return (math.sqrt(square) + math.sqrt(square + 4 * progress)) / 2
