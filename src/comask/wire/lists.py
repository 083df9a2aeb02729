"""Index codings of the paper and of other systems, to compare with: `"auto"` does not consider them."""

from __future__ import annotations

import numpy as np

from comask.errors import PayloadError
from comask.kernels import bits, quantise
from comask.wire.coding import IndexCoding, Indices, Known, Prepared

_CHUNK_BITS = 12


def coordinates(number: int, width: int) -> IndexCoding:
    """Return the list of positions as integers of `width` bits: 32, 64, or 0 for just as many as the dimension needs."""

    def size(k: int, known: Known) -> int:
        return (k * _width(known.dim) + 7) // 8 if width == 0 else k * width // 8

    def prepare(indices: Indices, known: Known) -> Prepared:
        def write() -> bytes:
            if width:
                return indices.astype(f"<u{width // 8}").tobytes()
            return _pack(indices, _width(known.dim))

        return Prepared(size(indices.size, known), write)

    def decode(section: memoryview, k: int, known: Known) -> Indices:
        _check_length(section, size(k, known))
        if width == 0:
            return _checked(_unpack(section, _width(known.dim), k), known)
        listed = np.frombuffer(section, f"<u{width // 8}")
        if listed.size and int(listed.max()) >= known.dim:
            raise PayloadError(
                "index-range", f"A listed position is {listed.max()}; it must be below {known.dim}."
            )
        return _checked(listed.astype(np.uint32), known)

    return IndexCoding(number, prepare, decode, max_auto_dim=0)


def chunked(number: int) -> IndexCoding:
    """Return the coding of 12 bits a position within chunks of 4096, behind the number of positions in each chunk."""

    def prepare(indices: Indices, known: Known) -> Prepared:
        def write() -> bytes:
            counts = np.bincount(indices >> np.uint32(_CHUNK_BITS), minlength=_num_chunks(known.dim))
            return counts.astype("<u2").tobytes() + _pack(
                indices & np.uint32((1 << _CHUNK_BITS) - 1), _CHUNK_BITS
            )

        return Prepared(_chunked_size(indices.size, known), write)

    def decode(section: memoryview, k: int, known: Known) -> Indices:
        _check_length(section, _chunked_size(k, known))
        counts = np.frombuffer(section[: 2 * _num_chunks(known.dim)], "<u2").astype(np.int64)
        if counts.sum() != k:
            raise PayloadError(
                "index-count", f"The chunks hold {counts.sum()} positions, the block keeps {k}."
            )
        within = _unpack(section[2 * counts.size :], _CHUNK_BITS, k)
        chunk = np.repeat(np.arange(counts.size, dtype=np.uint32), counts)
        return _checked(chunk << np.uint32(_CHUNK_BITS) | within, known)

    return IndexCoding(number, prepare, decode, max_auto_dim=0, scales_with_dim=True)


def _width(dim: int) -> int:
    return (dim - 1).bit_length()


def _num_chunks(dim: int) -> int:
    return -(-dim >> _CHUNK_BITS)


def _chunked_size(k: int, known: Known) -> int:
    return 2 * _num_chunks(known.dim) + (k * _CHUNK_BITS + 7) // 8


def _pack(codes: Indices, width: int) -> bytes:
    out = np.empty((codes.size * width + 7) // 8, np.uint8)
    quantise.pack(codes, width, out)
    return out.tobytes()


def _unpack(section: memoryview, width: int, k: int) -> Indices:
    codes = np.empty(k, np.uint32)
    if not quantise.unpack(np.frombuffer(section, np.uint8), width, codes):
        raise PayloadError("index-padding", f"Bits are set after the last position of {width} bits.")
    return codes


def _checked(indices: Indices, known: Known) -> Indices:
    place = bits.first_misplaced(indices, known.dim)
    if place >= 0:
        rule = "index-range" if indices[place] >= known.dim else "index-order"
        raise PayloadError(
            rule, f"Listed position {place} is {indices[place]}, out of order or not below {known.dim}."
        )
    return indices


def _check_length(section: memoryview, needed: int) -> None:
    if len(section) != needed:
        raise PayloadError(
            "index-length", f"This list of positions must have {needed} bytes, it has {len(section)}."
        )
