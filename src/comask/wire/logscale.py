"""The encoder's choice of a logarithmic scale: free, since the payload says which one it was."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from comask.kernels.quantise import best_levels, count_magnitudes

_FRACTION_BITS = 5
_DEPTH = 40
"""Octaves below the greatest magnitude that are told apart: twelve decades."""

_STEPS = np.unique(np.round(2.0 ** np.arange(1, 12.01, 0.25)))
"""Steps that are tried, in 1/64 octave: from 1/32 octave to 64."""

_CEILINGS = 2.0 ** (-np.arange(13) / 4)
"""Greatest levels that are tried, as parts of the greatest magnitude."""


def fit_levels(magnitudes: NDArray[np.float32], count: int, *, clip: bool) -> tuple[np.float32, int]:
    """Choose the geometric progression that is nearest to the magnitudes; `best_levels` says in which sense.

    Args:
        magnitudes: Shape `(k,)` with k > 0, finite and not negative.
        count: How many levels there are.
        clip: Whether the greatest level may be below the greatest magnitude.

    Returns:
        The greatest level, and the step from level to level in 1/64 octave.
    """
    greatest = np.float32(magnitudes.max())
    if greatest == 0:
        return greatest, 0
    # A histogram on the bits: a bin for each exponent and the highest bits of the fraction.
    shift = 23 - _FRACTION_BITS
    weights, sums = np.zeros((2, (_DEPTH << _FRACTION_BITS) + 1))
    highest = int(greatest.view(np.uint32)) >> shift
    count_magnitudes(magnitudes, magnitudes.view(np.uint32), shift, highest, weights, sums)
    used = np.flatnonzero(sums)
    weights = weights[used]
    means = sums[used] / weights
    ceilings = _CEILINGS if clip else _CEILINGS[:1]
    ceiling, step = best_levels(means, weights, ceilings * np.float64(greatest), _STEPS, count)
    return np.float32(ceiling), int(step)
