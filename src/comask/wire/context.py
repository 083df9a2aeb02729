"""The index coding `context`: how positions are laid out for the context model. `docs/format/v1.md`, section 4.4."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from comask.errors import PayloadError
from comask.kernels import context, golomb, threads
from comask.kernels.arithmetic import PROBABILITY_BITS
from comask.wire.coding import Indices, Known, Prepared

SEGMENT = 1 << 21
"""Positions in one segment, which is coded on its own."""

_MIN_PRIOR = 64
_MAX_PRIOR = (1 << PROBABILITY_BITS) - 64
OTHER_STRIDE = 3

ALWAYS_TRIED_DIM = 1 << 20
"""Up to this dimension `promising` does not look at the mask."""

_WINDOWS, _WINDOW = 8, 1 << 15


def prepare(indices: Indices, known: Known) -> Prepared | None:
    """Code the positions; the section is finished when this returns."""
    section = encode_on(grid_of(known), indices)
    return None if section is None else Prepared(len(section), lambda: section)


def decode(section: memoryview, k: int, known: Known) -> Indices:
    """Return the positions.

    Raises:
        PayloadError: `index-length`, `index-count` or `index-padding`.
    """
    return decode_on(grid_of(known), section, k)


def encode_on(grid: Grid, indices: Indices) -> bytes | None:
    """Code the positions, which are on this grid."""
    edges = np.searchsorted(indices, np.arange(0, grid.dim + SEGMENT, SEGMENT, dtype=np.int64))
    counts = np.diff(edges)

    def encode(segment: int) -> bytes | None:
        start, stop = grid.bounds(segment)
        if counts[segment] == 0:
            return b""
        kept = np.zeros(stop - start, np.uint8)
        kept[indices[edges[segment] : edges[segment + 1]] - np.uint32(start)] = 1
        return context.encode(kept, grid.pieces(start, stop), _prior(int(counts[segment]), stop - start))

    coded = threads.run(encode, [(segment,) for segment in range(counts.size)])
    done = [part for part in coded if part is not None]
    if len(done) < counts.size:
        return None
    directory = np.column_stack([[len(part) for part in done], counts])[:-1].astype("<u4").tobytes()
    return b"".join([directory, *done])


def decode_on(grid: Grid, section: memoryview, k: int) -> Indices:
    """Undo `encode_on`; errors as for `decode`."""
    num_segments = -(-grid.dim // SEGMENT)
    at = 8 * (num_segments - 1)
    if len(section) < at:
        raise PayloadError(
            "index-length", f"A context section of {num_segments} segments cannot have {len(section)} bytes."
        )
    directory = np.frombuffer(section[:at], "<u4").astype(np.int64).reshape(-1, 2)
    lengths = [*directory[:, 0].tolist(), len(section) - at - int(directory[:, 0].sum())]
    counts = [*directory[:, 1].tolist(), k - int(directory[:, 1].sum())]
    if lengths[-1] < 0:
        raise PayloadError("index-length", f"The segments have {-lengths[-1]} bytes more than their section.")
    starts = np.cumsum([at, *lengths[:-1]]).tolist()

    def decode_segment(segment: int) -> Indices:
        start, stop = grid.bounds(segment)
        data = np.frombuffer(section[starts[segment] : starts[segment] + lengths[segment]], np.uint8)
        count = counts[segment]
        if not 0 <= count <= stop - start:
            raise PayloadError(
                "index-count", f"Segment {segment} of {stop - start} positions says it keeps {count}."
            )
        if count == 0:
            if data.size:
                raise PayloadError(
                    "index-length", f"Segment {segment} keeps nothing and has {data.size} bytes."
                )
            return np.empty(0, np.uint32)
        kept = np.empty(stop - start, np.uint8)
        status = context.decode(data, grid.pieces(start, stop), _prior(count, stop - start), kept)
        if status == context.TRAILING:
            raise PayloadError(
                "index-length", f"Segment {segment} does not end where its {data.size} bytes end."
            )
        if status == context.BAD_END:
            raise PayloadError(
                "index-padding", f"Segment {segment} does not end as its positions would be coded."
            )
        found = np.flatnonzero(kept)
        if found.size != count:
            raise PayloadError(
                "index-count", f"Segment {segment} keeps {found.size} positions, it says {count}."
            )
        return (found + start).astype(np.uint32)

    return np.concatenate(threads.run(decode_segment, [(segment,) for segment in range(num_segments)]))


def promising(indices: Indices, known: Known) -> bool:
    """Say whether a mask is likely to have the structure that the model needs.

    Up to dimension 2**20, always: the attempt takes 16 ms. Beyond, eight windows of 2**15 positions are coded on trial, which takes
    4 ms: if the model does not save a twentieth of what gap codes or a bitmap take there, it will not on the whole. On
    recorded masks it saves a quarter at least, although it has to learn anew in each window; on masks without structure, nothing.
    """
    if known.dim <= ALWAYS_TRIED_DIM:
        return True
    grid = grid_of(known)
    modelled = plain = 0
    for window in range(_WINDOWS):
        start = window * (known.dim - _WINDOW) // (_WINDOWS - 1)
        first, last = np.searchsorted(indices, np.array([start, start + _WINDOW], np.uint32))
        part = indices[first:last]
        if part.size:
            kept = np.zeros(_WINDOW, np.uint8)
            kept[part - np.uint32(start)] = 1
            coded = context.encode(kept, grid.pieces(start, start + _WINDOW), _prior(part.size, _WINDOW))
            modelled += _WINDOW if coded is None else 8 * len(coded)
            plain += min(
                golomb.plan(part, start - 1, np.empty(-(-part.size // golomb.CHUNK), np.uint8)), _WINDOW
            )
    return 20 * modelled < 19 * plain


def _prior(count: int, length: int) -> int:
    return min(max((count << PROBABILITY_BITS) // length, _MIN_PRIOR), _MAX_PRIOR)


class Grid:
    """Where rows and columns lie in the flat vector.

    Args:
        sizes: Entries of each tensor, in order.
        columns: Columns of each tensor.
        strides: How far apart two columns of a tensor are that belong together.
    """

    def __init__(self, sizes: Sequence[int], columns: Sequence[int], strides: Sequence[int]) -> None:
        self._offsets = (0, *itertools.accumulate(sizes))
        self.columns, self.strides = columns, strides
        self.dim = self._offsets[-1]

    def bounds(self, segment: int) -> tuple[int, int]:
        """Return the first position of a segment and the one after its last."""
        return segment * SEGMENT, min((segment + 1) * SEGMENT, self.dim)

    def pieces(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the parts of tensors in `start..stop`, as the kernel wants them."""
        pieces = []
        tensor = bisect.bisect_right(self._offsets, start) - 1
        while tensor < len(self.columns) and self._offsets[tensor] < stop:
            first, last = max(start, self._offsets[tensor]), min(stop, self._offsets[tensor + 1])
            if first < last:
                columns = self.columns[tensor]
                pieces.append(
                    (last - first, columns, (first - self._offsets[tensor]) % columns, self.strides[tensor])
                )
            tensor += 1
        return np.array(pieces, np.int64)


def grid_of(known: Known) -> Grid:
    """Return the grid of the layout, or of one long row where there is none."""
    if known.layout is None:
        return Grid([known.dim], [known.dim], [OTHER_STRIDE])
    columns, strides = [], []
    channels = 0  # rows of the last convolution
    for shape, size in zip(known.layout.shapes, known.layout.sizes, strict=True):
        columns.append(size if len(shape) < 2 or size == 0 else size // shape[0])
        strides.append(_stride(shape, channels))
        channels = shape[0] if len(shape) > 2 else channels
    return Grid(known.layout.sizes, columns, strides)


def _stride(shape: tuple[int, ...], channels: int) -> int:
    """Return how far apart two columns are that belong together.

    In a convolution, the same place in the kernel of the next input channel. In a linear layer on top of a convolution, the
    pixel in the next line, if the pixels of a channel can be a square.
    """
    kernel = math.prod(shape[2:])
    if kernel > 1:
        return kernel
    if len(shape) == 2 and channels and shape[1] % channels == 0:
        side = math.isqrt(shape[1] // channels)
        if side > 1 and side * side * channels == shape[1]:
            return side
    return OTHER_STRIDE
