"""What an index coding and a value coding are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comask.errors import PayloadError
from comask.wire.update import MAX_DIM, ParamLayout

Indices = NDArray[np.uint32]
Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """What sender and receiver both know without the payload.

    Attributes:
        dim: Length of the flat vector.
        layout: Names and shapes of the tensors in it, if both sides use one.
    """

    dim: int
    layout: ParamLayout | None = None


@dataclass(frozen=True, slots=True)
class Prepared:
    """An index section whose size is known; where that is possible, it is not yet written."""

    size: int
    write: Callable[[], bytes]


@dataclass(frozen=True, slots=True)
class IndexCoding:
    """One row of `INDEX_CODINGS`.

    Attributes:
        number: What stands for it in a payload.
        prepare: From the positions (shape `(k,)`, strictly increasing, below the dimension) and what both sides know to a
            section of exactly known size; None where the coding cannot express them.
        decode: From the section, `k` and what both sides know to the positions, or None for all of them. It raises
            PayloadError for bytes that are no such section.
        max_auto_dim: The largest dimension at which `"auto"` considers it.
        promising: Whether `"auto"` should try it on these positions: a cheap answer for a coding whose trial is dear.
        scales_with_dim: Whether its time grows with the dimension, and not with `k` alone.
    """

    number: int
    prepare: Callable[[Indices, Known], Prepared | None]
    decode: Callable[[memoryview, int, Known], Indices | None]
    max_auto_dim: int = MAX_DIM
    promising: Callable[[Indices, Known], bool] = lambda _indices, _known: True
    scales_with_dim: bool = False


@dataclass(frozen=True, slots=True)
class Rounding:
    """How one stream's values are rounded.

    Attributes:
        stream: The stream's number, for messages.
        mode: `"nearest"`; `"stochastic"`: up or down at random, so that the mean is exact; `"safe"`: to the nearest, except
            that no negative value becomes more negative, so that a non-negative state stays so when the value is added.
        seed: In 0..2**64 - 1, for stochastic rounding.
    """

    stream: int
    mode: str = "nearest"
    seed: int = 0


class Beside:
    """What the streams of one block, coded one after the other, tell each other.

    Args:
        wanted: Whether any stream of the block uses it.
    """

    def __init__(self, *, wanted: bool = False) -> None:
        self.wanted = wanted
        self._hints: list[NDArray[np.uint8] | None] = []

    def add(self, hints: NDArray[np.uint8] | None) -> None:
        """Add what is known of one more stream: one hint a value, as `kernels.symbols.encode` has them; None: nothing."""
        self._hints.append(hints)

    def withdraw(self) -> None:
        """Take back what was added last."""
        self._hints.pop()

    def last_two(self, k: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return the hints of the last stream and of the one before it, shape `(k,)` each; zeros where there is nothing."""
        found = [None, None, *self._hints][-2:]
        second, first = (np.zeros(k, np.uint8) if each is None else each for each in found)
        return first, second


@dataclass(frozen=True, slots=True)
class ValueCoding:
    """One row of `VALUE_CODINGS`.

    Attributes:
        number: What stands for it in a payload.
        bounds: From `k` to the least and the greatest length of a section, in bytes.
        encode: From one stream's values, shape `(k,)` and contiguous, to the section. It adds to what the streams tell
            each other.
        decode: From a section whose length is within the bounds into an array of shape `(k,)`. It raises PayloadError for
            bytes that are no such section. It adds to what the streams tell each other, as `encode` does.
        modes: The modes of rounding that it has.
        entropy_coded: The name of the coding that decodes to the same values and codes their symbols by an adaptive model.
        uses_beside: Whether it needs what the streams tell each other.
    """

    number: int
    bounds: Callable[[int], tuple[int, int]]
    encode: Callable[[Values, Rounding, Beside], bytes]
    decode: Callable[[memoryview, Values, Beside], None]
    modes: tuple[str, ...] = ("nearest",)
    entropy_coded: str | None = None
    uses_beside: bool = False


def check_length(coding: ValueCoding, name: str, length: int, k: int) -> None:
    """Refuse a value section of impossible length, before room for `k` values is made.

    Raises:
        PayloadError: `value-length`.
    """
    least, greatest = coding.bounds(k)
    if not least <= length <= greatest:
        allowed = str(least) if least == greatest else f"{least} to {greatest}"
        raise PayloadError(
            "value-length", f"A {name} section of {k} values has {allowed} bytes, this one has {length}."
        )
