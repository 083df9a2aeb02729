"""Byte arrays out of MATLAB 5 files, without SciPy: just enough for the files in which SVHN is published.

The format: "MAT-File Level 5 File Format", The MathWorks. A 128-byte header, then data elements: an 8-byte tag (type,
length) and the data. A variable is a zlib-compressed element (type 15) around one matrix element (type 14), which
holds four elements: flags, dimensions, name, data; each padded to 8 bytes, or packed into 8 altogether when it is short.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from comask.errors import DamagedDataError

_HEADER = 128
_BYTES, _INT32, _MATRIX, _COMPRESSED = 2, 5, 14, 15


def read_mat5(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[np.uint8]]:
    """Read the named variables, all of which must be compressed arrays of unsigned bytes in a little-endian file.

    No more is ever unpacked than the expected shapes need.

    Args:
        path: The file.
        shapes: Each variable's name and the shape it must have.

    Returns:
        The arrays by name, each a view with MATLAB's order of memory (the first axis varies fastest).

    Raises:
        DamagedDataError: If the file is not such a file, or a variable is missing or has another shape or type.
    """
    data = memoryview(path.read_bytes())
    limit = max(map(math.prod, shapes.values())) + 1024  # the arrays, and their flags, dimensions and names
    if bytes(data[124:_HEADER]) != b"\x00\x01IM":
        raise DamagedDataError(f"{path} is not a little-endian MATLAB 5 file.")
    try:
        found = dict(_variables(data, limit))
    except (struct.error, zlib.error, ValueError) as error:
        raise DamagedDataError(f"{path} is not a whole MATLAB 5 file of byte arrays ({error}).") from error
    for name, shape in shapes.items():
        if name not in found or found[name].shape != shape:
            got = f"has shape {found[name].shape}" if name in found else "is missing"
            raise DamagedDataError(f"{path}: variable {name!r} must be bytes of shape {shape}, but {got}.")
    return {name: found[name] for name in shapes}


def _variables(data: memoryview, limit: int) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    start = _HEADER
    while start < len(data):
        kind, size = struct.unpack_from("<II", data, start)
        end = start + 8 + size  # compressed elements are not padded
        if end > len(data):
            raise ValueError(f"an element of {size} bytes runs past the end")
        if kind == _COMPRESSED:
            yield _read_matrix(memoryview(zlib.decompressobj().decompress(data[start + 8 : end], limit)))
        start = end


def _read_matrix(element: memoryview) -> tuple[str, NDArray[np.uint8]]:
    kind, _size = struct.unpack_from("<II", element)
    if kind != _MATRIX:
        raise ValueError(f"element type {kind} where a matrix was expected")
    _, _flags, start = _read_element(element, 8)
    dims_kind, dims, start = _read_element(element, start)
    _, name, start = _read_element(element, start)
    data_kind, values, _ = _read_element(element, start)
    if (dims_kind, data_kind) != (_INT32, _BYTES):
        raise ValueError(
            f"dimensions of type {dims_kind} and data of type {data_kind}, not {_INT32} and {_BYTES}"
        )
    shape = tuple(np.frombuffer(dims, "<i4").tolist())
    return bytes(name).decode("ascii"), np.frombuffer(values, np.uint8).reshape(shape, order="F")


def _read_element(data: memoryview, start: int) -> tuple[int, memoryview, int]:
    """Return the type and the data of the element at `start`, and where the next one starts."""
    kind, size = struct.unpack_from("<II", data, start)
    if (
        kind >> 16
    ):  # short form: the length is in the upper half of the type, the data is where the length was
        return kind & 0xFFFF, data[start + 4 : start + 4 + (kind >> 16)], start + 8
    end = start + 8 + size
    if end > len(data):
        raise ValueError(f"an element of {size} bytes runs past the end")
    return kind, data[start + 8 : end], end + -size % 8
