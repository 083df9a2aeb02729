"""How often two kept positions are a certain distance apart: what tells the width of rows that nobody has told."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from comask.kernels.intrinsics import int64


@njit(cache=True, nogil=True)
def count_lags(
    indices: NDArray[np.uint32], first: int, last: int, step: int, counts: NDArray[np.int64]
) -> None:
    """Count the distances below `counts.size` from every `step`-th of the positions `first..last` back to all earlier ones.

    Args:
        indices: Shape `(k,)`, strictly increasing.
        first: Place of the first position.
        last: Place after the last.
        step: 1 or more.
        counts: Shape `(lags,)`; added to.
    """
    for j in range(first, last, step):
        position = int64(indices[j])
        i = j - 1
        while i >= 0 and position - int64(indices[i]) < counts.size:
            counts[position - int64(indices[i])] += 1
            i -= 1
