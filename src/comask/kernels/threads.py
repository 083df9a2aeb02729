"""Spread a kernel over the parts of a long vector.

Plain threads and kernels that release the interpreter lock, not numba's `parallel=True`: its pools must not be entered
from two threads at once (workqueue) or after a fork (OpenMP), and both happen in simulations.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numba

_MIN_PART = 1 << 19
"""Below this many entries a part is done before a thread has started."""

_Result = TypeVar("_Result")


def split(length: int) -> list[tuple[int, int]]:
    """Divide `0..length` into contiguous parts, one a thread.

    Returns:
        `(start, stop)` pairs in order, at least one. There are several only if `length` is at least a million, and
        never more than `numba.get_num_threads()`, which `numba.set_num_threads` sets.
    """
    parts = 1
    if length >= 2 * _MIN_PART:
        parts = min(length // _MIN_PART, numba.get_num_threads())
    edges = [length * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def run(kernel: Callable[..., _Result], calls: list[tuple[object, ...]]) -> list[_Result]:
    """Call `kernel(*args)` for each argument tuple, on `numba.get_num_threads()` threads; return the results in order."""
    workers = min(len(calls), numba.get_num_threads()) if len(calls) > 1 else 1
    if workers == 1:
        return [kernel(*args) for args in calls]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda args: kernel(*args), calls))
