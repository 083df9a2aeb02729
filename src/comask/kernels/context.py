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

from comask.kernels.intrinsics import int64

LIMIT = 44 * 64
"""Logits are integers in units of 1/256, between -LIMIT and LIMIT (11 nats)."""

PROBABILITY_BITS = 22
_COUNT_BITS = 10
_CONTEXTS = 256 + 1024 + 2048
_INPUTS = 7
_WEIGHT_SETS = 3
_RATE_BITS = 12

OK, TRAILING, BAD_END = range(3)
"""What `decode` returns."""

Tables = tuple[NDArray[np.int32], NDArray[np.int16], NDArray[np.int32]]


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
    return squash.astype(np.int32), stretch.astype(np.int16), reciprocal.astype(np.int32)


@njit(inline="always")
def _level(logit: int) -> int:
    """Quantise a logit to 16 levels of half a nat, from -7.5 up."""
    return min(max((logit + 1920) >> 7, 0), 15)


@njit(cache=True, nogil=True)
def _code(
    decoding: bool,
    kept: NDArray[np.uint8],
    pieces: NDArray[np.int64],
    prior: int,
    source: NDArray[np.uint8],
    out: NDArray[np.uint8],
    squash: NDArray[np.int32],
    stretch: NDArray[np.int16],
    reciprocal: NDArray[np.int32],
) -> tuple[int, int]:
    """Code one segment: from `kept` to `out`, or from `source` to `kept`.

    Args:
        decoding: Which way.
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
    column_rate = np.empty(widest + 4, np.int64)
    state = np.full(_CONTEXTS, (prior << _COUNT_BITS) | 2, np.int64)
    w = np.empty(_WEIGHT_SETS * _INPUTS, np.int64)
    for s in range(0, w.size, _INPUTS):
        w[s] = w[s + 1] = 3 << 17
        w[s + 2] = w[s + 4] = w[s + 5] = w[s + 6] = 3 << 16
        w[s + 3] = 1 << 20
    base = int64(stretch[max(prior >> 6, 1)])
    low, high, code = int64(0), int64(0xFFFFFFFF), int64(0)
    n = 0
    if decoding:
        for i in range(4):
            code = (code << 8) | (int64(source[i]) if i < source.size else 0)
    first = 0
    for piece in range(pieces.shape[0]):
        length, columns = pieces[piece, 0], pieces[piece, 1]
        column, stride = pieces[piece, 2], pieces[piece, 3]
        column_rate[:] = prior
        row_start = first - column
        row, last_rate = 0, prior
        stop = first + length
        i = first
        while i < stop:
            row_stop = min(row_start + columns, stop)
            row_rate = (prior + last_rate) >> 1
            column_step = int64(reciprocal[min(row + 2, 255)])
            # Positions since the last one kept in this row, and binary digits in that number.
            run, run_digits = int64(0), int64(0)
            left, left2, up_left = int64(0), int64(0), int64(0)
            up = int64(kept[i - columns]) if i - columns >= first else int64(0)
            # A piece shorter than a row may still run over a row's end: its columns are then numbered from its start.
            origin = first if columns > length else row_start
            while i < row_stop:
                c = i - origin
                above = i - columns
                up_right = (
                    int64(kept[above + 1]) if above + 1 >= first and i + 1 < row_start + columns else int64(0)
                )
                up2 = int64(kept[above - columns]) if above - columns >= first else int64(0)
                near = max(first, row_start)
                side = int64(kept[i - stride]) if i - stride >= near else int64(0)
                side2 = int64(kept[i - 2 * stride]) if i - 2 * stride >= near else int64(0)

                rate = column_rate[c + 2]
                around = (
                    column_rate[c] + 3 * column_rate[c + 1] + 3 * column_rate[c + 3] + column_rate[c + 4]
                ) >> 3
                of_column = int64(stretch[max(rate >> 6, 1)])
                of_columns = int64(stretch[max(around >> 6, 1)])
                of_row = int64(stretch[max(row_rate >> 6, 1)])
                context0 = (
                    left
                    | left2 << 1
                    | up << 2
                    | up_left << 3
                    | up_right << 4
                    | up2 << 5
                    | side << 6
                    | side2 << 7
                )
                context1 = 256 + ((_level(of_columns) << 4 | _level(of_column)) << 2 | side << 1 | left)
                context2 = 1280 + ((_level(of_row) << 4 | run_digits) << 3 | side << 2 | up << 1 | left)
                state0, state1, state2 = state[context0], state[context1], state[context2]
                x0, x1, x2 = of_column - base, of_row - base, of_columns - base
                x4 = int64(stretch[max(state0 >> 16, 1)]) - base
                x5 = int64(stretch[max(state1 >> 16, 1)]) - base
                x6 = int64(stretch[max(state2 >> 16, 1)]) - base
                s = min(left + up + side, 2) * _INPUTS
                w0, w1, w2, w3, w4, w5, w6 = w[s], w[s + 1], w[s + 2], w[s + 3], w[s + 4], w[s + 5], w[s + 6]
                dot = w0 * x0 + w1 * x1 + w2 * x2 + w3 * base + w4 * x4 + w5 * x5 + w6 * x6
                p = int64(squash[min(max(dot >> 20, -LIMIT), LIMIT) + LIMIT])

                middle = low + ((high - low) * p >> 16)
                if decoding:
                    bit = int64(code <= middle)
                    kept[i] = bit
                else:
                    bit = int64(kept[i])
                if bit:
                    high = middle
                else:
                    low = middle + 1
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

                error = (bit << 16) - p
                half = 1 << (_RATE_BITS - 1)
                w[s] = w0 + ((error * x0 + half) >> _RATE_BITS)
                w[s + 1] = w1 + ((error * x1 + half) >> _RATE_BITS)
                w[s + 2] = w2 + ((error * x2 + half) >> _RATE_BITS)
                w[s + 3] = w3 + ((error * base + half) >> _RATE_BITS)
                w[s + 4] = w4 + ((error * x4 + half) >> _RATE_BITS)
                w[s + 5] = w5 + ((error * x5 + half) >> _RATE_BITS)
                w[s + 6] = w6 + ((error * x6 + half) >> _RATE_BITS)
                target = bit << PROBABILITY_BITS
                state[context0] = _observe(state0, target, reciprocal)
                state[context1] = _observe(state1, target, reciprocal)
                state[context2] = _observe(state2, target, reciprocal)
                column_rate[c + 2] = rate + ((target - rate) * column_step >> 16)
                row_rate += (target - row_rate) * int64(reciprocal[min(i - row_start + 15, 255)]) >> 16
                if bit:
                    run, run_digits = int64(0), int64(0)
                else:
                    run += 1
                    run_digits += run >> run_digits if run_digits < 15 else 0
                left2, left, up_left, up = left, bit, up, up_right
                i += 1
            last_rate = row_rate
            row += 1
            row_start += columns
        first = stop
    # The shortest ending: as few leading bytes of `high` as still lie above `low` when zeros follow.
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


@njit(inline="always")
def _observe(state: int, target: int, reciprocal: NDArray[np.int32]) -> int:
    """Move a context's probability towards what was seen, the slower the more it has seen."""
    count = state & 1023
    p = state >> _COUNT_BITS
    p += (target - p) * int64(reciprocal[count]) >> 16
    moved: int = p << _COUNT_BITS | min(count + 1, 255)
    return moved


def encode(kept: NDArray[np.uint8], pieces: NDArray[np.int64], prior: int) -> bytes | None:
    """Return the bytes of a segment, or None in the hypothetical case that they are longer than two bytes a position.

    Args:
        kept: Shape `(n,)`: 1 where a position is kept, else 0.
        pieces: As for `_code`.
        prior: The density of the segment in 2**-22, at least 64.
    """
    out = np.empty(2 * kept.size + 8, np.uint8)
    size, _ = _code(False, kept, pieces, prior, np.frombuffer(b"", np.uint8), out, *tables())
    return None if size < 0 else out[:size].tobytes()


def decode(source: NDArray[np.uint8], pieces: NDArray[np.int64], prior: int, kept: NDArray[np.uint8]) -> int:
    """Fill `kept` with what `encode` was given.

    Takes time and memory in the order of `kept.size`, whatever the bytes.

    Returns:
        `OK`, or what is wrong. `OK` means that `encode` writes exactly these bytes for what is now in `kept`.
    """
    size, wrong_end = _code(True, kept, pieces, prior, source, np.empty(0, np.uint8), *tables())
    if size != source.size:
        return TRAILING
    return BAD_END if wrong_end else OK
