"""Gap coding of strictly increasing positions: the index coding `rice`.

The positions are turned into gaps (how many positions are skipped before the next kept one), which are geometrically
distributed when positions are kept at random. For a geometric source Golomb's codes are the optimal symbol codes
(Golomb 1966; Gallager and van Voorhis 1975). Rice's subset has moduli `2**j` only, 2.4 % above the entropy at density
0.2; with `3 * 2**j` as well, the loss stays below 2 % at every density, and the arithmetic stays shifts.

Layout of the bits: see `docs/format/v1.md`, "rice". Bits are numbered from the least significant bit of the first byte.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from comask.kernels.intrinsics import int64, trailing_zeros, uint64, uintp

CHUNK = 256
"""Gaps that share one parameter."""

PARAMETER_BITS = 6
MAX_PARAMETER = 62
"""Parameter 0 is modulus 1; odd `p` is modulus `2**((p + 1) / 2)`; even `p` is modulus `3 * 2**(p / 2 - 1)`."""

OK, TRUNCATED, BAD_PARAMETER, OUT_OF_RANGE, TRAILING, BAD_PADDING = range(6)
"""What `decode` returns."""

_WINDOW = 57
"""Bits that a window of eight bytes holds at any bit offset."""

_PADDING = 24
"""Zero bytes after the codes while they are read: a gap looks at most 2 * 57 bits beyond the end before it is refused."""


@njit(inline="always")
def _split_parameter(parameter: int) -> tuple[int, bool]:
    """Return (low bits of the remainder, whether a ternary digit stands before them)."""
    ternary = parameter > 0 and parameter & 1 == 0
    return ((parameter + 1) >> 1) - int64(ternary), ternary


@njit(cache=True, nogil=True)
def _chunk_bits(indices: NDArray[np.uint32], start: int, stop: int, previous: int, parameter: int) -> int:
    """Return the bits of the gaps `start..stop` under a parameter; `previous` is the position before them, or -1."""
    shift, ternary = _split_parameter(int64(parameter))
    bits = (stop - start) * (1 + shift)
    for j in range(start, stop):
        position = int64(indices[j])
        high = (position - previous - 1) >> shift
        if ternary:
            quotient = high // 3
            bits += quotient + 1 + int64(high != 3 * quotient)
        else:
            bits += high
        previous = position
    return bits


@njit(cache=True, nogil=True)
def plan(indices: NDArray[np.uint32], previous: int, parameters: NDArray[np.uint8]) -> int:
    """Choose the parameter of every chunk.

    Args:
        indices: Shape `(n,)`, strictly increasing, all above `previous`.
        previous: The position kept before `indices[0]`, or -1.
        parameters: Shape `(ceil(n / CHUNK),)`, filled here.

    Returns:
        The exact number of bits that `encode` writes.
    """
    total = 0
    for chunk in range(parameters.size):
        start = chunk * CHUNK
        stop = min(start + CHUNK, indices.size)
        last = int64(indices[stop - 1])
        mean = (last - previous - (stop - start)) / (stop - start)
        # A geometric source of this mean wants a modulus near ln 2 times the mean. The cost has one minimum in the
        # parameter, give or take a bit, so walk downhill from there.
        best, modulus = 0, 1.0
        while best < MAX_PARAMETER and modulus < 0.69 * mean:
            best += 1
            shift, ternary = _split_parameter(int64(best))
            modulus = (3.0 if ternary else 1.0) * 2.0**shift
        cost = _chunk_bits(indices, start, stop, previous, best)
        for step in (-1, 1):
            while 0 <= best + step <= MAX_PARAMETER:
                other = _chunk_bits(indices, start, stop, previous, best + step)
                if other >= cost:
                    break
                best, cost = best + step, other
        parameters[chunk] = best
        total += cost + PARAMETER_BITS
        previous = last
    return total


@njit(cache=True, nogil=True)
def encode(
    indices: NDArray[np.uint32], previous: int, parameters: NDArray[np.uint8], out: NDArray[np.uint8]
) -> int:
    """Write the chunks that `plan` has planned.

    Args:
        indices: As for `plan`.
        previous: As for `plan`.
        parameters: What `plan` has filled.
        out: Shape `(ceil(bits / 8),)`.

    Returns:
        The number of bytes written; -1 if `out` is too short.
    """
    size = out.size
    n = 0
    pending, held = (
        int64(0),
        int64(0),
    )  # bits not yet written, the oldest lowest; fewer than 8 between codes
    shift, ternary = int64(0), False
    for j in range(indices.size):
        if j % CHUNK == 0:
            parameter = int64(parameters[j // CHUNK])
            shift, ternary = _split_parameter(parameter)
            pending |= parameter << held
            held += PARAMETER_BITS
        position = int64(indices[j])
        gap = position - previous - 1
        previous = position
        tail = gap & ((int64(1) << shift) - 1)
        tail_bits = shift
        quotient = gap >> shift
        if ternary:
            high = quotient
            quotient = high // 3
            digit = high - 3 * quotient
            if digit == 0:
                tail, tail_bits = tail << 1, tail_bits + 1
            else:
                tail, tail_bits = (tail << 2) | (2 * digit - 1), tail_bits + 2
        # Unary: as many zeros as the quotient, then a one.
        while quotient >= 8 or held >= 8:
            if n == size:
                return -1
            out[n] = np.uint8(pending & 0xFF)
            n += 1
            pending >>= 8
            if held >= 8:
                held -= 8
            else:
                quotient -= 8 - held
                held = int64(0)
        held += quotient
        pending |= ((tail << 1) | 1) << held
        held += tail_bits + 1
    while held > 0:
        if n == size:
            return -1
        out[n] = np.uint8(pending & 0xFF)
        n += 1
        pending >>= 8
        held -= 8
    return n


@njit(forceinline=True)
def _window(padded: NDArray[np.uint8], position: int) -> int:
    """Return at least `_WINDOW` bits from a bit position on, at most `_PADDING - 8` bytes beyond the end of the codes.

    Straight code without a loop: otherwise numba counts references to the array at each call.
    """
    first = uintp(position >> 3)
    value = (  # compilers make one load of these
        uint64(padded[first])
        | uint64(padded[first + uintp(1)]) << uint64(8)
        | uint64(padded[first + uintp(2)]) << uint64(16)
        | uint64(padded[first + uintp(3)]) << uint64(24)
        | uint64(padded[first + uintp(4)]) << uint64(32)
        | uint64(padded[first + uintp(5)]) << uint64(40)
        | uint64(padded[first + uintp(6)]) << uint64(48)
        | uint64(padded[first + uintp(7)]) << uint64(56)
    )
    window: int = int64(value >> uint64(position & 7))
    return window


@njit(cache=True, nogil=True)
def decode(data: NDArray[np.uint8], dim: int, out: NDArray[np.uint32]) -> int:
    """Read the positions of one group, counted from the group's first possible position.

    Takes time in the order of `out.size + data.size`, whatever the bytes.

    Args:
        data: The bytes of the group.
        dim: Every position must be below it.
        out: Shape `(n,)`, filled here.

    Returns:
        `OK`, or what is wrong; then `out` holds nothing of use.
    """
    end = int64(data.size) * 8
    padded = np.zeros(data.size + _PADDING, np.uint8)
    padded[: data.size] = data
    at, last = int64(0), int64(-1)
    for start in range(0, out.size, CHUNK):
        parameter = _window(padded, at) & ((1 << PARAMETER_BITS) - 1)
        at += PARAMETER_BITS
        if parameter > MAX_PARAMETER:
            return BAD_PARAMETER
        shift, ternary = _split_parameter(parameter)
        chunk = out[start : start + CHUNK]
        # Two loops, so that neither asks for each gap what is the same for all.
        if ternary:
            status, at, last = _decode_chunk(padded, at, end, last, dim, shift, True, chunk)
        else:
            status, at, last = _decode_chunk(padded, at, end, last, dim, shift, False, chunk)
        if status != OK:
            return int(status)
    if (at + 7) >> 3 != data.size:
        return TRAILING
    if at < end and _window(padded, at) != 0:
        return BAD_PADDING
    return OK


@njit(forceinline=True)
def _decode_chunk(
    padded: NDArray[np.uint8],
    at: int,
    end: int,
    last: int,
    dim: int,
    shift: int,
    ternary: bool,
    out: NDArray[np.uint32],
) -> tuple[int, int, int]:
    """Read the positions of a chunk from bit `at` on; return a status, the bit after them and the last position."""
    limit = int64(dim) >> shift  # a larger quotient is out of range, and must not overflow the product
    mask = (int64(1) << shift) - 1
    for j in range(out.size):
        quotient = int64(0)
        window = _window(padded, at)
        zeros = trailing_zeros(window)
        while zeros >= _WINDOW:
            quotient += _WINDOW
            at += _WINDOW
            if at >= end:
                return TRUNCATED, at, last
            window = _window(padded, at)
            zeros = trailing_zeros(window)
        quotient += zeros
        if quotient > limit:
            return OUT_OF_RANGE, at, last
        at += zeros + 1
        # Nearly always the rest of the code is in the same window.
        window = window >> (zeros + 1) if zeros + shift + 3 <= _WINDOW else _window(padded, at)
        if ternary:
            more = window & 1
            quotient = 3 * quotient + (more + (window >> 1 & more))
            window >>= 1 + more
            at += 1 + more
        last += (quotient << shift) + (window & mask) + 1
        at += shift
        if at > end:
            return TRUNCATED, at, last
        if last >= dim:
            return OUT_OF_RANGE, at, last
        out[uintp(j)] = np.uint32(last)
    return OK, at, last


@njit(cache=True, nogil=True)
def shift_positions(positions: NDArray[np.uint32], by: int) -> None:
    """Add `by` to positions that have room for it."""
    for j in range(positions.size):
        positions[j] += np.uint32(by)
