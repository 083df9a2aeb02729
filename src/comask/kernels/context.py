"""An adaptive context model with a binary arithmetic coder: the index coding `context`.

Every position is one binary decision, kept or not, coded with a probability that is learnt from the positions before it. Kept
positions cluster: a weight changes much where its input was active and its output was wrong, so that masks have busy
rows, busy columns and busy neighbourhoods. Seven predictions of the probability (of the column, of the row, of columns
nearby, of the whole mask, and of three tables of contexts) are mixed in the logistic domain, with weights that follow the
gradient of the code length (the method of M. Mahoney's PAQ, "Adaptive weighing of context models", 2005).

Everything is integer arithmetic, so that every machine codes the same bits. `docs/format/v1.md`, "context", is normative.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
from numba import njit
from numpy.typing import NDArray

from comask.kernels.arithmetic import COUNT_BITS, PROBABILITY_BITS, finish, first_code, observe
from comask.kernels.intrinsics import int16, int64, uintp
from comask.kernels.mixing import LANES, learn

LIMIT = 44 * 64
"""Logits are integers in units of 1/256, between -LIMIT and LIMIT (11 nats)."""

_CONTEXTS = 256 + 1024 + 2048
_WEIGHT_SETS = 3
_MOST_SEEN = 255
_ONE = 1 << PROBABILITY_BITS

OK, TRAILING, BAD_END = range(3)
"""What `decode` returns."""

Tables = tuple[NDArray[np.uint16], NDArray[np.int16], NDArray[np.int32]]


@cache
def tables() -> Tables:
    """Return the constants of the model.

    Returns:
        `squash`, shape (2 * LIMIT + 1,): the probability in 1/65536 of each logit from -LIMIT. `stretch`, shape (65536,):
        the least logit whose probability is not below. `reciprocal`, shape (256,): the adaptation rate after n
        observations, in 1/65536.
    """
    knots = [min(max(round(65536 / (1 + math.exp(-j / 4))), 1), 65535) for j in range(-44, 46)]
    logits = np.arange(-LIMIT, LIMIT + 1)
    knot, part = np.divmod(logits + LIMIT, 64)
    at = np.array(knots)
    squash = at[knot] + ((at[knot + 1] - at[knot]) * part >> 6)
    stretch = np.minimum(np.searchsorted(squash, np.arange(65536)), 2 * LIMIT) - LIMIT
    reciprocal = 131072 // (2 * np.arange(256) + 3)
    return squash.astype(np.uint16), stretch.astype(np.int16), reciprocal.astype(np.int32)


@njit(cache=True, nogil=True)
def _fill_tables(
    stretch: NDArray[np.int16], base: int, logit: NDArray[np.int16], level: NDArray[np.uint8]
) -> None:
    """Fill in what depends on a segment's density: logits relative to it by probability, and levels by relative logit.

    A level is one of 16, half a nat each, from -7.5 up. The index of `level` is the relative logit plus `LIMIT + base`.
    """
    for p in range(logit.size):
        logit[p] = stretch[max(p, 1)] - base
    for x in range(level.size):
        level[x] = min(max((x - LIMIT + 1920) >> 7, 0), 15)


@njit(forceinline=True)
def _look_above(
    kept: NDArray[np.uint8],
    first: int,
    start: int,
    count: int,
    columns: int,
    end: int,
    out: NDArray[np.uint8],
) -> None:
    """Write what is known of the two rows above: bit 2 up, 3 up and left, 4 up and right, 5 two rows up.

    Args:
        kept: The decisions so far.
        first: The piece's first position.
        start: The first position of the row in the piece.
        count: Positions of the row in the piece.
        columns: How far apart rows are.
        end: The row's end, in the piece or beyond.
        out: Shape `(count,)` or longer.
    """
    out[:count] = 0
    above = start - columns
    known = max(first - above, 0)
    for t in range(known, count):
        out[t] = kept[uintp(above + t)] << 2
    for t in range(known + 1, count):
        out[t] |= kept[uintp(above + t - 1)] << 3
    for t in range(max(known - 1, 0), min(count, end - 1 - start)):
        out[t] |= kept[uintp(above + t + 1)] << 4
    for t in range(max(first - above + columns, 0), count):
        out[t] |= kept[uintp(above - columns + t)] << 5


@njit(forceinline=True)
def _code(
    decoding: bool,
    kept: NDArray[np.uint8],
    pieces: NDArray[np.int64],
    prior: int,
    source: NDArray[np.uint8],
    out: NDArray[np.uint8],
    squash: NDArray[np.uint16],
    stretch: NDArray[np.int16],
    reciprocal: NDArray[np.int32],
) -> tuple[int, int]:
    """Code one segment: from `kept` to `out`, or from `source` to `kept`.

    Args:
        decoding: Which way; a constant wherever this is called, so that each way is compiled on its own.
        kept: Shape `(n,)`: 1 where a position is kept.
        pieces: Shape `(p, 4)`: the parts of tensors in the segment, in order: length, columns, the first entry's
            column, stride.
        prior: The density of the segment in 2**-22.
        source: When decoding, the coded bytes.
        out: When encoding, room for them.
        squash: From `tables`, as the next two.
        stretch: As above.
        reciprocal: As above.

    Returns:
        When encoding, the number of bytes written (-1 if `out` is too short) and 0. When decoding, the number of bytes that
        the encoder would have written, and 0 if the last of them are as it would have written them.
    """
    widest = 0
    for piece in range(pieces.shape[0]):
        widest = max(widest, min(pieces[piece, 0], pieces[piece, 1]))
    base = int16(stretch[max(prior >> 6, 1)])
    logit, level = np.empty(1 << 16, np.int16), np.empty(2 * LIMIT + 1, np.uint8)
    _fill_tables(stretch, base, logit, level)
    level_of = int64(base) + LIMIT
    column_rate = np.empty(widest + 4, np.int32)
    # What is known of a row before it is coded: the decisions above, and the rates of the two columns to the right.
    above, right = np.empty(widest, np.uint8), np.empty(widest, np.int32)
    state = np.full(_CONTEXTS, (prior << COUNT_BITS) | 2, np.uint32)
    w = np.zeros(_WEIGHT_SETS * LANES, np.int64)
    for s in range(0, w.size, LANES):
        w[s] = w[s + 1] = 3 << 17
        w[s + 2] = w[s + 4] = w[s + 5] = w[s + 6] = 3 << 16
        w[s + 3] = 1 << 20
    low, high, code = int64(0), int64(0xFFFFFFFF), int64(0)
    n = 0
    if decoding:
        code = first_code(source)
    first = 0
    for piece in range(pieces.shape[0]):
        length, columns = pieces[piece, 0], pieces[piece, 1]
        column, stride = pieces[piece, 2], pieces[piece, 3]
        near = stride <= 32  # the decisions of the last 64 positions are at hand
        column_rate[: min(length, columns) + 4] = prior  # no more: there may be many short pieces
        row_start = first - column
        row, last_rate = 0, prior
        stop = first + length
        start = first
        while start < stop:
            row_stop = min(row_start + columns, stop)
            count = row_stop - start
            # A piece shorter than a row may still run over a row's end: its columns are then numbered from its start.
            slot = start - first if columns > length else start - row_start
            _look_above(kept, first, start, count, columns, row_start + columns, above)
            for t in range(count):
                right[t] = 3 * column_rate[uintp(slot + t + 3)] + column_rate[uintp(slot + t + 4)]
            left_rate, left2_rate = int64(column_rate[slot + 1]), int64(column_rate[slot])
            row_rate = (prior + last_rate) >> 1
            column_step = int64(reciprocal[min(row + 2, 255)])
            row_age = start - row_start + 15
            # The row's decisions, the last one lowest; positions since the last one kept, and binary digits in that number.
            history, run, digits = int64(0), int64(0), int64(0)
            for t in range(count):
                if near:
                    side = history >> (stride - 1) & 1
                    side2 = history >> (2 * stride - 1) & 1
                else:
                    side = int64(kept[uintp(start + t - stride)]) if t >= stride else int64(0)
                    side2 = int64(kept[uintp(start + t - 2 * stride)]) if t >= 2 * stride else int64(0)
                left = history & 1
                over = int64(above[uintp(t)])
                up = over >> 2 & 1

                rate = int64(column_rate[uintp(slot + t + 2)])
                around = (left2_rate + 3 * left_rate + int64(right[uintp(t)])) >> 3
                x0, x1, x2 = logit[uintp(rate >> 6)], logit[uintp(row_rate >> 6)], logit[uintp(around >> 6)]
                of_column = int64(level[uintp(x0 + level_of)])
                of_row = int64(level[uintp(x1 + level_of)])
                of_columns = int64(level[uintp(x2 + level_of)])
                context0 = uintp((history & 3) | over | side << 6 | side2 << 7)
                context1 = uintp(256 + (of_columns << 6 | of_column << 2 | side << 1 | left))
                context2 = uintp(1280 + (of_row << 7 | digits << 3 | side << 2 | up << 1 | left))
                state0, state1, state2 = (
                    int64(state[context0]),
                    int64(state[context1]),
                    int64(state[context2]),
                )
                x4, x5, x6 = (
                    logit[uintp(state0 >> 16)],
                    logit[uintp(state1 >> 16)],
                    logit[uintp(state2 >> 16)],
                )
                s = min(left + up + side, 2) * LANES
                j = uintp(s)
                dot = (
                    (w[j] * x0 + w[j + uintp(1)] * x1) + (w[j + uintp(2)] * x2 + w[j + uintp(3)] * base)
                ) + ((w[j + uintp(4)] * x4 + w[j + uintp(5)] * x5) + w[j + uintp(6)] * x6)
                p = int64(squash[uintp(min(max(dot >> 20, -LIMIT), LIMIT) + LIMIT)])

                middle = low + ((high - low) * p >> 16)
                # Written out for both decisions: the processor guesses the decision and need not wait for it.
                if code <= middle if decoding else kept[uintp(start + t)] != 0:
                    high = middle
                    learn(w, s, 65536 - p, x0, x1, x2, base, x4, x5, x6, int16(0))
                    state[context0] = observe(state0, _ONE, _MOST_SEEN, reciprocal)
                    state[context1] = observe(state1, _ONE, _MOST_SEEN, reciprocal)
                    state[context2] = observe(state2, _ONE, _MOST_SEEN, reciprocal)
                    rate += (_ONE - rate) * column_step >> 16
                    row_rate += (_ONE - row_rate) * int64(reciprocal[uintp(min(t + row_age, 255))]) >> 16
                    history = history << 1 | 1
                    run, digits = int64(0), int64(0)
                    if decoding:
                        kept[uintp(start + t)] = 1
                else:
                    low = middle + 1
                    learn(w, s, -p, x0, x1, x2, base, x4, x5, x6, int16(0))
                    state[context0] = observe(state0, 0, _MOST_SEEN, reciprocal)
                    state[context1] = observe(state1, 0, _MOST_SEEN, reciprocal)
                    state[context2] = observe(state2, 0, _MOST_SEEN, reciprocal)
                    rate += -rate * column_step >> 16
                    row_rate += -row_rate * int64(reciprocal[uintp(min(t + row_age, 255))]) >> 16
                    history <<= 1
                    run += 1
                    digits += run >> digits if digits < 15 else 0
                    if decoding:
                        kept[uintp(start + t)] = 0
                column_rate[uintp(slot + t + 2)] = rate
                left2_rate, left_rate = left_rate, rate
                while (low ^ high) < 1 << 24:
                    if decoding:
                        code = (code << 8 & 0xFFFFFFFF) | (int64(source[n + 4]) if n + 4 < source.size else 0)
                    elif n < out.size:
                        out[n] = high >> 24
                    else:
                        return -1, 0
                    n += 1
                    low = low << 8 & 0xFFFFFFFF
                    high = (high << 8 & 0xFFFFFFFF) | 255
            last_rate = row_rate
            row += 1
            row_start += columns
            start = row_stop
        first = stop
    return finish(decoding, low, high, code, n, out)


@njit(cache=True, nogil=True)
def _encode(
    kept: NDArray[np.uint8],
    pieces: NDArray[np.int64],
    prior: int,
    out: NDArray[np.uint8],
    squash: NDArray[np.uint16],
    stretch: NDArray[np.int16],
    reciprocal: NDArray[np.int32],
) -> int:
    return _code(False, kept, pieces, prior, out[:0], out, squash, stretch, reciprocal)[0]


@njit(cache=True, nogil=True)
def _decode(
    kept: NDArray[np.uint8],
    pieces: NDArray[np.int64],
    prior: int,
    source: NDArray[np.uint8],
    squash: NDArray[np.uint16],
    stretch: NDArray[np.int16],
    reciprocal: NDArray[np.int32],
) -> tuple[int, int]:
    return _code(True, kept, pieces, prior, source, kept[:0], squash, stretch, reciprocal)


def encode(kept: NDArray[np.uint8], pieces: NDArray[np.int64], prior: int) -> bytes | None:
    """Return the bytes of a segment, or None in the hypothetical case that they are longer than two bytes a position.

    Args:
        kept: Shape `(n,)`: 1 where a position is kept, else 0.
        pieces: As for `_code`.
        prior: The density of the segment in 2**-22, at least 64.
    """
    out = np.empty(2 * kept.size + 8, np.uint8)
    size = _encode(kept, pieces, prior, out, *tables())
    return None if size < 0 else out[:size].tobytes()


def decode(source: NDArray[np.uint8], pieces: NDArray[np.int64], prior: int, kept: NDArray[np.uint8]) -> int:
    """Fill `kept` with what `encode` was given.

    Takes time and memory in the order of `kept.size`, whatever the bytes.

    Returns:
        `OK`, or what is wrong. `OK` means that `encode` writes exactly these bytes for what is now in `kept`.
    """
    size, wrong_end = _decode(kept, pieces, prior, source, *tables())
    if size != source.size:
        return TRAILING
    return BAD_END if wrong_end else OK
