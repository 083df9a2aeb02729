"""How long one upload takes to make and to read on this machine: measured with the real algorithm and the real codec.

In processor time, so that other programs do not count; what is timed runs on one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from comask.algorithms import make_algorithm
from comask.algorithms.base import ClientContext
from comask.experiments.coded_sizes import index_coding
from comask.masks import num_kept
from comask.seeding import derive_rng
from comask.state import SECOND_MOMENT, ModelState
from comask.theory import MESSAGES
from comask.wire import CODECS, ParamLayout, decode, encode

SAMPLE = 1 << 19
"""Positions that are timed at most; the time of longer vectors is proportional to their length."""

_REPEATS = 3
_TYPICAL = (2e-3, 2e-4, 5e-7)  # mean |dW|, |dM|, |dV| seen on Fashion-MNIST

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


def measure_work(algorithm: str, codec: str, dim: int, density: float) -> Work:
    """Time one upload of synthetic changes (normal, of a trained network's magnitudes).

    At most `SAMPLE` positions are timed and the times scaled linearly. Longer vectors are spread over threads, which this
    does not count on.

    Args:
        algorithm: One of `comask.theory.MESSAGES`.
        codec: One of `comask.wire.CODECS`.
        dim: Length of the flat vector.
        density: Fraction kept by sparse methods, in (0, 1].

    Returns:
        The least of three measurements each, after one that is not counted.
    """
    message = MESSAGES[algorithm]
    length = min(dim, SAMPLE)
    # A short vector must be coded as the long one would be: `auto` tries less on very long ones.
    chosen = CODECS[codec]
    if length < dim:
        chosen = replace(chosen, indices=index_coding(chosen, dim, num_kept(density, dim)))
    made = make_algorithm(algorithm, codec=chosen, **({"density": density} if message.masks else {}))
    start, end = _states(message.streams, length)
    layout = ParamLayout(("synthetic",), ((length,),))
    context = ClientContext(1, 0, 0, layout, made.uplink)

    def make() -> bytes:
        update, _ = made.client.finish(start, end, {}, context)
        return encode(update, made.uplink, layout=layout, seed=0)

    payload, make_seconds = _least(make)
    _, read_seconds = _least(lambda: decode(payload, dim=length, layout=layout))
    return Work(make_seconds * dim / length, read_seconds * dim / length)


def _states(streams: int, dim: int) -> tuple[ModelState, ModelState]:
    rng = derive_rng(0, "plan")
    change = (
        rng.standard_normal((streams, dim), np.float32) * np.array(_TYPICAL[:streams], np.float32)[:, None]
    )
    start = np.zeros((streams, dim), np.float32)
    if streams > SECOND_MOMENT:
        np.abs(change[SECOND_MOMENT], out=change[SECOND_MOMENT])
    return ModelState(start), ModelState(change)


def _least(call: Callable[[], _Result]) -> tuple[_Result, float]:
    result = call()  # compiles kernels, or loads them
    seconds = []
    for _ in range(_REPEATS):
        began = time.process_time()
        call()
        seconds.append(time.process_time() - began)
    return result, min(seconds)
