"""What the adaptive models share of the binary arithmetic coder: its start, its ending, and how a probability learns.

The step between them stands in each model's loop, where its three numbers stay in registers. `docs/format/v1.md`, section 4.4.2, is
normative.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from comask.kernels.intrinsics import int64, uintp

PROBABILITY_BITS = 22
COUNT_BITS = 10


@njit(inline="always")
def observe(state: int, target: int, most_seen: int, reciprocal: NDArray[np.int32]) -> int:
    """Move a context's probability towards what was seen, the slower the more it has seen, up to `most_seen`."""
    count = state & 1023
    p = state >> COUNT_BITS
    p += (target - p) * int64(reciprocal[uintp(count)]) >> 16
    moved: int = p << COUNT_BITS | min(count + 1, most_seen)
    return moved


@njit(inline="always")
def first_code(source: NDArray[np.uint8]) -> int:
    """Return the first four bytes of a section as a number; zeros follow its end."""
    code: int = int64(0)
    for i in range(4):
        code = (code << 8) | (int64(source[i]) if i < source.size else 0)
    return code


@njit(inline="always")
def finish(decoding: bool, low: int, high: int, code: int, n: int, out: NDArray[np.uint8]) -> tuple[int, int]:
    """End a section with as few leading bytes of `high` as still lie above `low` when zeros follow.

    Returns:
        The section's length, -1 if `out` has no room for it; and, when decoding, 1 if the section ends otherwise, else 0.
    """
    tail = 0
    while high >> (32 - 8 * tail) << (32 - 8 * tail) < low:
        tail += 1
    if decoding:
        return n + tail, int(code != high >> (32 - 8 * tail) << (32 - 8 * tail))
    for t in range(tail):
        if n == out.size:
            return -1, 0
        out[n] = high >> (24 - 8 * t) & 0xFF
        n += 1
    return n, 0
