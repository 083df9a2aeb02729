"""The state that training changes and that travels: a model and its moments, as one matrix."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError

WEIGHTS, FIRST_MOMENT, SECOND_MOMENT, DRIFT = 0, 1, 2, 3
"""Rows of `ModelState.streams`."""


def _no_buffers() -> NDArray[np.float32]:
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ModelState:
    """A model and the moments that travel with it, as one matrix.

    Attributes:
        streams: Shape `(s, d)` float32. Row 0 holds the weights; with `s = 3`, rows 1 and 2 hold Adam's first and
            second moment (the second never negative). With `s = 1` the optimiser has no state that travels. With
            `s = 4`, row 3 is a drift: local Adam adds it to the weights at every step.
        buffers: Shape `(b,)` float32: statistics that are sent but not trained.
        frozen_second_moment: Local Adam must use the second moment as it is and not change it.
    """

    streams: NDArray[np.float32]
    buffers: NDArray[np.float32] = field(default_factory=_no_buffers)
    frozen_second_moment: bool = False

    def __post_init__(self) -> None:
        if self.streams.ndim != 2 or self.streams.dtype != np.float32:
            raise ConfigError(
                f"ModelState.streams must be a (s, d) float32 array, got {self.streams.shape} {self.streams.dtype}."
            )

    @property
    def dim(self) -> int:
        """Number of trained parameters, `d`."""
        return int(self.streams.shape[1])

    @property
    def params(self) -> NDArray[np.float32]:
        """The weights, shape `(d,)`: a view."""
        return cast("NDArray[np.float32]", self.streams[WEIGHTS])

    @property
    def first_moment(self) -> NDArray[np.float32]:
        """Adam's running mean of the gradient, shape `(d,)`: a view."""
        return cast("NDArray[np.float32]", self.streams[FIRST_MOMENT])

    @property
    def second_moment(self) -> NDArray[np.float32]:
        """Adam's running mean of the squared gradient, shape `(d,)`: a view."""
        return cast("NDArray[np.float32]", self.streams[SECOND_MOMENT])
