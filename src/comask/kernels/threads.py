"""Spread a kernel over the parts of a long vector.

Plain threads and kernels that release the interpreter lock, not numba's `parallel=True`: its pools must not be entered
from two threads at once (workqueue) or after a fork (OpenMP), and both happen in simulations. Numba is not even asked for its number
of threads: the question starts its OpenMP pool, which is also torch's, and sets torch's number of threads with its own; a
training loop that had asked for one thread would then add up in another order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import pairwise
from typing import TypeVar

import numba

_MIN_PART = 1 << 19
"""Below this many entries a part is done before a thread has started."""

_limit: ContextVar[int | None] = ContextVar("comask_threads", default=None)

_Result = TypeVar("_Result")


def num_threads() -> int:
    """Return how many threads kernels may use: the cores of this process, `NUMBA_NUM_THREADS` if set, or less within `limited`."""
    allowed = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]  # made at run time
    limit = _limit.get()
    return allowed if limit is None else min(allowed, limit)


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let kernels that are called within use at most so many threads, at least 1."""
    token = _limit.set(max(threads, 1))
    try:
        yield
    finally:
        _limit.reset(token)


def split(length: int) -> list[tuple[int, int]]:
    """Divide `0..length` into contiguous parts, one a thread.

    Returns:
        `(start, stop)` pairs in order, at least one. There are several only if `length` is at least a million, and
        never more than `num_threads()`.
    """
    parts = 1
    if length >= 2 * _MIN_PART:
        parts = min(length // _MIN_PART, num_threads())
    edges = [length * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))


def run(kernel: Callable[..., _Result], calls: list[tuple[object, ...]]) -> list[_Result]:
    """Call `kernel(*args)` for each argument tuple, on at most `num_threads()` threads; return the results in order."""
    workers = min(len(calls), num_threads())
    if workers <= 1:
        return [kernel(*args) for args in calls]
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda args: kernel(*args), calls))
