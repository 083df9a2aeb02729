"""The header of a payload: fixed fields, varints, and the directory of sections."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from comask.errors import PayloadError
from comask.wire.update import MAX_DIM

MAGIC = b"\xc0MSK"
VERSION = 1
FLAG_LAYOUT = 1
FLAG_BUFFERS = 2
FINGERPRINT_BYTES = 8
CHECKSUM_BYTES = 4
VARINT_LIMIT = 2**63

_FIXED_BYTES = len(MAGIC) + 2
_VARINT_MAX_BYTES = 9
_CONTINUE = 0x80


@dataclass(frozen=True, slots=True)
class BlockHeader:
    """One block's entry in the directory."""

    index_coding: int
    num_kept: int
    index_bytes: int
    value_codings: tuple[int, ...]
    value_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Header:
    """Everything before the first section."""

    dim: int
    round: int
    fingerprint: bytes | None
    num_buffers: int
    blocks: tuple[BlockHeader, ...]

    @property
    def num_streams(self) -> int:
        """Number of streams in all blocks."""
        return sum(len(block.value_codings) for block in self.blocks)

    @property
    def section_bytes(self) -> int:
        """Number of bytes between the header and the checksum."""
        return 4 * self.num_buffers + sum(block.index_bytes + sum(block.value_bytes) for block in self.blocks)


def write_varint(value: int) -> bytes:
    """Return the LEB128 form of `value`, which is in `0..2**63 - 1`: seven bits a byte, the lowest first."""
    out = bytearray()
    while value >= _CONTINUE:
        out.append(value & 0x7F | _CONTINUE)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """Return the varint at `at` and the place after it.

    Raises:
        PayloadError: `truncated` or `varint`.
    """
    value = 0
    for count in range(_VARINT_MAX_BYTES):
        if at + count >= len(data):
            raise PayloadError(
                "truncated",
                f"A varint at byte {at} runs past the end of the header's room, byte {len(data)}.",
            )
        byte = data[at + count]
        value |= (byte & 0x7F) << (7 * count)
        if byte < _CONTINUE:
            if byte == 0 and count > 0:
                raise PayloadError(
                    "varint", f"The varint at byte {at} is written in more bytes than it needs."
                )
            return value, at + count + 1
    raise PayloadError("varint", f"The varint at byte {at} does not end within {_VARINT_MAX_BYTES} bytes.")


def write_header(header: Header) -> bytes:
    """Return the bytes of a header."""
    flags = (FLAG_LAYOUT if header.fingerprint else 0) | (FLAG_BUFFERS if header.num_buffers else 0)
    parts = [MAGIC, bytes((VERSION, flags)), write_varint(header.dim), write_varint(header.round)]
    if header.fingerprint:
        parts.append(header.fingerprint)
    if header.num_buffers:
        parts.append(write_varint(header.num_buffers))
    parts.append(write_varint(len(header.blocks)))
    for block in header.blocks:
        parts += [bytes((block.index_coding,)), write_varint(block.num_kept), write_varint(block.index_bytes)]
        parts.append(write_varint(len(block.value_codings)))
        for coding, length in zip(block.value_codings, block.value_bytes, strict=True):
            parts += [bytes((coding,)), write_varint(length)]
    return b"".join(parts)


def seal(body: bytes) -> bytes:
    """Return `body` followed by its checksum."""
    return body + zlib.crc32(body).to_bytes(CHECKSUM_BYTES, "little")


def read_header(payload: memoryview) -> tuple[Header, int]:
    """Check the frame and read the header.

    Args:
        payload: One payload, all of it, as bytes.

    Returns:
        The header, and the place of the first section. The sections are known to fill the payload exactly.

    Raises:
        PayloadError: For every rule that concerns the frame or the header alone.
    """
    if bytes(payload[: len(MAGIC)]) != MAGIC:
        raise PayloadError(
            "magic",
            f"A payload starts with {MAGIC.hex(' ')}, this starts with {bytes(payload[:4]).hex(' ')!r}.",
        )
    if len(payload) < _FIXED_BYTES + CHECKSUM_BYTES:
        raise PayloadError(
            "truncated",
            f"A payload has at least {_FIXED_BYTES + CHECKSUM_BYTES} bytes, this has {len(payload)}.",
        )
    if payload[len(MAGIC)] != VERSION:
        raise PayloadError(
            "version", f"The payload has version {payload[len(MAGIC)]}; this library reads version {VERSION}."
        )
    body = payload[:-CHECKSUM_BYTES]
    stated, computed = int.from_bytes(payload[-CHECKSUM_BYTES:], "little"), zlib.crc32(body)
    if stated != computed:
        raise PayloadError(
            "checksum", f"The checksum is {stated:08x}, the bytes before it give {computed:08x}."
        )
    header, at = _read_fields(body)
    end = at + header.section_bytes
    if end > len(body):
        raise PayloadError(
            "truncated", f"The sections end at byte {end}, the checksum starts at byte {len(body)}."
        )
    if end < len(body):
        raise PayloadError(
            "trailing", f"{len(body) - end} bytes stand between the last section and the checksum."
        )
    return header, at


def _read_fields(body: memoryview) -> tuple[Header, int]:
    flags = body[_FIXED_BYTES - 1]
    if flags & ~(FLAG_LAYOUT | FLAG_BUFFERS):
        raise PayloadError(
            "flags",
            f"The flags are {flags:#04x}; only the bits {FLAG_LAYOUT | FLAG_BUFFERS:#04x} have a meaning.",
        )
    dim, at = read_varint(body, _FIXED_BYTES)
    if not 1 <= dim <= MAX_DIM:
        raise PayloadError("dim", f"The dimension is {dim}; it must be in 1..{MAX_DIM}.")
    round_, at = read_varint(body, at)
    fingerprint = None
    if flags & FLAG_LAYOUT:
        fingerprint = bytes(body[at : at + FINGERPRINT_BYTES])
        at += FINGERPRINT_BYTES
        if at > len(body):
            raise PayloadError(
                "truncated",
                f"The layout fingerprint ends at byte {at}, the checksum starts at byte {len(body)}.",
            )
    num_buffers = 0
    if flags & FLAG_BUFFERS:
        num_buffers, at = read_varint(body, at)
        if num_buffers == 0:
            raise PayloadError("buffers", "The buffer flag is set and the buffer count is 0.")
    num_blocks, at = read_varint(body, at)
    blocks = []
    for _ in range(num_blocks):
        block, at = _read_block(body, at)
        blocks.append(block)
    return Header(dim, round_, fingerprint, num_buffers, tuple(blocks)), at


def _read_block(body: memoryview, at: int) -> tuple[BlockHeader, int]:
    index_coding, at = _read_byte(body, at)
    num_kept, at = read_varint(body, at)
    index_bytes, at = read_varint(body, at)
    num_streams, at = read_varint(body, at)
    codings, lengths = [], []
    for _ in range(num_streams):
        coding, at = _read_byte(body, at)
        length, at = read_varint(body, at)
        codings.append(coding)
        lengths.append(length)
    return BlockHeader(index_coding, num_kept, index_bytes, tuple(codings), tuple(lengths)), at


def _read_byte(body: memoryview, at: int) -> tuple[int, int]:
    if at >= len(body):
        raise PayloadError("truncated", f"The header runs past byte {len(body)}, where the checksum starts.")
    return body[at], at + 1
