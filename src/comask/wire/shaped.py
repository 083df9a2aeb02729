"""The index coding `shaped`: the context model for receivers that do not know the layout. `docs/format/v1.md`, section 4.7.

The section says how wide the rows are. The encoder finds that out from the positions themselves: kept positions that are one
row apart are frequent.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from comask.errors import PayloadError
from comask.kernels.lags import count_lags
from comask.wire import context
from comask.wire.coding import Indices, Known, Prepared
from comask.wire.header import read_varint, write_varint

MAX_TENSORS = 1 << 16
_MAX_STRIDE = 1 << 32

_BLOCK, _PER_BLOCK = 1 << 14, 200
_NEIGHBOURS = 2
_LAGS, _LONGEST_STRIDE, _AROUND = 8192, 32, 16
_PAIRS = 1 << 26

Shape = tuple[int, int, int]
"""Entries, columns and stride of a tensor."""


def promising(indices: Indices, known: Known) -> bool:
    """Say whether `"auto"` should try it: only where there is no layout, and as for `context`."""
    return known.layout is None and context.promising(indices, known)


def prepare(indices: Indices, known: Known) -> Prepared | None:
    """Code the positions on the rows that were found; the section is finished when this returns."""
    shapes = find_shapes(indices, known.dim)
    section = context.encode_on(_grid(shapes), indices)
    if section is None:
        return None
    numbers = [len(shapes), *(number for shape in shapes for number in shape)]
    section = b"".join([*map(write_varint, numbers), section])
    return Prepared(len(section), lambda: section)


def decode(section: memoryview, k: int, known: Known) -> Indices:
    """Return the positions.

    Raises:
        PayloadError: `index-shape`, `varint`, and as `context.decode` does.
    """
    shapes, left, at = [], known.dim, 0
    (count, at) = _read(section, at)
    if not 1 <= count <= MAX_TENSORS:
        raise PayloadError(
            "index-shape", f"A shaped section has 1 to {MAX_TENSORS} tensors, this one {count}."
        )
    for number in range(count):
        size, at = _read(section, at)
        columns, at = _read(section, at)
        stride, at = _read(section, at)
        if not (1 <= size <= left and 1 <= columns <= size and 1 <= stride <= _MAX_STRIDE):
            raise PayloadError(
                "index-shape",
                f"Tensor {number} has {size} entries of {left}, {columns} columns and stride {stride}.",
            )
        left -= size
        shapes.append((size, columns, stride))
    if left:
        raise PayloadError("index-shape", f"The tensors leave {left} of {known.dim} positions out.")
    return context.decode_on(_grid(shapes), section[at:], k)


def _read(section: memoryview, at: int) -> tuple[int, int]:
    try:
        return read_varint(section, at)
    except PayloadError as error:
        if error.rule == "truncated":
            raise PayloadError("index-length", "A shaped section ends within its tensors.") from None
        raise


def _grid(shapes: list[Shape]) -> context.Grid:
    return context.Grid(*zip(*shapes, strict=True))


def find_shapes(indices: Indices, dim: int) -> list[Shape]:
    """Guess where tensors lie and how wide their rows are.

    The vector is divided into blocks of about 2**14 positions, fewer if they would hold less than 200 kept ones. In each block and
    its neighbours the distances of kept positions are counted: a distance that is much more frequent than those around
    it is a row, or, up to 32, a stride. Blocks that agree become one tensor.

    Where no row is found, a tensor is one long row.
    """
    blocks = max(min(-(-dim // _BLOCK), indices.size // _PER_BLOCK, MAX_TENSORS), 1)
    edges = [dim * block // blocks for block in range(blocks + 1)]
    places = np.searchsorted(indices, np.array(edges, np.int64)).tolist()
    counts = np.zeros((blocks, min(_LAGS, dim)), np.int64)
    step = 1 + indices.size * (indices.size * counts.shape[1] // dim) // _PAIRS
    for block, (first, last) in enumerate(pairwise(places)):
        count_lags(indices, first, last, step, counts[block])
    tensors: list[Shape] = []
    for block, (start, stop) in enumerate(pairwise(edges)):
        around = counts[max(block - _NEIGHBOURS, 0) : block + _NEIGHBOURS + 1].sum(axis=0)
        stride = _frequent(around, 2, _LONGEST_STRIDE + 1)
        columns = _frequent(around, _LONGEST_STRIDE + 1, around.size - _AROUND)
        if tensors and all(
            a == b or 0 in {a, b} for a, b in zip(tensors[-1][1:], (columns, stride), strict=True)
        ):
            size, other_columns, other_stride = tensors[-1]
            tensors[-1] = size + stop - start, columns or other_columns, stride or other_stride
        else:
            tensors.append((stop - start, columns, stride))
    return [
        (size, min(columns or size, size), stride or context.OTHER_STRIDE)
        for size, columns, stride in tensors
    ]


def _frequent(counts: NDArray[np.int64], first: int, stop: int) -> int:
    """Return the distance in `first..stop` that stands out of those around it, or 0.

    Of several that stand out nearly as much, such as the multiples of a row, the least.
    """
    stop = min(stop, counts.size)
    if stop <= first:
        return 0
    sums = np.concatenate([[0], np.cumsum(counts)])
    lags = np.arange(first, stop)
    low, high = np.maximum(lags - _AROUND, 1), np.minimum(lags + _AROUND + 1, counts.size)
    # Ten times the excess over the mean of the others around, in integers, so that every machine finds the same rows.
    others = sums[high] - sums[low] - counts[lags]
    number = np.maximum(high - low - 1, 1)
    excess = 10 * (counts[lags] * number - others) // number
    greatest = int(excess.max())
    if greatest < 60:
        return 0
    clear = excess**2 >= 900 * (1 + others // number)  # three standard deviations of a count
    found = np.flatnonzero(clear & (10 * excess > 6 * greatest))
    return int(lags[found[0]]) if found.size else 0
