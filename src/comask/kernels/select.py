"""Exact, deterministic top-k of a float32 vector.

A radix selection on the scores' bits: one pass counts the high 16 bits of every score, which brackets the k-th largest;
one pass counts the low 16 bits of the scores in that bracket, which finds it exactly; one pass writes the positions.
Unlike a partial sort, the result does not depend on how ties happen to be ordered, and the vector is never moved.

A long vector is read only once: a sample tells a score that the k-th largest is very probably not below, one pass collects
the positions of what is not below that score, and the selection runs on those. If they turn out to be too few or too many
(all scores equal), the selection runs on the whole vector. The result is the same.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from comask.errors import ConfigError, NonFiniteError
from comask.kernels.intrinsics import int64
from comask.kernels.threads import run, split

_ALL_BITS = np.uint32(0xFFFFFFFF)
_MAGNITUDE_BITS = np.uint32(0x7FFFFFFF)
_DIGIT = 1 << 16
_MIN_SAMPLED = 1 << 16
_SAMPLE = 1 << 15


def top_k_indices(scores: NDArray[np.float32], k: int) -> NDArray[np.uint32]:
    """Return the positions of the `k` largest scores.

    Ties go to the lower position. -0 equals +0; infinities are ordered as usual.

    Args:
        scores: Shape `(d,)`, float32.
        k: How many, in `0..d`.

    Returns:
        Shape `(k,)`, ascending.

    Raises:
        ConfigError: If `scores` is not a float32 vector or `k` is out of range.
        NonFiniteError: If a score is NaN; it names the first.
    """
    return _select(scores, k, _ALL_BITS, "scores")


def top_k_abs_indices(x: NDArray[np.float32], k: int) -> NDArray[np.uint32]:
    """Return the positions of the `k` entries of largest magnitude, without making the vector of magnitudes.

    The same as `top_k_indices(abs(x), k)`, with the same arguments, result and errors.
    """
    return _select(x, k, _MAGNITUDE_BITS, "x")


def _select(x: NDArray[np.float32], k: int, mask: np.uint32, what: str) -> NDArray[np.uint32]:
    if x.ndim != 1 or x.dtype != np.float32:
        raise ConfigError(f"{what} must be a 1-D float32 array, got shape {x.shape} {x.dtype}.")
    if not 0 <= k <= x.size:
        raise ConfigError(f"k must be in 0..{x.size}, the length of {what}, got {k}.")
    if x.size == 0:
        return np.empty(0, np.uint32)
    x = np.ascontiguousarray(x)
    if x.size >= _MIN_SAMPLED and 0 < k <= x.size // 4:
        candidates = _candidates(x, k, absolute=mask == _MAGNITUDE_BITS)
        if candidates.size >= k:
            try:
                chosen = _radix_select(x.view(np.uint32)[candidates], k, mask, what)
            except NonFiniteError as error:  # its position is the one among the candidates
                raise NonFiniteError(what, int(candidates[error.position]), error.value) from None
            return candidates[chosen]
    return _radix_select(x.view(np.uint32), k, mask, what)


def _candidates(x: NDArray[np.float32], k: int, *, absolute: bool) -> NDArray[np.uint32]:
    """Return the positions of all scores from some bound up, NaN included, ascending; none if they would be too many."""
    size = min(x.size // 16, _SAMPLE)
    # Multiples of the golden section: evenly spread, and out of step with the rows of any tensor.
    places = (
        np.arange(size, dtype=np.uint64) * np.uint64(2654435769) % np.uint64(2**32) * np.uint64(x.size)
    ) >> np.uint64(32)
    sample = np.abs(x[places]) if absolute else x[places]
    expected = size * k / x.size
    rank = min(math.ceil(expected + 4 * math.sqrt(expected) + 8), size)
    bound = np.partition(sample, size - rank)[size - rank]
    parts = split(x.size)
    room = 2 * len(parts) * rank / size
    found = [np.empty(min(hi - lo, int(room * (hi - lo))) + 1, np.uint32) for lo, hi in parts]
    counts = run(
        _collect, [(x, lo, hi, absolute, bound, out) for (lo, hi), out in zip(parts, found, strict=True)]
    )
    if min(counts) < 0:
        return np.empty(0, np.uint32)
    return np.concatenate([out[:count] for out, count in zip(found, counts, strict=True)])


def _radix_select(bits: NDArray[np.uint32], k: int, mask: np.uint32, what: str) -> NDArray[np.uint32]:
    parts = split(bits.size)
    high = np.zeros((len(parts), _DIGIT), np.uint32)
    nan_at = [
        p
        for p in run(_count_high, [(bits, lo, hi, mask, high[i]) for i, (lo, hi) in enumerate(parts)])
        if p >= 0
    ]
    if nan_at:
        raise NonFiniteError(what, nan_at[0], float("nan"))
    if k == 0:
        return np.empty(0, np.uint32)

    high_digit, rest = _find_digit(high, k)
    low = np.zeros((len(parts), _DIGIT), np.uint32)
    run(_count_low, [(bits, lo, hi, mask, high_digit, low[i]) for i, (lo, hi) in enumerate(parts)])
    low_digit, ties_left = _find_digit(low, rest)
    threshold = high_digit * _DIGIT + low_digit

    out = np.empty(k, np.uint32)
    calls: list[tuple[object, ...]] = []
    start = 0
    for i, (lo, hi) in enumerate(parts):
        above = int(high[i, high_digit + 1 :].sum()) + int(low[i, low_digit + 1 :].sum())
        ties = min(int(low[i, low_digit]), ties_left)
        ties_left -= ties
        calls.append((bits, lo, hi, mask, threshold, ties, out[start : start + above + ties]))
        start += above + ties
    run(_write_positions, calls)
    return out


def _find_digit(counts: NDArray[np.uint32], k: int) -> tuple[int, int]:
    """Return the digit of the k-th largest entry, and its rank (from 1) among the entries with that digit."""
    at_least = np.cumsum(counts.sum(axis=0, dtype=np.int64)[::-1])  # (digits,), from the largest digit down
    place = int(np.searchsorted(at_least, k))
    above = int(at_least[place - 1]) if place else 0
    return len(at_least) - 1 - place, k - above


@njit(inline="always")
def _sort_key(bits: np.uint32, mask: np.uint32) -> int:
    """Map a float's bits to an unsigned number with the same order; both zeros map to one number."""
    kept = int64(bits & mask)
    key = kept ^ int64(0x80000000) if kept < 0x80000000 else kept ^ int64(0xFFFFFFFF)
    one_zero: int = key + int64(key == 0x7FFFFFFF)
    return one_zero


