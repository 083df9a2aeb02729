"""An adaptive model of quantised values with a binary arithmetic coder: the `-coded` value codings.

The kept values of a real update are far from independent: large changes of a weight come with large changes of its moments,
signs of streams go together, and magnitudes drift slowly along the tensors. A value's symbol is coded bit by bit, each bit
with five predictions from what is known of the values before it and of the other streams at its position, mixed as in
`context.py`. `docs/format/v1.md`, "coded symbols", is normative.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from comask.kernels.arithmetic import COUNT_BITS, PROBABILITY_BITS, finish, first_code, observe
from comask.kernels.context import BAD_END, LIMIT, OK, TRAILING, tables
from comask.kernels.intrinsics import int16, int64, uintp
from comask.kernels.mixing import LANES, learn

GROUP = 1 << 16
"""Values that are coded on their own."""

_MOST_SEEN = 30
_WEIGHT = 3 << 16
_CONTEXTS = 64 + 64 + 64 + 176 + 256
_SIGN_CONTEXTS = 4 + 4 + 256 + 32 + 256


@njit(forceinline=True)
def _code(
    decoding: bool,
    symbols: NDArray[np.uint8],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    digits: int,
    signed_zero: bool,
    source: NDArray[np.uint8],
    out: NDArray[np.uint8],
    squash: NDArray[np.uint16],
    stretch: NDArray[np.int16],
    reciprocal: NDArray[np.int32],
) -> tuple[int, int]:
    """Code one group: from `symbols` to `out`, or from `source` to `symbols`; see `encode` and `decode`."""
    nodes = 1 << digits
    shift = max(digits - 3, 0)
    signs = _CONTEXTS * nodes
    state = np.full(signs + _SIGN_CONTEXTS, 1 << (PROBABILITY_BITS - 1 + COUNT_BITS), np.uint32)
    w = np.zeros(nodes * LANES, np.int64)
    for s in range(0, w.size, LANES):
        w[s : s + 5] = _WEIGHT
    low, high, code = int64(0), int64(0xFFFFFFFF), int64(0)
    n = 0
    if decoding:
        code = first_code(source)
    # Of the values before: magnitude classes and their drifting mean, signs, and the hints at the last position.
    class1, class2, class3, mean = int64(0), int64(0), int64(0), int64(0)
    sign1, sign2, last_signs = int64(0), int64(0), int64(0)
    for t in range(symbols.size):
        symbol = int64(0) if decoding else int64(symbols[t])
        a, b = int64(first[t] & 7), int64(second[t] & 7)
        both = int64(first[t] >> 3) << 1 | int64(second[t] >> 3)
        c0 = (class1 << 3 | class2) << digits
        c1 = (64 + (a << 3 | b)) << digits
        c2 = (128 + (a << 3 | class1)) << digits
        c3 = (192 + ((class1 + class2 + class3) << 3 | b)) << digits
        c4 = (368 + ((mean >> 6) << 3 | a)) << digits
        node, magnitude = int64(1), int64(0)
        for step in range(digits + 1):
            if step == digits:  # after the magnitude, the sign
                magnitude = node - nodes
                if magnitude == 0 and not signed_zero:
                    break
                node = int64(0)
                c0 = signs + (sign1 << 1 | sign2)
                c1 = signs + 4 + both
                c2 = signs + 8 + (both << 6 | (magnitude >> shift) << 3 | a)
                c3 = signs + 264 + (both << 3 | last_signs << 1 | sign1)
                c4 = signs + 296 + (both << 6 | a << 3 | b)
            i0, i1, i2, i3, i4 = (
                uintp(c0 + node),
                uintp(c1 + node),
                uintp(c2 + node),
                uintp(c3 + node),
                uintp(c4 + node),
            )
            s0, s1, s2, s3, s4 = (
                int64(state[i0]),
                int64(state[i1]),
                int64(state[i2]),
                int64(state[i3]),
                int64(state[i4]),
            )
            x0 = stretch[uintp(max(s0 >> 16, 1))]
            x1 = stretch[uintp(max(s1 >> 16, 1))]
            x2 = stretch[uintp(max(s2 >> 16, 1))]
            x3 = stretch[uintp(max(s3 >> 16, 1))]
            x4 = stretch[uintp(max(s4 >> 16, 1))]
            at = node * LANES
            j = uintp(at)
            dot = (
                (w[j] * x0 + w[j + uintp(1)] * x1)
                + (w[j + uintp(2)] * x2 + w[j + uintp(3)] * x3)
                + w[j + uintp(4)] * x4
            )
            p = int64(squash[uintp(min(max(dot >> 20, -LIMIT), LIMIT) + LIMIT)])

            middle = low + ((high - low) * p >> 16)
            if decoding:
                one = code <= middle
            elif step < digits:
                one = (symbol >> (digits - step)) & 1 != 0
            else:
                one = symbol & 1 != 0
            # Four times the error and a twelve-bit shift are a ten-bit shift: values drift faster than masks.
            if one:
                bit, high = int64(1), middle
            else:
                bit, low = int64(0), middle + 1
            target = bit << PROBABILITY_BITS
            learn(w, at, ((bit << 16) - p) << 2, x0, x1, x2, x3, x4, int16(0), int16(0), int16(0))
            state[i0] = observe(s0, target, _MOST_SEEN, reciprocal)
            state[i1] = observe(s1, target, _MOST_SEEN, reciprocal)
            state[i2] = observe(s2, target, _MOST_SEEN, reciprocal)
            state[i3] = observe(s3, target, _MOST_SEEN, reciprocal)
            state[i4] = observe(s4, target, _MOST_SEEN, reciprocal)
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
            node = node << 1 | bit if step < digits else bit
        sign = node if magnitude or signed_zero else int64(0)
        if decoding:
            symbols[t] = magnitude << 1 | sign
        class3, class2, class1 = class2, class1, magnitude >> shift
        mean += ((class1 << 8) - mean) >> 3
        sign2, sign1, last_signs = sign1, sign, both
    return finish(decoding, low, high, code, n, out)


@njit(cache=True, nogil=True)
def _encode(
    symbols: NDArray[np.uint8],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    digits: int,
    signed_zero: bool,
    out: NDArray[np.uint8],
    squash: NDArray[np.uint16],
    stretch: NDArray[np.int16],
    reciprocal: NDArray[np.int32],
) -> int:
    return _code(
        False, symbols, first, second, digits, signed_zero, out[:0], out, squash, stretch, reciprocal
    )[0]


@njit(cache=True, nogil=True)
def _decode(
    symbols: NDArray[np.uint8],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    digits: int,
    signed_zero: bool,
    source: NDArray[np.uint8],
    squash: NDArray[np.uint16],
    stretch: NDArray[np.int16],
    reciprocal: NDArray[np.int32],
) -> tuple[int, int]:
    return _code(
        True, symbols, first, second, digits, signed_zero, source, symbols[:0], squash, stretch, reciprocal
    )


def encode(
    symbols: NDArray[np.uint8],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    digits: int,
    signed_zero: bool,
) -> bytes:
    """Return the bytes of a group of values.

    Args:
        symbols: Shape `(n,)`: twice the magnitude, plus one if negative.
        first: Shape `(n,)`: at the same positions, the hints of the stream before: the highest three binary digits of
            the magnitude, plus eight if negative.
        second: The same of the stream before that.
        digits: Binary digits of a magnitude, 0 to 7.
        signed_zero: Whether a symbol of magnitude zero has a sign.
    """
    out = np.empty(2 * (digits + 1) * symbols.size + 8, np.uint8)  # no bit costs more than two bytes
    size = _encode(symbols, first, second, digits, signed_zero, out, *tables())
    return out[:size].tobytes()


def decode(
    source: NDArray[np.uint8],
    first: NDArray[np.uint8],
    second: NDArray[np.uint8],
    digits: int,
    signed_zero: bool,
    symbols: NDArray[np.uint8],
) -> int:
    """Fill `symbols` with what `encode` was given.

    Takes time in the order of `symbols.size`, whatever the bytes, and every symbol is one that `encode` accepts.

    Returns:
        `OK`, `TRAILING` or `BAD_END`, as for `context.decode`. `OK` means that `encode` writes exactly these bytes.
    """
    size, wrong_end = _decode(symbols, first, second, digits, signed_zero, source, *tables())
    if size != source.size:
        return TRAILING
    return BAD_END if wrong_end else OK
