"""How many bytes an upload has, without making one: section 11 of `docs/theory.md`.

Valid for masks whose positions look random. Real masks cluster, and the codec's `context` coding then needs less: what is
predicted here is then too large, never too small by more than the codec's distance from the entropy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from comask.errors import ConfigError
from comask.theory.constants import require_count, require_density, require_non_negative, require_positive
from comask.theory.entropy import mask_floor_bits

_FIXED_BYTES = 6 + 4  # magic, version and flags; checksum
_LIKELY_ROUND = 100  # the round's number takes one byte up to 127


@dataclass(frozen=True, slots=True)
class Message:
    """The shape of what a device sends in a round.

    Attributes:
        streams: How many vectors travel: 3 for W, M, V.
        masks: 0 if all positions are sent, 1 if one mask serves all streams, `streams` if each has its own.
        value_bits: Bits of a kept value, averaged over the streams.
    """

    streams: int
    masks: int
    value_bits: float = 32.0

    def __post_init__(self) -> None:
        require_count("streams", self.streams)
        require_positive("value_bits", self.value_bits)
        if self.masks not in {0, 1, self.streams}:
            raise ConfigError(f"masks must be 0, 1 or streams = {self.streams}, got {self.masks}.")


MESSAGES: Mapping[str, Message] = MappingProxyType(
    {
        "fedsgd": Message(1, 0),
        "fedavg": Message(1, 0),
        "fedadam": Message(3, 0),
        "fedadam-top": Message(3, 3),
        "fedadam-ssm": Message(3, 1),
        "fairness-top": Message(3, 1),
    }
)
"""The shapes of the method and of the baselines that the paper compares with, by algorithm name, at 32 bits a value."""

VALUE_BITS: Mapping[str, float] = MappingProxyType(
    {"exact": 32.0, "half": 16.0, "compact": (4.0625 + 4 + 4) / 3, "extreme": 2.0}
)
"""Bits of a kept value by codec preset, averaged over three streams, at full width: entropy coding of values (`compact`, `extreme`)
can only shorten them. Scales are included (16 bits for 256 values of a linear coding); the few bytes that a stream needs once are not."""

SizeOf = Callable[[Message, int, int], float]
"""From a message, d and k to the bytes of one upload: `upload_bytes`, or a measurement."""


def kept_positions(dim: int, density: float) -> int:
    """Return k of equation (46): the density times d, rounded, at least 1."""
    require_count("dim", dim)
    require_density("density", density)
    return max(1, round(density * dim))


def mask_bytes(dim: int, num_kept: int) -> float:
    """Return the bytes of one mask: the smaller of the entropy floor (42) plus 0.3 % plus 2 bytes, and a bitmap.

    The 0.3 % and 2 bytes are what adaptive coders cost above the floor on uniform masks of 1000 to 3 million positions.
    """
    if num_kept == dim:
        return 0.0
    return min(math.ceil(dim / 8), 1.003 * mask_floor_bits(dim, num_kept) / 8 + 2)


def upload_bytes(message: Message, dim: int, num_kept: int, *, num_buffers: int = 0) -> float:
    """Predict the length of one payload of format version 1: equation (46).

    Args:
        message: Its shape.
        dim: Number of weights.
        num_kept: Positions kept in every stream; ignored by a dense message.
        num_buffers: Numbers sent densely beside the streams.

    Returns:
        Bytes, within 2 % of the codec's on uniform masks from about 100 kept positions on (`compact` and `extreme`, whose
        values are short: from about 1000 on), with every value at its full width.
    """
    if not 1 <= num_kept <= dim:
        raise ConfigError(f"num_kept must be in 1..{dim}, got {num_kept}.")
    kept = dim if message.masks == 0 else num_kept
    blocks = max(message.masks, 1)
    index = mask_bytes(dim, kept)
    value = kept * message.value_bits / 8
    block = 2 + _varint(kept) + _varint(index)
    header = (
        _varint(dim) + _varint(_LIKELY_ROUND) + 1 + blocks * block + message.streams * (1 + _varint(value))
    )
    return _FIXED_BYTES + header + 4 * num_buffers + blocks * index + message.streams * value


def density_for_budget(
    message: Message, dim: int, budget: float, *, size: SizeOf = upload_bytes
) -> float | None:
    """Return the largest density whose upload has at most `budget` bytes, equation (47), or None if no upload is that small.

    A dense message has density 1 or None.
    """
    require_positive("budget", budget)
    if size(message, dim, dim) <= budget:
        return 1.0
    if message.masks == 0 or size(message, dim, 1) > budget:
        return None
    low, high = 1, dim  # low fits, high does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(message, dim, middle) <= budget else (low, middle)
    return low / dim


def break_even_bandwidth(dense_bytes: float, sparse_bytes: float, seconds: float) -> float:
    """Return the uplink, in bits a second, below which `seconds` spent on compression are earned back: equation (48).

    Args:
        dense_bytes: Length of the upload that needs no such work.
        sparse_bytes: Length of the compressed upload.
        seconds: Time that selecting, encoding and decoding take beyond the dense upload's.

    Returns:
        0 if compression saves nothing, infinity if it costs no time.
    """
    require_non_negative("seconds", seconds)
    saved = 8 * max(0.0, dense_bytes - sparse_bytes)
    if saved == 0:
        return 0.0
    return math.inf if seconds == 0 else saved / seconds


def _varint(value: float) -> int:
    """Bytes of a number written seven bits a byte."""
    return max(1, -(-math.ceil(value).bit_length() // 7))
