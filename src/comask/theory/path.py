"""The divergence bound with constants measured at every step: the sharpest form of Theorem 2, equation (17').

One number for a whole run must be the worst over all steps and coordinates; on a neural network the smallest second moment
alone then makes the bound useless. Ratios of norms measured along the two runs keep every step's own constant.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from comask.errors import ConfigError
from comask.theory.constants import AdamSetting, require_non_negative

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class PathConstants:
    """What one local step did, or, stacked, what every step of every device did.

    Attributes:
        smoothness: `||grad F(w) - grad F(w_ref)|| / ||w - w_ref||`.
        heterogeneity: `||g - grad F(w)||`.
        square_slope: `||g^2 - g_ref^2|| / ||g - g_ref||`, at most `2 G`.
        in_m: `||(m - m_ref) / sqrt(v + eps)|| / ||m - m_ref||`, after the step.
        in_v: `||m_ref / sqrt(v + eps) - m_ref / sqrt(v_ref + eps)|| / ||v - v_ref||`, after the step.
        travel: `||m / sqrt(v + eps)|| + ||m_ref / sqrt(v_ref + eps)||`, after the step: how far the two can part at most.
    """

    smoothness: Array
    heterogeneity: Array
    square_slope: Array
    in_m: Array
    in_v: Array
    travel: Array

    @classmethod
    def stack(cls, steps: list[list[list[PathConstants]]]) -> PathConstants:
        """Join constants of single steps, nested by round, local step and device, to shape `(R, L, N)`."""
        return cls(
            **{
                field.name: np.array(
                    [[[getattr(one, field.name) for one in step] for step in row] for row in steps],
                    np.float64,
                )
                for field in fields(cls)
            }
        )


def measure_step(
    device: tuple[Array, Array, Array],
    reference: tuple[Array, Array, Array],
    gradients: tuple[Array, Array, Array],
    weights: tuple[Array, Array],
    eps: float,
) -> PathConstants:
    """Measure the constants of one local step and the reference's step beside it: equation (17').

    Args:
        device: The device's `(w, m, v)` after the step, each of shape `(..., d)`; norms are over the last axis.
        reference: Centralised Adam's `(w, m, v)` after the step.
        gradients: The device's gradient, the global gradient at the device's weights, that at the reference's weights.
        weights: The device's and the reference's weights before the step.
        eps: Added to the second moment inside the root.
    """
    _, m, v = device
    _, m_ref, v_ref = reference
    gradient, there, central = gradients
    scale, scale_ref = 1 / np.sqrt(v + eps), 1 / np.sqrt(v_ref + eps)
    return PathConstants(
        smoothness=_ratio(there - central, weights[0] - weights[1]),
        heterogeneity=_norm(gradient - there),
        square_slope=_ratio(gradient**2 - central**2, gradient - central),
        in_m=_ratio((m - m_ref) * scale, m - m_ref),
        in_v=_ratio(m_ref * (scale - scale_ref), v - v_ref),
        travel=_norm(m * scale) + _norm(m_ref * scale_ref),
    )


def path_divergence_bound(
    path: PathConstants,
    adam: AdamSetting,
    *,
    shares: ArrayLike,
    sparsification: ArrayLike,
    residual: float | None = None,
) -> tuple[Array, Array]:
    """Bound the distances to centralised Adam from constants measured at every step: equation (17').

    Args:
        path: Shape `(R, L, N)` in each field: rounds, local steps, devices.
        adam: The optimiser's settings.
        shares: Shape `(N,)`: the devices' weights, summing to 1.
        sparsification: Shape `(R, 3)`: norms of `sum_n p_n (1 - S_n) dX_n` for W, M and V.
        residual: With error feedback, as in `divergence_bound`: the first column of `sparsification` is then not used.

    Returns:
        Bounds on the distances of W, M and V: for the broadcast state, shape `(R + 1, 3)`, and for every device after every
        local step, shape `(R, L + 1, N, 3)`.
    """
    rounds, steps, devices = path.smoothness.shape
    weights, errors = np.asarray(shares, np.float64), np.asarray(sparsification, np.float64)
    if weights.shape != (devices,) or errors.shape != (rounds, 3):
        raise ConfigError(
            f"shares must have shape ({devices},) and sparsification ({rounds}, 3), got {weights.shape} and {errors.shape}."
        )
    server, device = np.zeros((rounds + 1, 3)), np.zeros((rounds, steps + 1, devices, 3))
    if residual is not None:
        require_non_negative("residual", residual)
        server[0, 0], errors = residual, errors * [0.0, 1.0, 1.0]
    for r in range(rounds):
        device[r, 0] = server[r]
        for step in range(steps):
            a, b, c = device[r, step].T
            apart = path.smoothness[r, step] * a + path.heterogeneity[r, step]
            b = adam.beta1 * b + (1 - adam.beta1) * apart
            c = adam.beta2 * c + (1 - adam.beta2) * path.square_slope[r, step] * apart
            a = a + adam.lr * np.minimum(
                path.in_m[r, step] * b + path.in_v[r, step] * c, path.travel[r, step]
            )
            device[r, step + 1] = np.stack([a, b, c], axis=1)
        server[r + 1] = weights @ device[r, steps] + errors[r]
    return server, device


def _norm(x: Array) -> Array:
    return np.asarray(np.linalg.norm(x, axis=-1), np.float64)


def _ratio(upper: Array, lower: Array) -> Array:
    """Divide norms; 0 / 0 is 0, since nothing then needs to be bounded."""
    below = _norm(lower)
    return np.divide(_norm(upper), below, out=np.zeros_like(below), where=below > 0)
