"""Value codings: how a stream's kept values are written. Sections "Value codings" of `docs/format/v1.md`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError, PayloadError
from comask.kernels import bits

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ValueCoding:
    """One row of `VALUE_CODINGS`.

    Attributes:
        number: What stands for it in a payload.
        encode: From one stream's values, shape `(k,)` and contiguous, to the section. The stream's number is for messages.
        decode: From the section and `k` to the values. It raises PayloadError for a section of the wrong length.
    """

    number: int
    encode: Callable[[Values, int], bytes]
    decode: Callable[[memoryview, int], Values]


def _encode_float32(values: Values, _stream: int) -> bytes:
    return values.astype("<f4", copy=False).tobytes()


def _decode_float32(section: memoryview, k: int) -> Values:
    _check_length(section, 4 * k, "float32")
    return np.frombuffer(section, "<f4").astype(np.float32)


def _encode_bfloat16(values: Values, stream: int) -> bytes:
    out = np.empty(values.size, np.uint16)
    _refuse_overflow(
        values, stream, bits.round_to_bfloat16(values.view(np.uint32), out), "bfloat16", "float32"
    )
    return out.astype("<u2", copy=False).tobytes()


def _decode_bfloat16(section: memoryview, k: int) -> Values:
    _check_length(section, 2 * k, "bfloat16")
    return (np.frombuffer(section, "<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)


def _encode_float16(values: Values, stream: int) -> bytes:
    with np.errstate(over="ignore", under="ignore"):
        out = values.astype("<f2")
    lost = np.isinf(out) & np.isfinite(values)
    _refuse_overflow(values, stream, int(lost.argmax()) if lost.any() else -1, "float16", "bfloat16")
    return out.tobytes()


def _decode_float16(section: memoryview, k: int) -> Values:
    _check_length(section, 2 * k, "float16")
    return np.frombuffer(section, "<f2").astype(np.float32)


def _refuse_overflow(values: Values, stream: int, place: int, coding: str, wider: str) -> None:
    # Not infinity, which would poison the sum at the server; not the largest number either, which would be wrong in silence.
    if place >= 0:
        raise ConfigError(
            f"Stream {stream} holds {values[place]} at entry {place}, too large for {coding}. Use {wider} for it."
        )


def _check_length(section: memoryview, needed: int, name: str) -> None:
    if len(section) != needed:
        raise PayloadError(
            "value-length", f"This {name} section must have {needed} bytes, it has {len(section)}."
        )


VALUE_CODINGS: Mapping[str, ValueCoding] = MappingProxyType(
    {
        "float32": ValueCoding(0, _encode_float32, _decode_float32),
        "bfloat16": ValueCoding(1, _encode_bfloat16, _decode_bfloat16),
        "float16": ValueCoding(2, _encode_float16, _decode_float16),
    }
)
"""The value codings, by name, in the order of their numbers."""
