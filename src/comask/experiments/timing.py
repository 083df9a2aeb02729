"""How long one upload takes to make and to read on this machine: measured with the real algorithm and the real codec.

In processor time, so that other programs do not count; what is timed runs on one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from comask.experiments.coded_sizes import index_coding
from comask.experiments.upload_shapes import configured, play, upload_shapes
from comask.masks import num_kept
from comask.wire import decode, encode

SAMPLE = 1 << 19
"""Positions that are timed at most; the time of longer vectors is proportional to their length."""

_LEAST_REPEATS, _MOST_REPEATS, _ENOUGH_SECONDS = 3, 15, 0.2

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Work:
    """Seconds of one core's work on one upload.

    Attributes:
        make: The client's: form the changes, select, encode.
        read: The server's: decode.
    """

    make: float
    read: float

    @property
    def total(self) -> float:
        """Both."""
        return self.make + self.read


def measure_work(algorithm: str, codec: str, dim: int, density: float, *, rounds: int = 1) -> Work:
    """Time one upload of synthetic changes (normal, of a trained network's magnitudes).

    At most `SAMPLE` positions are timed and the times scaled linearly. Longer vectors are spread over threads, which this
    does not count on.

    Args:
        algorithm: One of `comask.algorithms.ALGORITHMS`.
        codec: One of `comask.wire.CODECS`, or `OWN` for an algorithm that brings its own.
        dim: Length of the flat vector.
        density: Fraction kept by algorithms that have a density, in (0, 1].
        rounds: Rounds of the run; what the last of them does is timed, so that no warm-up is.

    Returns:
        The least of at least three measurements each, after one that is not counted.
    """
    length = min(dim, SAMPLE)
    made = configured(algorithm, codec, density)
    if (
        length < dim
    ):  # a short vector must be coded as the long one would be: `auto` tries less on very long ones
        indices = index_coding(made.uplink, dim, num_kept(density, dim))
        made = replace(made, uplink=replace(made.uplink, indices=indices))
    turn = play(made, length, upload_shapes(algorithm, rounds)[-1].last)

    def make() -> bytes:
        update, _ = turn.finish()
        return encode(update, made.uplink, layout=turn.context.layout, seed=turn.context.rounding_seed)

    payload, make_seconds = _least(make)
    _, read_seconds = _least(lambda: decode(payload, dim=length, layout=turn.context.layout))
    return Work(make_seconds * dim / length, read_seconds * dim / length)


def _least(call: Callable[[], _Result]) -> tuple[_Result, float]:
    result = call()  # compiles kernels, or loads them
    seconds: list[float] = []
    while len(seconds) < _LEAST_REPEATS or (sum(seconds) < _ENOUGH_SECONDS and len(seconds) < _MOST_REPEATS):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return result, min(seconds)
