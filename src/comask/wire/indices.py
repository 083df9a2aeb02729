"""Index codings: how a block says which positions it keeps. Sections "Index codings" of `docs/format/v1.md`."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from comask.errors import PayloadError
from comask.kernels import bits, golomb, threads
from comask.wire import context, shaped
from comask.wire.coding import IndexCoding, Indices, Known, Prepared
from comask.wire.lists import chunked, coordinates

GROUP = 1 << 16
"""Positions in one group of a `rice` section: what can be decoded on its own."""

_GROUP_LENGTH_BYTES = 4

_MAX_CONTEXT_DIM = 1 << 25
"""Beyond, `"auto"` does not try `context`, which takes about 16 ns a position of the vector: half a second on one core here."""


def _prepare_dense(indices: Indices, known: Known) -> Prepared | None:
    return Prepared(0, bytes) if indices.size == known.dim else None


def _decode_dense(section: memoryview, k: int, known: Known) -> None:
    if k != known.dim:
        raise PayloadError("kept", f"A dense block keeps all {known.dim} positions, this one says {k}.")
    _check_length(section, 0, "dense")


def _prepare_bitmap(indices: Indices, known: Known) -> Prepared:
    size = (known.dim + 7) // 8

    def write() -> bytes:
        out = np.zeros(size, np.uint8)
        bits.set_bits(indices, out)
        return out.tobytes()

    return Prepared(size, write)


def _decode_bitmap(section: memoryview, k: int, known: Known) -> Indices:
    dim = known.dim
    _check_length(section, (dim + 7) // 8, "bitmap")
    if dim % 8 and section[-1] >> dim % 8:
        raise PayloadError(
            "index-padding", f"The last byte of a bitmap of {dim} positions is {section[-1]:#04x}."
        )
    indices = np.empty(k, np.uint32)
    found = bits.find_bits(np.frombuffer(section, np.uint8), indices)
    if found != k:
        raise PayloadError("index-count", f"The bitmap has {found} bits set, the block keeps {k} positions.")
    return indices


def _prepare_rice(indices: Indices, _known: Known) -> Prepared:
    groups = [indices[start : start + GROUP] for start in range(0, indices.size, GROUP)]
    before = [int(indices[start - 1]) if start else -1 for start in range(0, indices.size, GROUP)]
    parameters = [np.empty(-(-group.size // golomb.CHUNK), np.uint8) for group in groups]
    lengths = [(golomb.plan(*planned) + 7) // 8 for planned in zip(groups, before, parameters, strict=True)]

    def write() -> bytes:
        directory = np.array(lengths[:-1], "<u4").tobytes()
        out = [np.empty(length, np.uint8) for length in lengths]
        for written in zip(groups, before, parameters, out, strict=True):
            golomb.encode(*written)
        return b"".join([directory, *(group.tobytes() for group in out)])

    return Prepared(_GROUP_LENGTH_BYTES * max(len(groups) - 1, 0) + sum(lengths), write)


def _decode_rice(section: memoryview, k: int, known: Known) -> Indices:
    num_groups = -(-k // GROUP)
    at = _GROUP_LENGTH_BYTES * max(num_groups - 1, 0)
    # A gap takes at least one bit: refuse before room for k positions is made.
    if len(section) < at + (k + 7) // 8 or (k == 0 and len(section)):
        raise PayloadError(
            "index-length", f"A rice section for {k} positions cannot have {len(section)} bytes."
        )
    lengths = np.frombuffer(section[:at], "<u4").astype(np.int64)
    last_length = len(section) - at - int(lengths.sum())
    if last_length < 0:
        raise PayloadError(
            "index-length", f"The groups of a rice section have {-last_length} bytes more than the section."
        )
    indices = np.empty(k, np.uint32)
    starts = np.cumsum([at, *lengths.tolist(), last_length]).tolist()
    groups = [indices[group * GROUP : (group + 1) * GROUP] for group in range(num_groups)]

    def decode_group(group: int) -> int:
        data = np.frombuffer(section[starts[group] : starts[group + 1]], np.uint8)
        return golomb.decode(data, known.dim, groups[group])

    # All groups at once, each from its own start on; then each is moved behind the one before it.
    statuses = threads.run(decode_group, [(group,) for group in range(num_groups)])
    before = -1
    for group, status in enumerate(statuses):
        last = before + 1 + int(groups[group][-1])
        if status == golomb.OK and last >= known.dim:
            status = golomb.OUT_OF_RANGE  # noqa: PLW2901
        if status != golomb.OK:
            rule, reason = _RICE_FAULTS[status]
            raise PayloadError(rule, f"Group {group} of a rice section {reason}.")
        if group:
            golomb.shift_positions(groups[group], before + 1)
        before = last
    return indices


_RICE_FAULTS = {
    golomb.TRUNCATED: ("index-length", "ends before its last position"),
    golomb.BAD_PARAMETER: ("rice-parameter", f"has a parameter above {golomb.MAX_PARAMETER}"),
    golomb.OUT_OF_RANGE: ("index-range", "has a position at or beyond the dimension"),
    golomb.TRAILING: ("index-length", "has bytes after its last position"),
    golomb.BAD_PADDING: ("index-padding", "has bits set after its last position"),
}


def _check_length(section: memoryview, needed: int, name: str) -> None:
    if len(section) != needed:
        raise PayloadError(
            "index-length", f"This {name} section must have {needed} bytes, it has {len(section)}."
        )


INDEX_CODINGS: Mapping[str, IndexCoding] = MappingProxyType(
    {
        "dense": IndexCoding(0, _prepare_dense, _decode_dense),
        "bitmap": IndexCoding(1, _prepare_bitmap, _decode_bitmap, scales_with_dim=True),
        "rice": IndexCoding(2, _prepare_rice, _decode_rice),
        "context": IndexCoding(
            3, context.prepare, context.decode, _MAX_CONTEXT_DIM, context.promising, scales_with_dim=True
        ),
        "fixed": coordinates(4, 0),
        "coo32": coordinates(5, 32),
        "coo64": coordinates(6, 64),
        "chunk12": chunked(7),
        "shaped": IndexCoding(
            8, shaped.prepare, shaped.decode, _MAX_CONTEXT_DIM, shaped.promising, scales_with_dim=True
        ),
    }
)
"""The index codings, by name, in the order of their numbers."""
