"""Value codings of a few bits: block-scaled linear, logarithmic, sign and ternary. `docs/format/v1.md`, section 5.2 on."""

from __future__ import annotations

import struct
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError, NonFiniteError, PayloadError
from comask.kernels import quantise
from comask.kernels.rows import first_non_finite
from comask.wire.coding import Rounding, ValueCoding, Values
from comask.wire.logscale import fit_levels

_MODES = {"nearest": quantise.NEAREST, "stochastic": quantise.STOCHASTIC, "safe": quantise.SAFE}
_ALL_MODES = tuple(_MODES)
OCTAVE = 64
"""Steps of a logarithmic scale in a factor of two."""

_LOG_HEADER = 6


def linear(number: int, width: int) -> ValueCoding:
    """Return the block-scaled linear coding of `width` bits a value."""
    top = 2 ** (width - 1) - 1

    def encode(values: Values, rounding: Rounding) -> bytes:
        _refuse_non_finite(values, rounding)
        exact = np.empty(-(-values.size // quantise.BLOCK), np.float64)
        # Eight bits have no use for clipping, and stochastic rounding is unbiased only without it.
        quantise.block_scales(values, top, 1 if width == 8 or rounding.mode == "stochastic" else 7, exact)
        scales, head = _stored_scales(exact, rounding)
        codes = np.empty(values.size, np.uint8)
        quantise.linear_codes(values, scales, top, _MODES[rounding.mode], np.uint64(rounding.seed), codes)
        return head + _packed(codes, width)

    def decode(section: memoryview, out: Values) -> None:
        scales = _read_scales(section, out.size)
        codes = _unpacked(section[2 * scales.size :], width, out.size)
        if not quantise.linear_values(codes, scales, top, out):
            raise PayloadError(
                "value-code", f"A linear code of {width} bits is {-top - 1}, which stands for nothing."
            )

    return ValueCoding(number, _exactly(partial(_block_length, width)), encode, decode, _ALL_MODES)


def logarithmic(number: int, width: int) -> ValueCoding:
    """Return the coding of a sign and a magnitude among `2**(width - 1)` levels in geometric progression."""
    count = 2 ** (width - 1)

    def length(k: int) -> int:
        return _LOG_HEADER + (k * width + 7) // 8 if k else 0

    def encode(values: Values, rounding: Rounding) -> bytes:
        _refuse_non_finite(values, rounding)
        if values.size == 0:
            return b""
        # Stochastic rounding is unbiased only if nothing is clipped.
        greatest, step = fit_levels(np.abs(values), count, clip=rounding.mode != "stochastic")
        codes = np.empty(values.size, np.uint8)
        mode, seed = _MODES[rounding.mode], np.uint64(rounding.seed)
        quantise.level_codes(values, levels(greatest, step, count), mode, seed, codes)
        return _float32_bytes(greatest) + step.to_bytes(2, "little") + _packed(codes, width)

    def decode(section: memoryview, out: Values) -> None:
        if out.size == 0:
            return
        greatest = _read_scale(section)
        magnitudes = levels(greatest, int.from_bytes(section[4:6], "little"), count).astype(np.float32)
        signed = np.column_stack([magnitudes, -magnitudes]).ravel()  # by code: 2 m is +, 2 m + 1 is -
        out[:] = signed[_unpacked(section[_LOG_HEADER:], width, out.size)]

    return ValueCoding(number, _exactly(length), encode, decode, _ALL_MODES)


def sign(number: int) -> ValueCoding:
    """Return the coding of signs alone, with the mean magnitude of each block."""

    def encode(values: Values, rounding: Rounding) -> bytes:
        _refuse_non_finite(values, rounding)
        means = np.empty(-(-values.size // quantise.BLOCK), np.float64)
        quantise.block_means(values, means)
        _, head = _stored_scales(means, rounding)
        return head + _packed((values < 0).astype(np.uint8), 1)

    def decode(section: memoryview, out: Values) -> None:
        scales = _read_scales(section, out.size)
        codes = _unpacked(section[2 * scales.size :], 1, out.size)
        each = np.repeat(scales.astype(np.float32), quantise.BLOCK)[: out.size]
        out[:] = np.where(codes == 1, -each, each)

    return ValueCoding(number, _exactly(partial(_block_length, 1)), encode, decode)


def ternary(number: int) -> ValueCoding:
    """Return the coding of -1, 0 and 1 times one scale, five digits a byte."""

    def encode(values: Values, rounding: Rounding) -> bytes:
        _refuse_non_finite(values, rounding)
        if values.size == 0:
            return b""
        magnitudes = np.abs(values).astype(np.float64)
        # Two rounds of Lloyd's algorithm: the scale is the mean of what is nearer to it than to zero.
        scale = magnitudes.mean()
        for _ in range(2):
            above = magnitudes > scale / 2
            scale = magnitudes[above].mean() if above.any() else 0.0
        scale = np.float32(scale)
        digits = np.zeros(-(-values.size // 5) * 5, np.uint8)
        digits[: values.size] = np.where(magnitudes > np.float64(scale) / 2, np.where(values < 0, 2, 1), 0)
        return _float32_bytes(scale) + bytes(digits.reshape(-1, 5) @ _POWERS)

    def decode(section: memoryview, out: Values) -> None:
        if out.size == 0:
            return
        scale = _read_scale(section)
        packed = np.frombuffer(section[4:], np.uint8)
        if packed.max() >= 3**5:
            raise PayloadError(
                "value-code", f"A byte of five ternary digits is {packed.max()}, it must be below {3**5}."
            )
        digits = (packed[:, None] // _POWERS % 3).ravel()
        if digits[out.size :].any():
            raise PayloadError("value-padding", "Ternary digits are set after the last value.")
        out[:] = np.array([0, scale, -scale], np.float32)[digits[: out.size]]

    return ValueCoding(number, _exactly(lambda k: 4 + (k + 4) // 5 if k else 0), encode, decode)


_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)


def levels(greatest: np.float32, step: int, count: int) -> NDArray[np.float64]:
    """Return the magnitudes `greatest * 2**(-m * step / 64)` for m in 0..count-1, the same on every machine."""
    octaves, parts = np.divmod(np.arange(count) * step, OCTAVE)
    return np.ldexp(np.float64(greatest) * _fractions()[parts], -octaves.astype(np.int32))


@cache
def _fractions() -> NDArray[np.float64]:
    """Return 2**(-f / 64), correctly rounded: a platform's own exp2 may not be."""
    with localcontext(prec=40):
        return np.array([float(Decimal(2) ** (Decimal(-f) / OCTAVE)) for f in range(OCTAVE)])


def _block_length(width: int, k: int) -> int:
    return 2 * (-(-k // quantise.BLOCK)) + (k * width + 7) // 8


def _exactly(length: Callable[[int], int]) -> Callable[[int], tuple[int, int]]:
    return lambda k: (length(k), length(k))


def _stored_scales(scales: NDArray[np.float64], rounding: Rounding) -> tuple[NDArray[np.float64], bytes]:
    """Return the blocks' scales as the receiver will read them, and their bytes: bfloat16, rounded up."""
    single = scales.astype(np.float32)
    stored = ((single.view(np.uint32).astype(np.int64) + 0xFFFF) >> 16).astype(np.uint16)
    if stored.size and stored.max() >= 0x7F80:
        raise ConfigError(
            f"Stream {rounding.stream} holds {single.max()}, too large for a block's scale. Use float32 for it."
        )
    return _as_float64(stored), stored.astype("<u2").tobytes()


def _read_scales(section: memoryview, k: int) -> NDArray[np.float64]:
    stored = np.frombuffer(section[: 2 * -(-k // quantise.BLOCK)], "<u2")
    _refuse_scale(stored.size > 0 and int(stored.max()) >= 0x7F80)
    return _as_float64(stored)


def _read_scale(section: memoryview) -> np.float32:
    (stored,) = struct.unpack("<I", section[:4])
    _refuse_scale(stored >= 0x7F800000)
    return np.uint32(stored).view(np.float32)


def _as_float64(stored: NDArray[np.uint16]) -> NDArray[np.float64]:
    return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)


def _refuse_scale(
    refused: bool,
) -> None:  # decided on the bits: the cast of a signalling NaN raises a warning
    if refused:
        raise PayloadError("value-scale", "A scale is negative, infinite or NaN.")


def _refuse_non_finite(values: Values, rounding: Rounding) -> None:
    place = first_non_finite(values)
    if place >= 0:
        raise NonFiniteError(f"Stream {rounding.stream}", place, float(values[place]))


def _float32_bytes(number: np.float32) -> bytes:
    return struct.pack("<f", number)


def _packed(codes: NDArray[np.uint8], width: int) -> bytes:
    out = np.empty((codes.size * width + 7) // 8, np.uint8)
    quantise.pack(codes, width, out)
    return out.tobytes()


def _unpacked(data: memoryview, width: int, k: int) -> NDArray[np.uint8]:
    codes = np.empty(k, np.uint8)
    if not quantise.unpack(np.frombuffer(data, np.uint8), width, codes):
        raise PayloadError("value-padding", f"Bits are set after the last code of {width} bits.")
    return codes
