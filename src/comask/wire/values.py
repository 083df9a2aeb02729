"""Value codings: how a stream's kept values are written. Sections "Value codings" of `docs/format/v1.md`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from comask.errors import ConfigError
from comask.kernels import bits
from comask.wire.coding import Beside, Rounding, ValueCoding, Values
from comask.wire.quantised import QUANTISERS
from comask.wire.symbols import coded, packed


def _two_bytes(k: int) -> tuple[int, int]:
    return 2 * k, 2 * k


def _four_bytes(k: int) -> tuple[int, int]:
    return 4 * k, 4 * k


def _encode_float32(values: Values, _rounding: Rounding, beside: Beside) -> bytes:
    beside.add(None)
    return values.astype("<f4", copy=False).tobytes()


def _decode_float32(section: memoryview, out: Values, beside: Beside) -> None:
    beside.add(None)
    out[:] = np.frombuffer(section, "<f4")


def _encode_bfloat16(values: Values, rounding: Rounding, beside: Beside) -> bytes:
    beside.add(None)
    out = np.empty(values.size, np.uint16)
    overflow = bits.round_to_bfloat16(values.view(np.uint32), out)
    _refuse_overflow(values, rounding.stream, overflow, "bfloat16", "float32")
    return out.astype("<u2", copy=False).tobytes()


def _decode_bfloat16(section: memoryview, out: Values, beside: Beside) -> None:
    beside.add(None)
    np.left_shift(np.frombuffer(section, "<u2"), 16, out=out.view(np.uint32), dtype=np.uint32)


def _encode_float16(values: Values, rounding: Rounding, beside: Beside) -> bytes:
    beside.add(None)
    with np.errstate(over="ignore", under="ignore"):
        out = values.astype("<f2")
    lost = np.isinf(out) & np.isfinite(values)
    _refuse_overflow(values, rounding.stream, int(lost.argmax()) if lost.any() else -1, "float16", "bfloat16")
    return out.tobytes()


def _decode_float16(section: memoryview, out: Values, beside: Beside) -> None:
    beside.add(None)
    with np.errstate(invalid="ignore"):  # a signalling NaN is for the receiver to refuse, not for a warning
        out[:] = np.frombuffer(section, "<f2")


def _refuse_overflow(values: Values, stream: int, place: int, coding: str, wider: str) -> None:
    # Not infinity, which would poison the sum at the server; not the largest number either, which would be wrong in silence.
    if place >= 0:
        raise ConfigError(
            f"Stream {stream} holds {values[place]} at entry {place}, too large for {coding}. Use {wider} for it."
        )


VALUE_CODINGS: Mapping[str, ValueCoding] = MappingProxyType(
    {
        "float32": ValueCoding(0, _four_bytes, _encode_float32, _decode_float32),
        "bfloat16": ValueCoding(1, _two_bytes, _encode_bfloat16, _decode_bfloat16),
        "float16": ValueCoding(2, _two_bytes, _encode_float16, _decode_float16),
        **{name: packed(number, name, each) for number, (name, each) in enumerate(QUANTISERS.items(), 3)},
        **{
            f"{name}-coded": coded(number, each) for number, (name, each) in enumerate(QUANTISERS.items(), 19)
        },
    }
)
"""The value codings, by name, in the order of their numbers."""
