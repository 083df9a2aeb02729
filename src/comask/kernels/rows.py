"""Move the kept entries of several streams at once: out of matrices, and into accumulators."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from comask.errors import ConfigError
from comask.kernels.threads import run

_MIN_THREADED = 1 << 16
"""Below this many positions the streams are done before a thread has started."""


def gather_rows(matrix: NDArray[np.float32], indices: NDArray[np.uint32], out: NDArray[np.float32]) -> None:
    """Set `out[s, j] = matrix[s, indices[j]]`.

    Args:
        matrix: Shape `(s, d)`.
        indices: Shape `(k,)`, each below `d`, in any order.
        out: Shape `(s, k)`.

    Raises:
        ConfigError: If the shapes do not fit or an index is out of range.
    """
    if out.shape != (matrix.shape[0], indices.size):
        raise ConfigError(f"out must have shape {(matrix.shape[0], indices.size)}, got {out.shape}.")
    _refuse_index(indices, matrix.shape[1])
    _for_each_row(
        _gather, [(row, indices, kept) for row, kept in zip(matrix, out, strict=True)], indices.size
    )


def scatter_add_rows(
    acc: NDArray[np.float64], indices: NDArray[np.uint32], values: NDArray[np.float32], weight: float
) -> None:
    """Add `weight * values[s, j]` to `acc[s, indices[j]]`, in double precision.

    Args:
        acc: Shape `(s, d)`.
        indices: Shape `(k,)`, each below `d`.
        values: Shape `(s, k)`.
        weight: The factor.

    Raises:
        ConfigError: If the shapes do not fit or an index is out of range.
    """
    if values.shape != (acc.shape[0], indices.size):
        raise ConfigError(f"values must have shape {(acc.shape[0], indices.size)}, got {values.shape}.")
    _refuse_index(indices, acc.shape[1])
    calls = [(row, indices, kept, float(weight)) for row, kept in zip(acc, values, strict=True)]
    _for_each_row(_scatter_add, calls, indices.size)


def first_non_finite(x: NDArray[np.float32]) -> int:
    """Return the position of the first NaN or infinity of a float32 vector, or -1 if there is none."""
    return int(_first_non_finite(np.ascontiguousarray(x).view(np.uint32)))


def _refuse_index(indices: NDArray[np.uint32], dim: int) -> None:
    if indices.size and int(indices.max()) >= dim:
        bad = int((indices >= dim).argmax())
        raise ConfigError(f"indices[{bad}] is {indices[bad]}, it must be below {dim}.")


def _for_each_row(kernel: Callable[..., None], calls: Sequence[tuple[object, ...]], k: int) -> None:
    """Call the kernel for each row, on threads if there is enough to do."""
    if k >= _MIN_THREADED:
        run(kernel, list(calls))
    else:
        for args in calls:
            kernel(*args)


@njit(cache=True, nogil=True)
def _gather(row: NDArray[np.float32], indices: NDArray[np.uint32], out: NDArray[np.float32]) -> None:
    """Set `out[j] = row[indices[j]]`; the caller has checked the indices."""
    for j in range(indices.size):
        out[j] = row[indices[j]]


@njit(cache=True, nogil=True)
def _scatter_add(
    row: NDArray[np.float64], indices: NDArray[np.uint32], values: NDArray[np.float32], weight: float
) -> None:
    """Add `weight * values[j]` to `row[indices[j]]`; the caller has checked the indices."""
    for j in range(indices.size):
        row[indices[j]] += weight * np.float64(values[j])


@njit(cache=True, nogil=True)
def _first_non_finite(bits: NDArray[np.uint32]) -> int:
    block = 4096
    for start in range(0, bits.size, block):
        stop = min(start + block, bits.size)
        found = False
        for i in range(start, stop):  # without an early exit, so that it vectorises
            found |= (bits[i] & 0x7F800000) == 0x7F800000
        if found:
            for i in range(start, stop):
                if (bits[i] & 0x7F800000) == 0x7F800000:
                    return i
    return -1
