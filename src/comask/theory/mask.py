"""Which positions to keep: the mask that minimises the divergence bound. Section 5 of `docs/theory.md`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError
from comask.theory.constants import AdamSetting, ProblemConstants
from comask.theory.divergence import transition

FloatArray = NDArray[np.float32] | NDArray[np.float64]


class MaskWeights(NamedTuple):
    """How much the next round's model feels what a mask drops: `Gamma`, `Phi`, `Theta` of equation (18)."""

    params: float
    first_moment: float
    second_moment: float


def mask_weights(problem: ProblemConstants, adam: AdamSetting) -> MaskWeights:
    """Return the first row of `T ** L`: equation (18), to first order in the learning rate (19).

    The bound on the weights after the next round grows by the product of this row with the norms that a mask drops.
    """
    matrix, _ = transition(problem, adam)
    return MaskWeights(*map(float, np.linalg.matrix_power(matrix, adam.local_steps)[0]))


def mask_objective(changes: FloatArray, kept: NDArray[np.bool_], weights: MaskWeights) -> float:
    """Return `Gamma ||(1-S) dW|| + Phi ||(1-S) dM|| + Theta ||(1-S) dV||`: equation (18).

    Args:
        changes: Shape `(3, d)`: dW, dM and dV.
        kept: Shape `(d,)`: the mask S.
        weights: From `mask_weights`.
    """
    return float(np.asarray(weights) @ np.linalg.norm(np.asarray(changes, np.float64)[:, ~kept], axis=1))


def optimal_mask(
    changes: FloatArray, num_kept: int, weights: MaskWeights, *, iterations: int = 20
) -> NDArray[np.bool_]:
    """Descend on `mask_objective` from the better of two masks that are provably close to the optimum.

    Theorem 3: every optimal mask is a top-k of `Gamma dW^2 / e_W + Phi dM^2 / e_M + Theta dV^2 / e_V`, where e are the
    norms that this same mask drops (20); taking that top-k again and again never increases the objective. It starts from
    the top-k of the squared objective, within `sqrt(3)` of the optimum (21), or from that of |dW| when it is better.

    Args:
        changes: Shape `(3, d)`: dW, dM and dV.
        num_kept: `k`, in 1..d.
        weights: From `mask_weights`.
        iterations: Most repetitions; it stops at the first that gains nothing.

    Returns:
        Shape `(d,)`: True where kept.
    """
    squares = np.square(np.asarray(changes, np.float64))
    if not 1 <= num_kept <= squares.shape[1]:
        raise ConfigError(f"num_kept must be in 1..{squares.shape[1]}, got {num_kept}.")
    factors = np.asarray(weights)
    starts = (_top_k(np.square(factors) @ squares, num_kept), _top_k(squares[0], num_kept))
    kept = min(starts, key=lambda mask: mask_objective(changes, mask, weights))
    value = mask_objective(changes, kept, weights)
    for _ in range(iterations):
        dropped = np.sqrt(squares[:, ~kept].sum(axis=1))
        if not dropped.all():  # the objective has no gradient where a stream loses nothing
            break
        candidate = _top_k((factors / dropped) @ squares, num_kept)
        improved = mask_objective(changes, candidate, weights)
        if improved >= value:
            break
        kept, value = candidate, improved
    return kept


def weights_mask_is_optimal(changes: FloatArray, num_kept: int, weights: MaskWeights) -> bool:
    """Tell whether the gap between the k-th and the next |dW| exceeds all that dM and dV can add: condition (22).

    When true, top-k of |dW| (the mask attributed to the paper) minimises the squared objective.
    """
    squares = np.square(np.asarray(weights))[:, None] * np.square(np.asarray(changes, np.float64))
    dropped = ~_top_k(squares[0], num_kept)
    if not dropped.any():
        return True
    gap = squares[0][~dropped].min() - squares[0][dropped].max()
    return bool(gap >= squares[1:, dropped].sum(axis=0).max())


def coordinate_sensitivities(
    v: FloatArray, m: FloatArray, *, lr: float, beta1: float, beta2: float, eps: float, local_steps: int
) -> tuple[FloatArray, FloatArray]:
    """Return how far each weight moves over the next round per unit of its first and of its second moment.

    Equation (24): `lr * sum_l beta1^l / sqrt(v + eps)` and `lr * |m| * sum_l beta2^l / (2 (v + eps)^1.5)`, sums over
    l = 1..L. The dtype is that of the arguments.
    """
    reach1, reach2 = (float(np.sum(beta ** np.arange(1, local_steps + 1))) for beta in (beta1, beta2))
    inverse = 1 / np.sqrt(v + eps)
    return lr * reach1 * inverse, 0.5 * lr * reach2 * np.abs(m) * inverse**3


def bound_scores(
    dw: FloatArray,
    dm: FloatArray,
    dv: FloatArray,
    v: FloatArray,
    m: FloatArray,
    *,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    local_steps: int,
    signed: bool = False,
) -> NDArray[np.float32]:
    """Score every position by how far dropping it throws the weights off by the end of the next round.

    The mask rule `bound` keeps the top-k of this score: Theorem 4, equation (25).

    Args:
        dw: Change of the weights over the round, shape `(d,)`.
        dm: Change of the first moment.
        dv: Change of the second moment.
        v: The second moment at the end of the round, never negative.
        m: The first moment at the end of the round.
        lr: Learning rate.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        eps: Added to `v` inside the root.
        local_steps: Steps of the next round.
        signed: False adds the three effects in squares, which holds whatever their signs. True adds the effects
            themselves: the exact first order for the weights, blind to errors that cancel in them.

    Returns:
        Shape `(d,)`, in the unit of the weights, never negative.
    """
    streams = [np.asarray(x, np.float32) for x in (dw, dm, dv, v, m)]
    if len({x.shape for x in streams}) != 1:
        raise ConfigError(f"dw, dm, dv, v and m must have one shape, got {[x.shape for x in streams]}.")
    dw, dm, dv, v, m = streams
    in_m, in_v = coordinate_sensitivities(
        v, m, lr=lr, beta1=beta1, beta2=beta2, eps=eps, local_steps=local_steps
    )
    if signed:
        return np.asarray(np.abs(dw - in_m * dm + np.sign(m) * in_v * dv), np.float32)
    return np.asarray(np.hypot(np.hypot(dw, in_m * dm), in_v * dv), np.float32)


def _top_k(scores: NDArray[np.float64], num_kept: int) -> NDArray[np.bool_]:
    """Mark the `num_kept` largest scores, ties to the lower position."""
    kept = np.zeros(scores.size, bool)
    kept[np.argsort(-scores, kind="stable")[:num_kept]] = True
    return kept
