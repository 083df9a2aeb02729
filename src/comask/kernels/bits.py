"""Bitmaps and bfloat16, the fixed-width kernels of the wire format."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from comask.kernels.intrinsics import int64


@njit(cache=True, nogil=True)
def first_misplaced(indices: NDArray[np.uint32], dim: int) -> int:
    """Return the place of the first index that is not above the one before it or not below `dim`, or -1."""
    last = int64(-1)
    for j in range(indices.size):
        position = int64(indices[j])
        if position <= last or position >= dim:
            return j
        last = position
    return -1


@njit(cache=True, nogil=True)
def set_bits(indices: NDArray[np.uint32], out: NDArray[np.uint8]) -> None:
    """Set bit `i % 8` of byte `i // 8` for every index, all of which must lie within `out`; `out` is zero before."""
    for j in range(indices.size):
        position = int64(indices[j])
        out[position >> 3] |= np.uint8(1 << (position & 7))


@njit(cache=True, nogil=True)
def find_bits(bitmap: NDArray[np.uint8], out: NDArray[np.uint32]) -> int:
    """Write the positions of the set bits, ascending, and return how many there are.

    Positions beyond the end of `out` are counted and not written.
    """
    n = 0
    for byte in range(bitmap.size):
        value = int64(bitmap[byte])
        if value == 0:
            continue
        for bit in range(8):
            if value >> bit & 1:
                if n < out.size:
                    out[n] = np.uint32(byte * 8 + bit)
                n += 1
    return n


@njit(cache=True, nogil=True)
def round_to_bfloat16(bits: NDArray[np.uint32], out: NDArray[np.uint16]) -> int:
    """Round float32 bits to the nearest bfloat16, ties to even; a NaN stays a (quiet) NaN of the same sign.

    Returns:
        -1, or the place of the first finite number that rounds to infinity.
    """
    overflow = -1
    for i in range(bits.size):
        x = int64(bits[i])
        magnitude = x & 0x7FFFFFFF
        if magnitude > 0x7F800000:
            out[i] = np.uint16((x >> 16) | 0x40)
            continue
        rounded = (x + 0x7FFF + ((x >> 16) & 1)) >> 16
        if overflow < 0 and magnitude < 0x7F800000 and rounded & 0x7FFF == 0x7F80:
            overflow = i
        out[i] = np.uint16(rounded)
    return overflow
