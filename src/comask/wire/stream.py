"""Updates too large to hold at once: a stream of payloads, each for the next span of the vector. `docs/format/v1.md`, section 10.

Positions in a stream are 64-bit: a payload's own positions count from the start of its span.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from comask.errors import ConfigError, PayloadError
from comask.wire.codec import Codec
from comask.wire.container import MAX_STREAMS, decode, encode
from comask.wire.header import CHECKSUM_BYTES, VARINT_LIMIT, read_header, read_varint, write_varint
from comask.wire.update import Update

STREAM_MAGIC = b"\xc0MSS\x01"
MAX_SPAN = 1 << 26
"""Positions in one span that `read_stream` accepts unless told otherwise: half a gigabyte for one stream of values."""


def write_stream(
    file: BinaryIO,
    parts: Iterable[Update],
    *,
    dim: int,
    codec: Codec | str = "exact",
    seed: int | None = None,
) -> int:
    """Write a vector's update span by span; never more than one span is in memory.

    Args:
        file: Opened for writing bytes.
        parts: The updates of consecutive spans, from position 0 on; `part.dim` is the span's length.
        dim: Length of the whole vector, below 2**63.
        codec: As for `encode`.
        seed: As for `encode`; each span takes the next number.

    Returns:
        The number of bytes written.

    Raises:
        ConfigError: If the spans do not add up to `dim`, and as `encode` does.
    """
    if not 1 <= dim < VARINT_LIMIT:
        raise ConfigError(f"dim must be in 1..2**63 - 1, got {dim}.")
    written = file.write(STREAM_MAGIC + write_varint(dim))
    at, chain = 0, 0
    for number, part in enumerate(parts):
        at += part.dim
        if at > dim:
            break
        payload = encode(part, codec, seed=None if seed is None else seed + number)
        chain = zlib.crc32(payload[-CHECKSUM_BYTES:], chain)
        written += file.write(write_varint(len(payload)) + payload)
    if at != dim:
        raise ConfigError(f"The parts cover {at} positions{' or more' if at > dim else ''}, dim is {dim}.")
    return written + file.write(b"\x00" + chain.to_bytes(CHECKSUM_BYTES, "little"))


def read_stream(
    file: BinaryIO, *, dim: int, max_span: int = MAX_SPAN, max_streams: int = MAX_STREAMS
) -> Iterator[tuple[int, Update]]:
    """Read what `write_stream` wrote; never more than one span is in memory.

    Spans are given out as they are read: whoever must have all or nothing keeps them apart until the iterator ends.

    Args:
        file: Opened for reading bytes.
        dim: Length of the receiver's vector.
        max_span: Refuse longer spans.
        max_streams: As for `decode`.

    Yields:
        The span's first position and its update.

    Raises:
        PayloadError: As `decode` does, and with rule `stream` for everything around the payloads.
    """
    if file.read(len(STREAM_MAGIC)) != STREAM_MAGIC:
        raise PayloadError("stream", f"A stream starts with {STREAM_MAGIC.hex(' ')}.")
    stated = _read_varint(file)
    if stated != dim:
        raise PayloadError("dim", f"The stream is for {stated} parameters, the receiver has {dim}.")
    at, chain = 0, 0
    while length := _read_varint(file):
        if length > _longest(max_span, max_streams):
            raise PayloadError(
                "stream", f"A payload of {length} bytes is longer than spans of {max_span} need."
            )
        payload = _read(file, length)
        span = read_header(memoryview(payload))[0].dim
        if span > min(max_span, dim - at):
            raise PayloadError(
                "stream", f"A span of {span} from {at} on; {max_span} are allowed and {dim - at} left."
            )
        yield at, decode(payload, dim=span, max_streams=max_streams)
        chain = zlib.crc32(payload[-CHECKSUM_BYTES:], chain)
        at += span
    if at != dim:
        raise PayloadError("stream", f"The stream ends after {at} of {dim} positions.")
    if _read(file, CHECKSUM_BYTES) != chain.to_bytes(CHECKSUM_BYTES, "little"):
        raise PayloadError(
            "stream", "The checksum of the payloads' checksums is wrong: payloads were lost or exchanged."
        )
    if file.read(1):
        raise PayloadError("stream", "Bytes stand after the end of the stream.")


def _longest(max_span: int, max_streams: int) -> int:
    # float32 values and 64-bit positions are the longest codings; buffers of a span are not expected to be longer.
    return 16 * max_span * max_streams + (1 << 16)


def _read_varint(file: BinaryIO) -> int:
    data = b""
    while not data or (data[-1] & 0x80 and len(data) < 9):
        data += _read(file, 1)
    return read_varint(memoryview(data), 0)[0]


def _read(file: BinaryIO, count: int) -> bytes:
    """Read exactly `count` bytes, without making room for more than the file has."""
    parts = []
    while count > 0:
        part = file.read(min(count, 1 << 20))
        if not part:
            raise PayloadError("stream", f"The stream ends {count} bytes too early.")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
