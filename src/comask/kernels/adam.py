"""One fused pass of Adam over a flat vector."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]


@njit(cache=True, nogil=True, error_model="numpy")
def adam_step(
    params: F32,
    grads: F32,
    first_moment: F32,
    second_moment: F32,
    coefficients: F32,
) -> None:
    """Update weights and both moments in place: one read of four vectors, one write of three.

    A framework's Adam makes about ten passes (one an operation); at the sizes that do not fit in cache the passes are
    the cost. No fast-math: the compiler may not reorder or fuse, so every machine gets the same bits.

    Args:
        params: Shape `(d,)`; updated.
        grads: Shape `(d,)`; read.
        first_moment: Shape `(d,)`; updated.
        second_moment: Shape `(d,)`; updated, never negative if it was not.
        coefficients: The nine numbers that `comask.optim.LocalAdam` computes in double precision and rounds once:
            beta1, 1 - beta1, beta2, 1 - beta2, step size, 1 / c2, eps inside the root, eps outside, weight factor;
            and as tenth the L2 decay that joins the gradient.
    """
    beta1, rest1, beta2, rest2 = coefficients[0], coefficients[1], coefficients[2], coefficients[3]
    step, inverse_c2, eps_inside, eps_outside = (
        coefficients[4],
        coefficients[5],
        coefficients[6],
        coefficients[7],
    )
    keep, l2 = coefficients[8], coefficients[9]
    for i in range(params.shape[0]):
        w = params[i]
        g = grads[i] + l2 * w
        m = beta1 * first_moment[i] + rest1 * g
        v = beta2 * second_moment[i] + rest2 * (g * g)
        first_moment[i] = m
        second_moment[i] = v
        params[i] = keep * w - step * (m / (np.sqrt(v * inverse_c2 + eps_inside) + eps_outside))
