"""Move the kept entries of several streams at once: out of matrices, and into accumulators."""

from __future__ import annotations

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
    calls: list[tuple[object, ...]] = [
        (matrix[s : s + 1], indices, out[s : s + 1]) for s in range(matrix.shape[0])
    ]
    bad = run(_gather, calls) if indices.size >= _MIN_THREADED else [_gather(matrix, indices, out)]
    _refuse_index(max(bad, default=-1), indices, matrix.shape[1])


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
    factor = float(weight)
    calls: list[tuple[object, ...]] = [
        (acc[s : s + 1], indices, values[s : s + 1], factor) for s in range(acc.shape[0])
    ]
    bad = (
        run(_scatter_add, calls)
        if indices.size >= _MIN_THREADED
        else [_scatter_add(acc, indices, values, factor)]
    )
    _refuse_index(max(bad, default=-1), indices, acc.shape[1])


def first_non_finite(x: NDArray[np.float32]) -> int:
    """Return the position of the first NaN or infinity of a float32 vector, or -1 if there is none."""
    return int(_first_non_finite(np.ascontiguousarray(x).view(np.uint32)))


def _refuse_index(bad: int, indices: NDArray[np.uint32], dim: int) -> None:
    if bad >= 0:
        raise ConfigError(f"indices[{bad}] is {indices[bad]}, it must be below {dim}.")


@njit(cache=True, nogil=True)
def _gather(matrix: NDArray[np.float32], indices: NDArray[np.uint32], out: NDArray[np.float32]) -> int:
    dim = matrix.shape[1]
    for j in range(indices.size):
        if indices[j] >= dim:
            return j
    for s in range(matrix.shape[0]):
        row, kept = matrix[s], out[s]
        for j in range(indices.size):
            kept[j] = row[indices[j]]
    return -1


@njit(cache=True, nogil=True)
def _scatter_add(
    acc: NDArray[np.float64], indices: NDArray[np.uint32], values: NDArray[np.float32], weight: float
) -> int:
    dim = acc.shape[1]
    for j in range(indices.size):
        if indices[j] >= dim:
            return j
    for s in range(acc.shape[0]):
        row, kept = acc[s], values[s]
        for j in range(indices.size):
            row[indices[j]] += weight * np.float64(kept[j])
    return -1


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
