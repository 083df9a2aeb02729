"""Values in a few bits: block-scaled linear, logarithmic, sign and ternary. `docs/format/v1.md`, section 5.2 on."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import cache, cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError, NonFiniteError, PayloadError
from comask.kernels import quantise
from comask.kernels.rows import first_non_finite
from comask.wire.coding import Rounding, Values
from comask.wire.logscale import fit_levels

_MODES = {"nearest": quantise.NEAREST, "stochastic": quantise.STOCHASTIC, "safe": quantise.SAFE}
_ALL_MODES = tuple(_MODES)
OCTAVE = 64
"""Steps of a logarithmic scale in a factor of two."""

_LOG_HEADER = 6
_POWERS = np.array([1, 3, 9, 27, 81], np.uint8)

Codes = NDArray[np.uint8]
Scales = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Quantiser:
    """From values to codes of a few bits and back.

    Attributes:
        digits: Binary digits of a code's magnitude.
        signed_zero: Whether the magnitude zero has a sign.
        head_bytes: From `k` to the bytes in front of the codes: the scales.
        packed_bytes: From `k` to the bytes of the codes side by side.
        quantise: From one stream's values to the head, and the codes as numbers.
        read_head: From the head and `k` to the scales, checked.
        restore: From the scales and the codes into an array of shape `(k,)`.
        pack: From codes to bytes.
        unpack: From bytes, as many as needed, and `k` to codes.
        modes: The modes of rounding.
        symbol_of: Shape `(256,)`, by code: twice the magnitude, plus one if negative.
    """

    digits: int
    signed_zero: bool
    head_bytes: Callable[[int], int]
    packed_bytes: Callable[[int], int]
    quantise: Callable[[Values, Rounding], tuple[bytes, Codes]]
    read_head: Callable[[memoryview, int], Scales]
    restore: Callable[[Scales, Codes, Values], None]
    pack: Callable[[Codes], bytes]
    unpack: Callable[[memoryview, int], Codes]
    symbol_of: NDArray[np.uint8]
    modes: tuple[str, ...] = _ALL_MODES

    @cached_property
    def code_of(self) -> NDArray[np.uint8]:
        """Shape `(256,)`: the code of each symbol; zero where there is none."""
        codes = np.zeros(256, np.uint8)
        codes[self.symbol_of[::-1]] = np.arange(
            255, -1, -1, dtype=np.uint8
        )  # the lowest code of a symbol is its own
        return codes

    @cached_property
    def hint_of(self) -> NDArray[np.uint8]:
        """Shape `(256,)`, by code: the highest three binary digits of the magnitude, plus eight if negative."""
        magnitude = self.symbol_of.astype(np.int64) >> 1
        return (magnitude >> max(self.digits - 3, 0) & 7 | (self.symbol_of & 1) << 3).astype(np.uint8)


def _linear(width: int) -> Quantiser:
    """Return the block-scaled linear quantiser of `width` bits a value."""
    top = 2 ** (width - 1) - 1

    def quantise_(values: Values, rounding: Rounding) -> tuple[bytes, Codes]:
        _refuse_non_finite(values, rounding)
        exact = np.empty(-(-values.size // quantise.BLOCK), np.float64)
        # Eight bits have no use for clipping, and stochastic rounding is unbiased only without it.
        quantise.block_scales(values, top, 1 if width == 8 or rounding.mode == "stochastic" else 7, exact)
        scales, head = _stored_scales(exact, rounding)
        codes = np.empty(values.size, np.uint8)
        quantise.linear_codes(values, scales, top, _MODES[rounding.mode], np.uint64(rounding.seed), codes)
        return head, codes

    def restore(scales: Scales, codes: Codes, out: Values) -> None:
        if not quantise.linear_values(codes, scales, top, out):
            raise PayloadError(
                "value-code", f"A linear code of {width} bits is {-top - 1}, which stands for nothing."
            )

    code = np.arange(256) % 2**width
    signed = np.where(code > top, code - 2**width, code)
    symbols = (2 * np.abs(signed) + (signed < 0)).astype(np.uint8)
    return _packable(width, _scale_bytes, quantise_, restore, symbols=symbols, read_head=_read_scales)


def _logarithmic(width: int) -> Quantiser:
    """Return the quantiser to a sign and a magnitude among `2**(width - 1)` levels in geometric progression."""
    count = 2 ** (width - 1)

    def quantise_(values: Values, rounding: Rounding) -> tuple[bytes, Codes]:
        _refuse_non_finite(values, rounding)
        codes = np.empty(values.size, np.uint8)
        if values.size == 0:
            return b"", codes
        # Stochastic rounding is unbiased only if nothing is clipped.
        greatest, step = fit_levels(np.abs(values), count, clip=rounding.mode != "stochastic")
        mode, seed = _MODES[rounding.mode], np.uint64(rounding.seed)
        quantise.level_codes(values, levels(greatest, step, count), mode, seed, codes)
        return _float32_bytes(greatest) + step.to_bytes(2, "little"), codes

    def read_head(head: memoryview, k: int) -> Scales:
        if k == 0:
            return np.empty(0, np.float32)
        greatest = _read_scale(head)
        magnitudes = levels(greatest, int.from_bytes(head[4:6], "little"), count).astype(np.float32)
        return np.column_stack([magnitudes, -magnitudes]).ravel()  # by code: 2 m is +, 2 m + 1 is -

    def restore(scales: Scales, codes: Codes, out: Values) -> None:
        quantise.look_up(scales, codes, out)

    symbols = np.arange(256, dtype=np.uint8)
    return _packable(
        width,
        lambda k: _LOG_HEADER if k else 0,
        quantise_,
        restore,
        symbols=symbols,
        read_head=read_head,
        signed_zero=True,
    )


def _sign() -> Quantiser:
    """Return the quantiser to signs alone, with the mean magnitude of each block."""

    def quantise_(values: Values, rounding: Rounding) -> tuple[bytes, Codes]:
        _refuse_non_finite(values, rounding)
        means = np.empty(-(-values.size // quantise.BLOCK), np.float64)
        quantise.block_means(values, means)
        _, head = _stored_scales(means, rounding)
        return head, (values < 0).astype(np.uint8)

    def restore(scales: Scales, codes: Codes, out: Values) -> None:
        each = np.repeat(scales.astype(np.float32), quantise.BLOCK)[: out.size]
        out[:] = np.where(codes == 1, -each, each)

    symbols = np.arange(256, dtype=np.uint8)
    return _packable(
        1,
        _scale_bytes,
        quantise_,
        restore,
        symbols=symbols,
        read_head=_read_scales,
        signed_zero=True,
        modes=("nearest",),
    )


def _ternary() -> Quantiser:
    """Return the quantiser to -1, 0 and 1 times one scale; five digits are packed to a byte."""

    def quantise_(values: Values, rounding: Rounding) -> tuple[bytes, Codes]:
        _refuse_non_finite(values, rounding)
        if values.size == 0:
            return b"", np.empty(0, np.uint8)
        magnitudes = np.abs(values).astype(np.float64)
        # Two rounds of Lloyd's algorithm: the scale is the mean of what is nearer to it than to zero.
        scale = magnitudes.mean()
        for _ in range(2):
            above = magnitudes > scale / 2
            scale = magnitudes[above].mean() if above.any() else 0.0
        scale = np.float32(scale)
        digits = np.where(magnitudes > np.float64(scale) / 2, np.where(values < 0, 2, 1), 0)
        return _float32_bytes(scale), digits.astype(np.uint8)

    def read_head(head: memoryview, k: int) -> Scales:
        scale = _read_scale(head) if k else np.float32(0)
        return np.array([0, scale, -scale], np.float32)

    def restore(scales: Scales, codes: Codes, out: Values) -> None:
        quantise.look_up(scales, codes, out)

    def pack(codes: Codes) -> bytes:
        digits = np.zeros(-(-codes.size // 5) * 5, np.uint8)
        digits[: codes.size] = codes
        return bytes(digits.reshape(-1, 5) @ _POWERS)

    def unpack(data: memoryview, k: int) -> Codes:
        packed = np.frombuffer(data, np.uint8)
        if k and packed.max() >= 3**5:
            raise PayloadError(
                "value-code", f"A byte of five ternary digits is {packed.max()}, it must be below {3**5}."
            )
        digits = (packed[:, None] // _POWERS % 3).ravel()
        if digits[k:].any():
            raise PayloadError("value-padding", "Ternary digits are set after the last value.")
        return digits[:k]

    symbols = np.zeros(256, np.uint8)
    symbols[1:3] = 2, 3
    return Quantiser(
        digits=1,
        signed_zero=False,
        head_bytes=lambda k: 4 if k else 0,
        packed_bytes=lambda k: -(-k // 5),
        quantise=quantise_,
        read_head=read_head,
        restore=restore,
        pack=pack,
        unpack=unpack,
        symbol_of=symbols,
        modes=("nearest",),
    )


def _packable(
    width: int,
    head_bytes: Callable[[int], int],
    quantise_: Callable[[Values, Rounding], tuple[bytes, Codes]],
    restore: Callable[[Scales, Codes, Values], None],
    *,
    read_head: Callable[[memoryview, int], Scales],
    symbols: NDArray[np.uint8],
    signed_zero: bool = False,
    modes: tuple[str, ...] = _ALL_MODES,
) -> Quantiser:
    """Return a quantiser whose codes are packed in `width` bits each."""

    def pack(codes: Codes) -> bytes:
        out = np.empty((codes.size * width + 7) // 8, np.uint8)
        quantise.pack(codes, width, out)
        return out.tobytes()

    def unpack(data: memoryview, k: int) -> Codes:
        codes = np.empty(k, np.uint8)
        if not quantise.unpack(np.frombuffer(data, np.uint8), width, codes):
            raise PayloadError("value-padding", f"Bits are set after the last code of {width} bits.")
        return codes

    def packed_bytes(k: int) -> int:
        return (k * width + 7) // 8

    return Quantiser(
        width - 1,
        signed_zero,
        head_bytes,
        packed_bytes,
        quantise_,
        read_head,
        restore,
        pack,
        unpack,
        symbols,
        modes,
    )


def levels(greatest: np.float32, step: int, count: int) -> NDArray[np.float64]:
    """Return the magnitudes `greatest * 2**(-m * step / 64)` for m in 0..count-1, the same on every machine."""
    octaves, parts = np.divmod(np.arange(count) * step, OCTAVE)
    return np.ldexp(np.float64(greatest) * _fractions()[parts], -octaves.astype(np.int32))


@cache
def _fractions() -> NDArray[np.float64]:
    """Return 2**(-f / 64), correctly rounded: a platform's own exp2 may not be."""
    with localcontext(prec=40):
        return np.array([float(Decimal(2) ** (Decimal(-f) / OCTAVE)) for f in range(OCTAVE)])


def _scale_bytes(k: int) -> int:
    return 2 * (-(-k // quantise.BLOCK))


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


QUANTISERS: Mapping[str, Quantiser] = MappingProxyType(
    {
        "linear8": _linear(8),
        "linear4": _linear(4),
        "linear2": _linear(2),
        "log8": _logarithmic(8),
        "log4": _logarithmic(4),
        "log3": _logarithmic(3),
        "log2": _logarithmic(2),
        "sign": _sign(),
        "ternary": _ternary(),
    }
)
"""The quantisers, by the name of the coding that packs their codes, in the order of its number."""
