"""The two rules that the algorithms are put together from: a client that sends changes, a server that averages them.

A client rule here is a selector (which positions), an optional error feedback, and a buffer policy; the codec is the
algorithm's. New methods combine these or bring their own rule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from comask.aggregate import WeightedSum, check_update
from comask.algorithms.base import ClientContext, Memory, ServerState, Upload
from comask.errors import ConfigError, NonFiniteError
from comask.feedback import compensate, residual
from comask.kernels.rows import first_non_finite
from comask.state import SECOND_MOMENT, WEIGHTS, ModelState
from comask.wire.update import Block, ParamLayout, Update

BufferPolicy = Literal["average", "local", "freeze"]
"""What happens to buffers that are not trained (batch norm's running statistics): `average` sends their dense change
with every upload and averages it; `local` lets each client keep its own between rounds and sends none; `freeze` puts the
initial ones back in every round. Broadcasts carry the server's buffers in all three."""

BUFFER_POLICIES: tuple[BufferPolicy, ...] = ("average", "local", "freeze")

STREAM_NAMES = ("w", "m", "v")
"""Short names of the streams, in their order."""

_RESIDUAL, _BUFFERS = "residual", "buffers"


class Selector(Protocol):
    """Which positions of the streams' changes are sent, as blocks in the order of the streams."""

    def __call__(self, delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:
        """Select from `delta`, shape `(s, d)`, finite."""
        ...


def keep_all(delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:  # noqa: ARG001 -- a Selector
    """Select every position: the dense algorithms."""
    return (Block(None, delta),)


@dataclass(frozen=True, slots=True)
class DeltaClient:
    """Upload what local training changed, at the positions that the selector keeps.

    Attributes:
        select: The selector.
        feedback: Names of the streams (of `STREAM_NAMES`) whose unsent part is kept and added in the next round.
        buffers: The buffer policy.
        decay: What the kept part is multiplied by before it is added, in [0, 1].
    """

    select: Selector
    feedback: tuple[str, ...] = ()
    buffers: BufferPolicy = "average"
    decay: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay <= 1.0:
            raise ConfigError(f"decay must be in [0, 1], got {self.decay!r}.")
        if self.buffers not in BUFFER_POLICIES:
            raise ConfigError(f"buffers must be one of {', '.join(BUFFER_POLICIES)}, got {self.buffers!r}.")
        if len(set(self.feedback)) != len(self.feedback) or not set(self.feedback) <= set(STREAM_NAMES):
            raise ConfigError(
                f"feedback must name different streams out of {', '.join(STREAM_NAMES)}, got {self.feedback!r}."
            )

    def begin(self, broadcast: Update, memory: Memory) -> ModelState:
        """Start from the dense broadcast, and from this client's own buffers if the policy is `local`."""
        (block,) = broadcast.blocks
        own = memory.get(_BUFFERS) if self.buffers == "local" else None
        return ModelState(block.values, broadcast.buffers if own is None else own)

    def finish(
        self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext
    ) -> tuple[Update, Memory]:
        """Form the changes, add the residual, select, and keep what was not sent.

        Raises:
            NonFiniteError: If training produced NaN or infinity.
        """
        delta = end.streams - start.streams
        for name, row in zip(STREAM_NAMES, delta, strict=False):
            position = first_non_finite(row)
            if position >= 0:
                raise NonFiniteError(
                    f"The change of stream {name!r} of client {context.client}",
                    position,
                    float(row[position]),
                )
        streams = tuple(STREAM_NAMES.index(name) for name in self.feedback)
        left = memory.get(_RESIDUAL)
        compensate(delta, None if left is None else np.float32(self.decay) * left, streams)
        sent_buffers = end.buffers - start.buffers if self.buffers == "average" else np.empty(0, np.float32)
        update = Update(
            dim=delta.shape[1],
            blocks=self.select(delta, context.layout),
            buffers=sent_buffers,
            round=context.round,
        )
        kept: dict[str, NDArray[np.float32]] = {}
        if streams:
            kept[_RESIDUAL] = residual(delta, update, streams, context.codec, seed=context.rounding_seed)
        if self.buffers == "local" and len(end.buffers):
            kept[_BUFFERS] = end.buffers
        return update, kept


@dataclass(frozen=True, slots=True)
class AveragingServer:
    """Broadcast the model densely; add the mean of the uploads, weighted by samples.

    Attributes:
        num_streams: 3 where Adam's moments travel, 1 where they do not.
        buffers: The buffer policy; the same as the clients'.
    """

    num_streams: int
    buffers: BufferPolicy = "average"

    def init(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> ServerState:
        """Return the initial weights with moments of zero."""
        streams = np.zeros((self.num_streams, len(params)), np.float32)
        streams[WEIGHTS] = params
        return ServerState(ModelState(streams, np.array(buffers, np.float32)))

    def broadcast(self, state: ServerState) -> Update:
        """Return all streams, dense."""
        model = state.model
        return Update(model.dim, (Block(None, model.streams),), model.buffers, round=state.round + 1)

    def check(self, state: ServerState, update: Update) -> None:
        """Refuse updates of another shape or round, and those with NaN or infinity.

        Raises:
            RefusedUpdateError: With reason `"shape"`, `"stale-round"` or `"non-finite"`.
        """
        check_update(
            update,
            num_streams=self.num_streams,
            dim=state.model.dim,
            num_buffers=self._num_buffers(state),
            expected_round=state.round + 1,
        )

    def aggregate(self, state: ServerState, uploads: Iterable[Upload]) -> ServerState:
        """Add the weighted mean of the changes to every stream.

        With weights that sum to 1 and exact values the second moment stays a convex combination of non-negative
        numbers. Rounding, lossy codings and error feedback break that, so it is clamped at zero.
        """
        model = state.model
        num_buffers = self._num_buffers(state)
        total = WeightedSum(self.num_streams, model.dim, num_buffers)
        for upload in uploads:
            total.add(upload.update, upload.weight)
        if not total.count:
            return ServerState(model, state.round + 1, state.memory)
        mean, mean_buffers = total.mean()
        mean += model.streams
        streams = mean.astype(np.float32)
        if self.num_streams > SECOND_MOMENT:
            np.maximum(streams[SECOND_MOMENT], 0.0, out=streams[SECOND_MOMENT])
        buffers = (model.buffers + mean_buffers).astype(np.float32) if num_buffers else model.buffers
        return ServerState(ModelState(streams, buffers), state.round + 1, state.memory)

    def _num_buffers(self, state: ServerState) -> int:
        """How many buffers an upload must carry."""
        return len(state.model.buffers) if self.buffers == "average" else 0
