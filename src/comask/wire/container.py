"""Updates to bytes and back: `encode`, `decode`, `inspect`. The format is described in `docs/format/v1.md`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError, PayloadError, UnknownNameError
from comask.kernels import bits, threads
from comask.wire.codec import AUTO, Codec, get_codec
from comask.wire.coding import Beside, Known, Prepared, Rounding, ValueCoding, Values, check_length
from comask.wire.header import VARINT_LIMIT, BlockHeader, Header, read_header, seal, write_header
from comask.wire.indices import INDEX_CODINGS
from comask.wire.update import Block, ParamLayout, Update
from comask.wire.values import VALUE_CODINGS

MAX_STREAMS = 16
"""How many blocks, and how many streams in them, `decode` accepts unless told otherwise."""

_MIN_THREADED = 1 << 16
"""From this many values on, streams that do not depend on each other are coded on threads."""

_STREAM_STEP = 0xD1342543DE82EF95  # any large odd number: keeps the streams' random numbers apart


def encode(
    update: Update,
    codec: Codec | str = "exact",
    *,
    layout: ParamLayout | None = None,
    seed: int | None = None,
) -> bytes:
    """Turn an update into a payload.

    The same arguments give the same bytes on every machine.

    Args:
        update: The update. Its float32 values may be anything, NaN included, as far as the value coding can hold them.
        codec: A `Codec`, or the name of a preset.
        layout: Names and shapes of the tensors in the flat vector. If given, the payload carries its fingerprint, and
            only a receiver with the same layout can decode it. It also tells the `context` coding what a row is.
        seed: Any integer, for codecs that round stochastically. It should differ from payload to payload, as
            `derive_seed(root, "rounding", round, client)` does.

    Returns:
        The payload. A block that keeps every position is sent as dense, and comes back with `indices=None`.

    Raises:
        UnknownNameError: If the codec names a coding that does not exist.
        ConfigError: If the update's positions are not strictly increasing and below its dimension, if the layout has
            another dimension, if a value is too large for its coding, or if a mode of rounding lacks its seed or is not
            one of the coding's.
        NonFiniteError: If a quantised stream holds NaN or infinity.
    """
    codec = get_codec(codec)
    if layout is not None and layout.dim != update.dim:
        raise ConfigError(f"layout has {layout.dim} entries, the update has {update.dim}.")
    if not 0 <= update.round < VARINT_LIMIT:
        raise ConfigError(f"Update.round must be in 0..2**63 - 1, got {update.round}.")
    sections = [update.buffers.astype("<f4", copy=False).tobytes()]
    known = Known(update.dim, layout)
    headers = []
    first_stream = 0
    for block in update.blocks:
        coding, prepared = _prepare_indices(block, known, codec)
        streams = range(first_stream, first_stream + block.num_streams)
        numbers, values = _encode_values(block, codec, [_rounding(codec, stream, seed) for stream in streams])
        lengths = tuple(map(len, values))
        headers.append(BlockHeader(coding, block.num_kept, prepared.size, numbers, lengths))
        sections += [prepared.write(), *values]
        first_stream = streams.stop
    fingerprint = None if layout is None else layout.fingerprint
    header = Header(update.dim, update.round, fingerprint, update.buffers.size, tuple(headers))
    return seal(b"".join([write_header(header), *sections]))


def decode(
    payload: bytes | bytearray | memoryview,
    *,
    dim: int,
    layout: ParamLayout | None = None,
    max_streams: int = MAX_STREAMS,
) -> Update:
    """Turn a payload into an update, or refuse it.

    Whatever the bytes, this returns a valid update or raises PayloadError. It allocates at most
    `8 * dim * (max_streams + 2)` bytes plus a small multiple of the payload's length, and takes time in proportion.

    Args:
        payload: The bytes of one payload, all of them.
        dim: The length of the receiver's flat vector.
        layout: The receiver's layout: needed for payloads that carry a fingerprint.
        max_streams: Refuse payloads with more blocks, or more streams, than this.

    Returns:
        The update. Its arrays are its own. Values are as sent: a receiver that must not add NaN has to look.

    Raises:
        PayloadError: If the bytes break a rule of the format; `.rule` names it.
        ConfigError: If `layout` does not have `dim` entries.
    """
    if layout is not None and layout.dim != dim:
        raise ConfigError(f"layout has {layout.dim} entries, dim is {dim}.")
    data = memoryview(payload).cast("B").toreadonly()  # one type of array, so that kernels compile once
    header, at = read_header(data)
    _check_receiver(header, dim, layout, max_streams)
    buffers = np.frombuffer(data[at : at + 4 * header.num_buffers], "<f4").astype(np.float32)
    at += 4 * header.num_buffers
    blocks = []
    for block in header.blocks:
        blocks.append(_decode_block(block, data[at:], Known(dim, layout)))
        at += block.index_bytes + sum(block.value_bytes)
    return Update(dim, tuple(blocks), buffers, header.round)


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """What one block of a payload is made of.

    Attributes:
        indices: The index coding's name.
        num_kept: How many positions it keeps.
        mask_bytes: Length of the index section.
        values: The value codings' names, one a stream.
        value_bytes: Length of each value section.
    """

    indices: str
    num_kept: int
    mask_bytes: int
    values: tuple[str, ...]
    value_bytes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class PayloadInfo:
    """What a payload is made of. The four byte counts sum to `total_bytes`.

    Attributes:
        round: The round it belongs to.
        dim: Length of the flat vector.
        fingerprint: The layout's fingerprint, or None.
        blocks: The blocks, in order.
        mask_bytes: Bytes that say which positions are kept.
        value_bytes: Bytes that hold the kept values.
        buffer_bytes: Bytes that hold buffers.
        overhead_bytes: Header and checksum.
        total_bytes: The payload's length.
    """

    round: int
    dim: int
    fingerprint: bytes | None
    blocks: tuple[BlockInfo, ...]
    mask_bytes: int
    value_bytes: int
    buffer_bytes: int
    overhead_bytes: int
    total_bytes: int


def inspect(payload: bytes | bytearray | memoryview) -> PayloadInfo:
    """Say what a payload is made of, without decoding its sections.

    Raises:
        PayloadError: If the frame or the header breaks a rule. The sections are not looked into.
    """
    data = memoryview(payload).cast("B")
    header, _ = read_header(data)
    blocks = tuple(
        BlockInfo(
            _by_number(INDEX_CODINGS, block.index_coding, "index-coding")[0],
            block.num_kept,
            block.index_bytes,
            tuple(_by_number(VALUE_CODINGS, number, "value-coding")[0] for number in block.value_codings),
            block.value_bytes,
        )
        for block in header.blocks
    )
    return PayloadInfo(
        round=header.round,
        dim=header.dim,
        fingerprint=header.fingerprint,
        blocks=blocks,
        mask_bytes=sum(block.mask_bytes for block in blocks),
        value_bytes=sum(sum(block.value_bytes) for block in blocks),
        buffer_bytes=4 * header.num_buffers,
        overhead_bytes=len(data) - header.section_bytes,
        total_bytes=len(data),
    )


class _Coding(Protocol):
    @property
    def number(self) -> int: ...


_Result = TypeVar("_Result")
_AnyCoding = TypeVar("_AnyCoding", bound=_Coding)


def _look_up(table: Mapping[str, _AnyCoding], name: str, kind: str) -> _AnyCoding:
    if name not in table:
        raise UnknownNameError(kind, name, table)
    return table[name]


def _by_number(table: Mapping[str, _AnyCoding], number: int, rule: str) -> tuple[str, _AnyCoding]:
    for name, coding in table.items():
        if coding.number == number:
            return name, coding
    numbers = [coding.number for coding in table.values()]
    raise PayloadError(rule, f"There is no {rule.replace('-', ' ')} number {number}; there are {numbers}.")


def _rounding(codec: Codec, stream: int, seed: int | None) -> Rounding:
    mode, coding = codec.rounding_mode(stream), codec.value_coding(stream)
    allowed = _look_up(VALUE_CODINGS, coding, "value coding").modes
    if mode not in allowed:
        modes = ", ".join(allowed)
        raise ConfigError(f"Value coding {coding!r} cannot round {mode!r}; it has: {modes}.")
    if mode != "stochastic":
        return Rounding(stream, mode)
    if seed is None:
        raise ConfigError(f"Codec {codec.name!r} rounds stochastically: encode needs a seed.")
    return Rounding(stream, mode, (seed + stream * _STREAM_STEP) % 2**64)


def _prepare_indices(block: Block, known: Known, codec: Codec) -> tuple[int, Prepared]:
    """Return the number of the coding to use, and the section."""
    if block.indices is None:
        return INDEX_CODINGS["dense"].number, Prepared(0, bytes)
    indices = np.ascontiguousarray(block.indices)
    place = bits.first_misplaced(indices, known.dim)
    if place >= 0:
        raise ConfigError(
            f"indices[{place}] is {indices[place]}; indices must be strictly increasing and below {known.dim}."
        )
    if codec.indices == AUTO:
        codings = [
            coding
            for coding in INDEX_CODINGS.values()
            if known.dim <= coding.max_auto_dim and coding.promising(indices, known)
        ]
    else:
        codings = [_look_up(INDEX_CODINGS, codec.indices, "index coding")]
    choices = [
        (coding.number, prepared)
        for coding in codings
        if (prepared := coding.prepare(indices, known)) is not None
    ]
    if not choices:
        raise ConfigError(
            f"Index coding {codec.indices!r} cannot express {indices.size} positions of {known.dim}."
        )
    return min(choices, key=lambda choice: (choice[1].size, choice[0]))


def _encode_values(
    block: Block, codec: Codec, roundings: list[Rounding]
) -> tuple[tuple[int, ...], list[bytes]]:
    """Return the numbers of the value codings to use, and the sections."""
    named = [VALUE_CODINGS[codec.value_coding(rounding.stream)] for rounding in roundings]
    beside = Beside(wanted=codec.entropy or any(coding.uses_beside for coding in named))
    rows = [np.ascontiguousarray(row) for row in block.values]
    calls: list[tuple[object, ...]] = [
        (coding, row, rounding, beside, codec.entropy)
        for coding, row, rounding in zip(named, rows, roundings, strict=True)
    ]
    coded = _for_each_stream(
        _encode_stream, calls, threaded=not beside.wanted and block.num_kept >= _MIN_THREADED
    )
    return tuple(number for number, _ in coded), [section for _, section in coded]


def _encode_stream(
    coding: ValueCoding, values: Values, rounding: Rounding, beside: Beside, entropy: bool
) -> tuple[int, bytes]:
    """Return the number of the coding to use, and the section."""
    if entropy and coding.entropy_coded is not None:
        modelled = VALUE_CODINGS[coding.entropy_coded]
        section = modelled.encode(values, rounding, beside)
        if len(section) < coding.bounds(values.size)[0]:
            return modelled.number, section
        beside.withdraw()
    return coding.number, coding.encode(values, rounding, beside)


def _decode_stream(coding: ValueCoding, section: memoryview, out: Values, beside: Beside) -> None:
    coding.decode(section, out, beside)


def _for_each_stream(
    function: Callable[..., _Result], calls: list[tuple[object, ...]], *, threaded: bool
) -> list[_Result]:
    return threads.run(function, calls) if threaded else [function(*args) for args in calls]


def _check_receiver(header: Header, dim: int, layout: ParamLayout | None, max_streams: int) -> None:
    if header.dim != dim:
        raise PayloadError("dim", f"The payload is for {header.dim} parameters, the receiver has {dim}.")
    if header.fingerprint is not None:
        if layout is None:
            raise PayloadError(
                "layout", "The payload was coded with a layout, and decode was called without one."
            )
        if layout.fingerprint != header.fingerprint:
            raise PayloadError(
                "layout",
                f"The payload was coded with layout {header.fingerprint.hex()}, the receiver's is {layout.fingerprint.hex()}.",
            )
    if max(len(header.blocks), header.num_streams) > max_streams:
        raise PayloadError(
            "streams",
            f"The payload has {header.num_streams} streams in {len(header.blocks)} blocks, the receiver allows {max_streams}.",
        )


def _decode_block(header: BlockHeader, sections: memoryview, known: Known) -> Block:
    if header.num_kept > known.dim:
        raise PayloadError("kept", f"A block keeps {header.num_kept} of {known.dim} positions.")
    _, coding = _by_number(INDEX_CODINGS, header.index_coding, "index-coding")
    codings = [_by_number(VALUE_CODINGS, number, "value-coding") for number in header.value_codings]
    for (name, each), length in zip(codings, header.value_bytes, strict=True):
        check_length(each, name, length, header.num_kept)
    indices = coding.decode(sections[: header.index_bytes], header.num_kept, known)
    values: NDArray[np.float32] = np.empty((len(codings), header.num_kept), np.float32)
    at = header.index_bytes
    beside = Beside(wanted=any(each.uses_beside for _, each in codings))
    calls: list[tuple[object, ...]] = []
    for row, (_, each), length in zip(values, codings, header.value_bytes, strict=True):
        calls.append((each, sections[at : at + length], row, beside))
        at += length
    _for_each_stream(_decode_stream, calls, threaded=not beside.wanted and header.num_kept >= _MIN_THREADED)
    return Block(indices, values)
