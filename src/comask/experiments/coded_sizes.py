"""Bytes of an upload in any codec, without making one: what `comask.theory.upload_bytes` says of `auto`, for every coding.

Exact for headers and for values at their full width, which the entropy coding of values can only shorten; positions are those of a mask without structure, in expectation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from comask.kernels import golomb
from comask.theory import MESSAGES, Message, kept_positions, mask_bytes, mask_floor_bits, upload_bytes
from comask.theory.sizes import SizeOf
from comask.wire import CODECS, INDEX_CODINGS, VALUE_CODINGS, Codec
from comask.wire.codec import AUTO
from comask.wire.context import ALWAYS_TRIED_DIM
from comask.wire.header import FINGERPRINT_BYTES
from comask.wire.indices import GROUP

_GROUP_LENGTH_BYTES = 4  # before every group of a rice section but one
_CHUNK = 4096  # positions that chunk12 counts together


def _golomb_bits(density: float) -> float:
    """Expected bits of one gap between kept positions, in the best of the Golomb codes of moduli `2**j` and `3 * 2**j`."""

    def bits(shift: int, ternary: bool) -> float:
        # A gap is geometric. Divided by the modulus in unary, the rest as a digit below 3 (one bit or two) and plain bits.
        below = math.pow(1 - density, 2**shift)  # P(gap >= 2**shift)
        modulus = below**3 if ternary else below
        digit = 1 + 1 - (1 - below) / (1 - modulus) if ternary else 0
        return 1 + shift + modulus / (1 - modulus) + digit

    return min(bits(shift, ternary) for shift in range(32) for ternary in (False, True))


def _rice_bytes(dim: int, k: int) -> float:
    gaps = k * (_golomb_bits(k / dim) + golomb.PARAMETER_BITS / golomb.CHUNK) / 8 if k < dim else k / 8
    return gaps + _GROUP_LENGTH_BYTES * (-(-k // GROUP) - 1)


_INDEX_BYTES: Mapping[str, Callable[[int, int], float]] = MappingProxyType(
    {
        "dense": lambda dim, k: 0.0 if k == dim else math.inf,
        "bitmap": lambda dim, _: -(-dim // 8),
        "rice": _rice_bytes,
        "context": lambda dim, k: 1.003 * mask_floor_bits(dim, k) / 8 + 2,
        "fixed": lambda dim, k: -(-k * (dim - 1).bit_length() // 8),
        "coo32": lambda _, k: 4 * k,
        "coo64": lambda _, k: 8 * k,
        "shaped": lambda dim, k: 1.003 * mask_floor_bits(dim, k) / 8 + 8,
        "chunk12": lambda dim, k: 2 * -(-dim // _CHUNK) + -(-12 * k // 8),
    }
)


def index_coding(codec: Codec, dim: int, num_kept: int) -> str:
    """Return the index coding that `codec` uses for a mask without structure: for `auto`, the smallest of those it tries."""
    if codec.indices != AUTO:
        return codec.indices
    # Large masks without structure do not pass the trial of `context`.
    tried = [
        name
        for name, coding in INDEX_CODINGS.items()
        if dim <= coding.max_auto_dim and (name not in {"context", "shaped"} or dim <= ALWAYS_TRIED_DIM)
    ]
    return min(tried, key=lambda name: _INDEX_BYTES[name](dim, num_kept))


def size_in(codec: Codec, *, num_buffers: int = 0) -> SizeOf:
    """Return a function from a message, d and k to the bytes of its upload in a codec, layout's fingerprint included.

    Args:
        codec: Its codings; the message's own `value_bits` are not looked at.
        num_buffers: Numbers that are sent densely beside the streams.
    """

    def size(message: Message, dim: int, num_kept: int) -> float:
        kept = num_kept if message.masks else dim
        coded = replace(message, value_bits=_value_bits(codec, message.streams, kept))
        total = upload_bytes(coded, dim, kept, num_buffers=num_buffers) + FINGERPRINT_BYTES
        if message.masks == 0:
            return total
        index = _INDEX_BYTES[index_coding(codec, dim, kept)](dim, kept)
        return total + message.masks * (index - mask_bytes(dim, kept))

    return size


def predicted_bytes(algorithm: str, codec: str, dim: int, density: float, *, num_buffers: int = 0) -> float:
    """Return the expected length of one payload: within 2 % of the codec's for masks without structure, values not entropy coded.

    Args:
        algorithm: One of `comask.theory.MESSAGES`.
        codec: One of `comask.wire.CODECS`.
        dim: Length of the flat vector.
        density: Fraction kept by sparse methods, in (0, 1].
        num_buffers: Numbers that are sent densely beside the streams.
    """
    return size_in(CODECS[codec], num_buffers=num_buffers)(
        MESSAGES[algorithm], dim, kept_positions(dim, density)
    )


def _value_bits(codec: Codec, streams: int, num_kept: int) -> float:
    """Return the bits of a kept value, scales included, averaged over the streams."""
    lengths = [VALUE_CODINGS[codec.value_coding(stream)].bounds(num_kept)[1] for stream in range(streams)]
    return 8 * sum(lengths) / (streams * num_kept)
