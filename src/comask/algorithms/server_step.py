"""A server that turns the mean of the uploads into a change of the model by a rule of its own, such as Adam's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from comask.aggregate import WeightedSum
from comask.algorithms.base import Memory, ServerState, Upload
from comask.algorithms.delta import AveragingServer, BufferPolicy
from comask.state import ModelState
from comask.wire.update import Update


class ServerStep(Protocol):
    """From the mean of the uploads to the change of the model."""

    def __call__(
        self, mean: NDArray[np.float64], state: ServerState
    ) -> tuple[NDArray[np.float64] | NDArray[np.float32], Memory]:
        """Return the change, shape `(s, d)`, and the server's next memory, from the weighted mean, shape `(s, d)`."""
        ...


@dataclass(frozen=True, slots=True)
class SteppingServer:
    """Broadcast the model densely; average the uploads by samples, and add what the step makes of the mean.

    Attributes:
        step: The rule.
        buffers: The buffer policy; the same as the clients'. Buffers are always averaged plainly.
        num_streams: 3 where Adam's moments travel, 1 where they do not.
    """

    step: ServerStep
    buffers: BufferPolicy = "average"
    num_streams: int = 1

    def init(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> ServerState:
        """Return the initial weights, with moments of zero if they travel; the step's memory starts empty."""
        return self._average().init(params, buffers)

    def broadcast(self, state: ServerState) -> Update:
        """Return all streams, dense."""
        return self._average().broadcast(state)

    def check(self, state: ServerState, update: Update) -> None:
        """Refuse updates of another shape or round, and those with NaN or infinity.

        Raises:
            RefusedUpdateError: With reason `"shape"`, `"stale-round"` or `"non-finite"`.
        """
        self._average().check(state, update)

    def aggregate(self, state: ServerState, uploads: Iterable[Upload]) -> ServerState:
        """Add what the step makes of the weighted mean; with no uploads, nothing moves and nothing is forgotten."""
        model = state.model
        num_buffers = len(model.buffers) if self.buffers == "average" else 0
        total = WeightedSum(self.num_streams, model.dim, num_buffers)
        for upload in uploads:
            total.add(upload.update, upload.weight)
        if not total.count:
            return ServerState(model, state.round + 1, state.memory)
        mean, mean_buffers = total.mean()
        change, memory = self.step(mean, state)
        streams = (model.streams + change).astype(np.float32)
        buffers = (model.buffers + mean_buffers).astype(np.float32) if num_buffers else model.buffers
        return ServerState(ModelState(streams, buffers), state.round + 1, memory)

    def _average(self) -> AveragingServer:
        return AveragingServer(self.num_streams, self.buffers)