@njit(cache=True, nogil=True)
def _collect(
    x: NDArray[np.float32], start: int, stop: int, absolute: bool, bound: np.float32, out: NDArray[np.uint32]
) -> int:
    """Write the positions in `start..stop` whose score is not below the bound; return how many, or -1 without room."""
    n = 0
    last = out.size - 1
    for i in range(start, stop):
        score = abs(x[i]) if absolute else x[i]
        out[n] = np.uint32(i)  # without a branch: overwritten by the next one if it is below
        n += not score < bound  # NaN is not below either
        if n == last and i + 1 < stop:
            return -1
    return n


@njit(cache=True, nogil=True)
def _count_high(
    bits: NDArray[np.uint32], start: int, stop: int, mask: np.uint32, counts: NDArray[np.uint32]
) -> int:
    """Count the high digits of `bits[start:stop]`; return the position of the first NaN, or -1."""
    largest = int64(0)
    for i in range(start, stop):
        magnitude = int64(bits[i] & _MAGNITUDE_BITS)
        largest = max(largest, magnitude)
        counts[_sort_key(bits[i], mask) >> 16] += np.uint32(1)
    if largest > 0x7F800000:
        for i in range(start, stop):
            if int64(bits[i] & _MAGNITUDE_BITS) > 0x7F800000:
                return i
    return -1


@njit(cache=True, nogil=True)
def _count_low(
    bits: NDArray[np.uint32],
    start: int,
    stop: int,
    mask: np.uint32,
    high_digit: int,
    counts: NDArray[np.uint32],
) -> None:
    """Count the low digits of those entries whose high digit is the one given."""
    for i in range(start, stop):
        key = _sort_key(bits[i], mask)
        if key >> 16 == high_digit:
            counts[key & 0xFFFF] += np.uint32(1)


@njit(cache=True, nogil=True)
def _write_positions(
    bits: NDArray[np.uint32],
    start: int,
    stop: int,
    mask: np.uint32,
    threshold: int,
    ties: int,
    out: NDArray[np.uint32],
) -> None:
    """Write the positions of all entries above the threshold and of the first `ties` entries equal to it."""
    n = 0
    for i in range(start, stop):
        key = _sort_key(bits[i], mask)
        if key >= threshold:
            if key == threshold:
                if ties == 0:
                    continue
                ties -= 1
            out[n] = np.uint32(i)
            n += 1
