"""Exact, deterministic top-k of a float32 vector.

A long vector is read only once. A sample tells a score that the k-th largest is very probably not below, and one that it is very
probably not above. One pass collects the scores from the first on, a few more than k. Those above the second are kept without
looking further; the k-th largest is searched among the rest only, and then one pass over the collected scores writes the positions. If
the sample was wrong (too few collected, too many, or too many above), the result comes from the slower way, and is the same.

The slower way, for short vectors and large k, is a radix selection on the scores' bits: one pass counts the high 16 bits of every
score, which brackets the k-th largest; one pass counts the low 16 bits of the scores in that bracket, which finds it
exactly; one pass writes the positions. Neither way depends on how ties happen to be ordered, and the vector is never moved.
"""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
from numba import njit
from numpy.typing import NDArray

from comask.errors import ConfigError, NonFiniteError
from comask.kernels.compress import LANES, keep_not_above, keep_places, keep_scores
from comask.kernels.intrinsics import int64, uint64
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
        chosen = _sampled_select(x, k, mask, what)
        if chosen is not None:
            return chosen
    return _radix_select(x.view(np.uint32), k, mask, what)


def _sampled_select(x: NDArray[np.float32], k: int, mask: np.uint32, what: str) -> NDArray[np.uint32] | None:
    """Select among the scores that a sample leaves over; None if the sample was wrong."""
    size = min(x.size // 16, _SAMPLE)
    sample = np.empty(size, np.float32)
    _take_sample(x.view(np.uint32), mask, sample.view(np.uint32))
    expected = size * k / x.size
    margin = 4 * math.sqrt(expected) + 8
    rank, sure = min(math.ceil(expected + margin), size), math.floor(expected - margin)
    places_of_bounds = [size - rank] + ([size - sure] if sure > 0 else [])
    sample.partition(places_of_bounds)
    low, high = sample[size - rank], sample[size - sure] if sure > 0 else np.float32(np.inf)
    parts = split(x.size)
    room = 2 * len(parts) * rank / size
    sizes = [min(hi - lo, int(room * (hi - lo))) + 2 * LANES for lo, hi in parts]
    all_places, all_scores = np.empty(sum(sizes), np.uint32), np.empty(sum(sizes), np.float32)
    edges = np.cumsum([0, *sizes]).tolist()
    places = [all_places[start:stop] for start, stop in pairwise(edges)]
    scores = [all_scores[start:stop] for start, stop in pairwise(edges)]
    magnitude = np.int32(_MAGNITUDE_BITS) if mask == _MAGNITUDE_BITS else np.int32(-1)
    counts = run(
        _collect,
        [(x, lo, hi, magnitude, low, *kept) for (lo, hi), *kept in zip(parts, places, scores, strict=True)],
    )
    if min(counts) < 0 or sum(counts) < k:
        return None
    places = [each[:count] for each, count in zip(places, counts, strict=True)]
    scores = [each[:count] for each, count in zip(scores, counts, strict=True)]
    middle = np.empty(sum(counts) + LANES, np.float32)
    left = 0
    for each in scores:
        left = _take_not_above(each, high, middle, left)
    rest = middle[:left]
    if (nan := _first_nan(places, scores)) >= 0:
        raise NonFiniteError(what, nan, float("nan"))
    wanted = k - (sum(counts) - rest.size)  # of the rest; the others are above it
    if not 0 < wanted <= rest.size:
        return None
    rest.partition(rest.size - wanted)
    threshold = rest[rest.size - wanted]
    ties = wanted - int((rest[rest.size - wanted :] > threshold).sum())
    n = 0
    for place, score in zip(places, scores, strict=True):
        # In place, as what is written never overtakes what is read: fresh memory costs as much as the whole pass.
        n, ties = _write_kept(score, place, threshold, ties, all_places, n)
    return all_places[:k]


def _first_nan(places: list[NDArray[np.uint32]], scores: list[NDArray[np.float32]]) -> int:
    for place, score in zip(places, scores, strict=True):
        if score.size and np.isnan(score.max()):
            return int(place[int(np.isnan(score).argmax())])
    return -1


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
def _take_sample(bits: NDArray[np.uint32], mask: np.uint32, out: NDArray[np.uint32]) -> None:
    """Take entries at multiples of the golden section: evenly spread, and out of step with the rows of any tensor."""
    for j in range(out.size):
        fraction = uint64(j) * uint64(2654435769) & uint64(0xFFFFFFFF)
        out[j] = bits[fraction * uint64(bits.size) >> uint64(32)] & mask


@njit(cache=True, nogil=True)
def _collect(
    x: NDArray[np.float32],
    start: int,
    stop: int,
    magnitude: np.int32,
    bound: np.float32,
    places: NDArray[np.uint32],
    scores: NDArray[np.float32],
) -> int:
    """Write the scores in `start..stop` that are not below the bound, and their positions; return how many, or -1 without room."""
    n = int64(0)
    last = places.size - LANES
    i = int64(start)
    while i + LANES <= stop:
        n = keep_scores(x, i, magnitude, bound, places, scores, n)
        if n > last:
            return -1
        i += LANES
    while i < stop:
        score = abs(x[i]) if magnitude >= 0 else x[i]
        if not score < bound:  # NaN is not below either
            places[n], scores[n] = np.uint32(i), score
            n += 1
        i += 1
    return n if n <= last else -1


@njit(cache=True, nogil=True)
def _take_not_above(scores: NDArray[np.float32], bound: np.float32, out: NDArray[np.float32], n: int) -> int:
    """Append the scores that are at most the bound to `out[n:]`; return how many are in `out`."""
    i = int64(0)
    kept = int64(n)
    while i + LANES <= scores.size:
        kept = keep_not_above(scores, i, bound, out, kept)
        i += LANES
    while i < scores.size:
        if scores[i] <= bound:
            out[kept] = scores[i]
            kept += 1
        i += 1
    return int(kept)


@njit(cache=True, nogil=True)
def _write_kept(
    scores: NDArray[np.float32],
    places: NDArray[np.uint32],
    threshold: np.float32,
    ties: int,
    out: NDArray[np.uint32],
    n: int,
) -> tuple[int, int]:
    """Append the positions of the scores above the threshold and of the first `ties` equal to it to `out[n:]`.

    Returns:
        The number of positions in `out`, which never exceeds k, and of the ties left.
    """
    i = int64(0)
    kept = int64(n)
    while i + LANES <= scores.size:
        equal = int64(0)
        for j in range(LANES):
            equal += scores[i + j] == threshold
        if equal > ties:
            break  # more equal ones than may be kept: one by one from here on
        kept = keep_places(scores, i, threshold, places, out, kept)
        ties -= equal
        i += LANES
    while i < scores.size:
        if scores[i] > threshold or (scores[i] == threshold and ties > 0):
            ties -= scores[i] == threshold
            out[kept] = places[i]
            kept += 1
        i += 1
    return kept, ties


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
