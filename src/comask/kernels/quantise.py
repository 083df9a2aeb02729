"""Kernels of the quantised value codings: values to codes of a few bits, and codes to bytes.

All divisions and products are done in float64 and rounded once, so that every machine computes the same codes and values.
Stochastic rounding draws its numbers by hashing a seed and the value's place: no state, so the order of work is free.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from comask.kernels.intrinsics import int64

BLOCK = 256
"""Values that share one scale."""

NEAREST, STOCHASTIC, SAFE = range(3)
"""Modes of rounding. `SAFE` rounds to the nearest, except that no negative value becomes more negative."""

_MIX1, _MIX2, _STEP = (
    np.uint64(0xBF58476D1CE4E5B9),
    np.uint64(0x94D049BB133111EB),
    np.uint64(0x9E3779B97F4A7C15),
)


@njit(inline="always")
def _uniform(seed: np.uint64, place: int) -> float:
    """Return a number in [0, 1) that depends on the seed and the place alone (the SplitMix64 generator's output)."""
    z = seed + np.uint64(place + 1) * _STEP
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    z ^= z >> np.uint64(31)
    return float(z >> np.uint64(11)) * 2.0**-53


@njit(cache=True, nogil=True)
def block_means(values: NDArray[np.float32], out: NDArray[np.float64]) -> None:
    """Set `out[b]` to the mean magnitude of block b."""
    for block in range(out.size):
        start = block * BLOCK
        stop = min(start + BLOCK, values.size)
        total = 0.0
        for i in range(start, stop):
            total += abs(np.float64(values[i]))
        out[block] = total / (stop - start)


@njit(cache=True, nogil=True)
def block_scales(values: NDArray[np.float32], top: int, choices: int, out: NDArray[np.float64]) -> None:
    """Set `out[b]` to the scale of block b whose codes -top..top have the least square error.

    Args:
        values: Shape `(k,)`.
        top: The greatest code.
        choices: How many scales are tried: the greatest magnitude, and then less by an eighth of it each.
        out: Shape `(ceil(k / BLOCK),)`.
    """
    for block in range(out.size):
        start = block * BLOCK
        stop = min(start + BLOCK, values.size)
        greatest = 0.0
        for i in range(start, stop):
            greatest = max(greatest, abs(np.float64(values[i])))
        out[block] = greatest
        least = np.inf
        for choice in range(choices if greatest > 0.0 else 0):
            scale = greatest * (8 - choice) / 8
            error = 0.0
            for i in range(start, stop):
                magnitude = abs(np.float64(values[i]))
                error += (magnitude - min(np.rint(magnitude * top / scale), top) * scale / top) ** 2
            if error < least:
                least = error
                out[block] = scale


@njit(cache=True, nogil=True)
def linear_codes(
    values: NDArray[np.float32],
    scales: NDArray[np.float64],
    top: int,
    mode: int,
    seed: np.uint64,
    out: NDArray[np.uint8],
) -> None:
    """Set `out[i]` to the low bits of the code in -top..top that stands for `values[i]` in its block's scale."""
    mask = 2 * top + 1
    for i in range(values.size):
        scale = scales[i // BLOCK]
        exact = 0.0 if scale == 0.0 else np.float64(values[i]) * top / scale
        if mode == STOCHASTIC:
            code = np.floor(exact + _uniform(seed, i))
        elif mode == SAFE and exact < 0.0:
            code = np.ceil(exact)
        else:
            code = np.rint(exact)
        out[i] = np.uint8(int64(min(max(code, -float(top)), float(top))) & mask)


@njit(cache=True, nogil=True)
def linear_values(
    codes: NDArray[np.uint8], scales: NDArray[np.float64], top: int, out: NDArray[np.float32]
) -> bool:
    """Undo `linear_codes`; return False if a code is -top - 1, which stands for nothing."""
    valid = True
    for i in range(out.size):
        code = int64(codes[i])
        if code > top:
            code -= 2 * top + 2
        valid &= code >= -top
        out[i] = np.float32(scales[i // BLOCK] * code / top)
    return valid


@njit(cache=True, nogil=True)
def level_codes(
    values: NDArray[np.float32],
    levels: NDArray[np.float64],
    mode: int,
    seed: np.uint64,
    out: NDArray[np.uint8],
) -> None:
    """Set `out[i]` to 2 m + (1 if negative), where `levels[m]`, descending and not negative, stands for the magnitude."""
    last = levels.size - 1
    for i in range(values.size):
        magnitude = abs(np.float64(values[i]))
        negative = values[i] < 0
        low, high = 0, last  # the least m with levels[m] <= magnitude, or the last
        while low < high:
            middle = (low + high) >> 1
            if levels[middle] <= magnitude:
                high = middle
            else:
                low = middle + 1
        m = low
        if levels[m] > magnitude:  # smaller than the last level: between plus and minus that level
            if mode == STOCHASTIC:
                share = 0.5 + 0.5 * np.float64(values[i]) / levels[m]
                negative = _uniform(seed, i) >= share
            elif mode == SAFE:
                negative = False
        elif m > 0 and not (mode == SAFE and negative):
            share = (magnitude - levels[m]) / (levels[m - 1] - levels[m])
            if share > (_uniform(seed, i) if mode == STOCHASTIC else 0.5):
                m -= 1
        out[i] = np.uint8(2 * m + negative)


@njit(cache=True, nogil=True)
def pack(codes: NDArray[Any], width: int, out: NDArray[np.uint8]) -> None:
    """Write codes of `width` <= 32 bits (uint8 or uint32) one after the other, lowest bits first."""
    pending, held, n = int64(0), 0, 0
    for i in range(codes.size):
        pending |= int64(codes[i]) << held
        held += width
        while held >= 8:
            out[n] = np.uint8(pending & 0xFF)
            n += 1
            pending >>= 8
            held -= 8
    if held > 0:
        out[n] = np.uint8(pending)


@njit(cache=True, nogil=True)
def unpack(data: NDArray[np.uint8], width: int, out: NDArray[Any]) -> bool:
    """Undo `pack`; return False if bits are set after the last code. `data` has ceil(width * out.size / 8) bytes."""
    pending, held, n = int64(0), 0, 0
    mask = (1 << width) - 1
    for i in range(out.size):
        while held < width:
            pending |= int64(data[n]) << held
            n += 1
            held += 8
        out[i] = pending & mask
        pending >>= width
        held -= width
    clean: bool = pending == 0
    return clean


@njit(cache=True, nogil=True)
def look_up(table: NDArray[np.float32], codes: NDArray[np.uint8], out: NDArray[np.float32]) -> None:
    """Set `out[i] = table[codes[i]]`; the table has an entry for every code that its width allows."""
    for i in range(out.size):
        out[i] = table[codes[i]]


@njit(cache=True, nogil=True)
def count_magnitudes(
    magnitudes: NDArray[np.float32],
    bits: NDArray[np.uint32],
    shift: int,
    highest: int,
    counts: NDArray[np.float64],
    sums: NDArray[np.float64],
) -> None:
    """Count magnitudes, and sum them up, by how far their highest bits are below `highest`; the last bin takes all beyond.

    Args:
        magnitudes: Shape `(k,)`, not negative.
        bits: The same, as integers.
        shift: How many low bits do not matter.
        highest: The greatest `bits >> shift`.
        counts: Shape `(h,)`; added to.
        sums: Shape `(h,)`; added to.
    """
    last = counts.size - 1
    for i in range(magnitudes.size):
        depth = min(int64(highest) - (int64(bits[i]) >> shift), last)
        counts[depth] += 1.0
        sums[depth] += np.float64(magnitudes[i])


@njit(cache=True, nogil=True)
def best_levels(
    means: NDArray[np.float64],
    weights: NDArray[np.float64],
    ceilings: NDArray[np.float64],
    steps: NDArray[np.float64],
    count: int,
) -> tuple[float, float]:
    """Return the greatest level and the step of the geometric levels that are nearest to a histogram.

    Nearest in the sum of (error squared) / magnitude: between the absolute error, which sees the largest values only, and
    the relative one, which sees the smallest as well.

    Args:
        means: Shape `(h,)`, descending, positive: the mean of each bin.
        weights: Shape `(h,)`: how many are in each bin.
        ceilings: Greatest levels to try.
        steps: Steps to try, in 1/64 octave.
        count: Number of levels.
    """
    best, best_ceiling, best_step = np.inf, ceilings[0], steps[0]
    for ceiling in ceilings:
        for step in steps:
            ratio = 2.0 ** (-step / 64)
            level, m, error = ceiling, 1, 0.0
            for h in range(means.size):
                while m < count and means[h] < level * (1 + ratio) / 2:
                    level *= ratio
                    m += 1
                error += weights[h] * (means[h] - level) ** 2 / means[h]
                if error >= best:
                    break
            if error < best:
                best, best_ceiling, best_step = error, ceiling, step
    return best_ceiling, best_step
