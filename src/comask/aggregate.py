"""Weighted means of sparse updates, streamed: O(dim) memory whatever the number of clients. No torch."""

from __future__ import annotations

import math
from typing import Self

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError, RefusedUpdateError
from comask.kernels.rows import first_non_finite, scatter_add_rows
from comask.wire.update import Update


class WeightedSum:
    """A running weighted sum of updates, in double precision.

    Sums of float32 updates depend on their order in the last bits; in double precision they still do, but 2^-29 times as
    much, so that after the one rounding at the end the order almost never shows.

    Args:
        num_streams: Streams of each update, over all its blocks.
        dim: Length of the flat vector.
        num_buffers: Length of the dense buffers.

    Attributes:
        weight: Sum of the weights added so far.
        count: Number of updates added so far.
    """

    def __init__(self, num_streams: int, dim: int, num_buffers: int = 0) -> None:
        self._streams = np.zeros((num_streams, dim), np.float64)
        self._buffers = np.zeros(num_buffers, np.float64)
        self.weight = 0.0
        self.count = 0

    def add(self, update: Update, weight: float) -> Self:
        """Add `weight * update`; positions that the update does not name count as zero.

        Args:
            update: An update that `check_update` accepts.
            weight: Positive and finite, such as a number of samples.

        Raises:
            ConfigError: If the weight or a shape is not allowed.
        """
        if not (math.isfinite(weight) and weight > 0):
            raise ConfigError(f"An update's weight must be positive and finite, got {weight!r}.")
        if (update.num_streams, update.dim) != self._streams.shape:
            raise ConfigError(
                f"update must have (streams, dim) = {self._streams.shape}, got {(update.num_streams, update.dim)}."
            )
        first = 0
        for block in update.blocks:
            rows = self._streams[first : first + block.num_streams]
            if block.indices is None:
                rows += np.multiply(block.values, weight, dtype=np.float64)
            else:
                scatter_add_rows(rows, block.indices, block.values, weight)
            first += block.num_streams
        self._buffers += np.multiply(update.buffers, weight, dtype=np.float64)
        self.weight += weight
        self.count += 1
        return self

    def mean(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the weighted means: streams `(s, d)` and buffers `(b,)`.

        Raises:
            ConfigError: If nothing was added.
        """
        if not self.count:
            raise ConfigError("WeightedSum.mean() needs at least one update, got none.")
        return self._streams / self.weight, self._buffers / self.weight


def check_update(
    update: Update, *, num_streams: int, dim: int, num_buffers: int = 0, expected_round: int | None = None
) -> None:
    """Refuse a decoded update that must not be added.

    Args:
        update: Any decoded update.
        num_streams: Streams it must have.
        dim: Length its vector must have.
        num_buffers: Buffers it must have.
        expected_round: The round it must belong to; None: any.

    Raises:
        RefusedUpdateError: With reason `"shape"`, `"stale-round"` or `"non-finite"`.
    """
    found = (update.num_streams, update.dim, len(update.buffers))
    if found != (num_streams, dim, num_buffers):
        raise RefusedUpdateError(
            "shape",
            f"An update must have (streams, dim, buffers) = {(num_streams, dim, num_buffers)}, got {found}.",
        )
    if expected_round is not None and update.round != expected_round:
        raise RefusedUpdateError(
            "stale-round", f"An update must belong to round {expected_round}, got {update.round}."
        )
    stream = 0
    for block in update.blocks:
        for values in block.values:
            place = first_non_finite(values)
            if place >= 0:
                position = place if block.indices is None else int(block.indices[place])
                raise RefusedUpdateError(
                    "non-finite",
                    f"Stream {stream} holds {values[place]} at position {position}; it must be finite.",
                )
            stream += 1
    place = first_non_finite(update.buffers)
    if place >= 0:
        raise RefusedUpdateError(
            "non-finite", f"Buffer {place} is {update.buffers[place]}; it must be finite."
        )
