"""Compression of the way down: whole models for some, increments for those who hold the last one.

The server moves its model by exactly what the increment decodes to, and feeds back what coding dropped. A client that
holds the model of the round before adds the increment to it and has the server's model, bit for bit; any other client gets
the whole. Both kinds come from the same place, so which one a client gets changes its bytes and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.base import ClientContext, ClientRule, Memory, ServerRule, ServerState, Upload
from comask.algorithms.delta import Selector
from comask.errors import ConfigError
from comask.state import SECOND_MOMENT, WEIGHTS, ModelState
from comask.wire.codec import Codec
from comask.wire.container import decode, encode
from comask.wire.update import Block, ParamLayout, Update

MODEL, ROUND = "model", "model_round"
"""In a client's memory: the streams it last started from, and the round that was."""

_OUTGOING, _RESIDUAL, _FORMED = "outgoing", "residual", "outgoing_round"

_WHOLE = Block(np.empty(0, np.uint32), np.empty((1, 0), np.float32))
"""A last block without positions says that a broadcast is a whole model and no increment."""


def whole(broadcast: Update) -> Update:
    """Mark a broadcast as a whole model."""
    return replace(broadcast, blocks=(*broadcast.blocks, _WHOLE))


def is_whole(broadcast: Update) -> bool:
    """Tell whether a broadcast is marked as a whole model."""
    return len(broadcast.blocks) > 1 and broadcast.blocks[-1].num_kept == 0


def received(update: Update, codec: Codec) -> Update:
    """Return the update as its receiver decodes it."""
    # How positions and codes are written changes no value; this is the quickest.
    return decode(encode(update, replace(codec, indices="bitmap", entropy=False)), dim=update.dim)


def dense(update: Update) -> NDArray[np.float32]:
    """Return the update's streams with zeros where it names no position, shape `(s, d)`."""
    rows = np.zeros((update.num_streams, update.dim), np.float32)
    first = 0
    for block in update.blocks:
        places = slice(None) if block.indices is None else block.indices
        rows[first : first + block.num_streams, places] = block.values
        first += block.num_streams
    return rows


def holds_model(memory: Memory, round_number: int) -> bool:
    """Tell whether a client's memory holds the model that the round before started from."""
    return ROUND in memory and float(memory[ROUND][0]) == round_number - 1


def remember_model(start: ModelState, num_streams: int, round_number: int) -> Memory:
    """Return the memory of the model that a round started from."""
    # float32 counts exactly to 2^24 rounds.
    return {MODEL: start.streams[:num_streams], ROUND: np.array([round_number], np.float32)}


def require_held_model(memory: Memory, round_number: int) -> NDArray[np.float32]:
    """Return the streams that an increment of this round belongs to.

    Raises:
        ConfigError: If the memory does not hold them: the increment went to the wrong client.
    """
    if not holds_model(memory, round_number):
        held = f"that of round {memory[ROUND][0]:.0f}" if ROUND in memory else "none"
        raise ConfigError(
            f"The broadcast of round {round_number} is an increment to the model of round {round_number - 1}; "
            f"this client holds {held} and must be sent the whole."
        )
    return memory[MODEL]


@dataclass(frozen=True, slots=True)
class FollowingClient:
    """Remember the model, so that increments can be added to it; leave the rest to another rule.

    Attributes:
        inner: The rule that sees whole models only.
        num_streams: Streams that travel.
    """

    inner: ClientRule
    num_streams: int = 1

    def begin(self, broadcast: Update, memory: Memory) -> ModelState:
        """Start from the whole model that was sent, or from the last one and the increment.

        Raises:
            ConfigError: If the broadcast is an increment to a model that this client does not hold.
        """
        if is_whole(broadcast):
            blocks = broadcast.blocks[:-1]
        else:
            streams = require_held_model(memory, broadcast.round) + dense(broadcast)
            blocks = (Block(None, streams),)
        return self.inner.begin(replace(broadcast, blocks=blocks), memory)

    def finish(
        self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext
    ) -> tuple[Update, Memory]:
        """Finish by the inner rule, and remember the streams that this round started from.

        Raises:
            NonFiniteError: If training produced NaN or infinity.
        """
        update, kept = self.inner.finish(start, end, memory, context)
        return update, {**kept, **remember_model(start, self.num_streams, context.round)}


@dataclass(frozen=True, slots=True)
class CompressStep:
    """A `ServerStep`: the mean and what is left from earlier rounds, rounded to what the increment can say.

    Only weights are fed back. A change of the weights is progress that would be lost; a change of a moment is the way from
    the broadcast to what the last steps measured, and to go it twice would overshoot.

    Attributes:
        select: What of it is sent, and rounded how.
        codec: What encodes the increment.
    """

    select: Selector
    codec: Codec

    def __call__(self, mean: NDArray[np.float64], state: ServerState) -> tuple[NDArray[np.float32], Memory]:
        """Return what the increment decodes to, shape `(s, d)`, and what it leaves."""
        outgoing = mean.astype(np.float32)
        if _RESIDUAL in state.memory:
            outgoing[WEIGHTS] = mean[WEIGHTS] + state.memory[_RESIDUAL]
        if len(outgoing) > SECOND_MOMENT:
            # What would take V below zero is not said, so that clients need not clamp what they add up.
            np.maximum(outgoing[SECOND_MOMENT], -state.model.second_moment, out=outgoing[SECOND_MOMENT])
        change = dense(received(self.update(outgoing), self.codec))
        memory = {
            _OUTGOING: outgoing,
            _RESIDUAL: outgoing[WEIGHTS] - change[WEIGHTS],
            _FORMED: np.array([state.round + 1], np.float32),
        }
        return change, memory

    def update(self, outgoing: NDArray[np.float32]) -> Update:
        """Return the increment, from what would be sent at density 1, shape `(s, d)`."""
        dim = outgoing.shape[1]
        return Update(dim, self.select(outgoing, ParamLayout(("all",), ((dim,),))))


@dataclass(frozen=True, slots=True)
class Increments:
    """An `IncrementRule`: what `CompressStep` moved the model by in the round before.

    Attributes:
        step: The server's step.
    """

    step: CompressStep

    @property
    def codec(self) -> Codec:
        """What encodes the increment."""
        return self.step.codec

    def message(self, state: ServerState) -> Update | None:
        """Return the increment to the model that the last round left; None if that round moved nothing."""
        formed = state.memory.get(_FORMED)
        if formed is None or float(formed[0]) != state.round:
            return None
        update = self.step.update(state.memory[_OUTGOING])
        return replace(update, buffers=state.model.buffers, round=state.round + 1)

    def applies(self, memory: Memory, round_number: int) -> bool:
        """Tell whether the memory holds the model of the round before."""
        return holds_model(memory, round_number)


@dataclass(frozen=True, slots=True)
class MarkingServer:
    """Mark another rule's broadcasts as whole models; leave the rest to it.

    Attributes:
        inner: The rule that broadcasts dense models.
    """

    inner: ServerRule

    def init(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> ServerState:
        """Return the inner rule's first state."""
        return self.inner.init(params, buffers)

    def broadcast(self, state: ServerState) -> Update:
        """Return the inner rule's broadcast, marked."""
        return whole(self.inner.broadcast(state))

    def check(self, state: ServerState, update: Update) -> None:
        """Refuse what the inner rule refuses.

        Raises:
            RefusedUpdateError: With the inner rule's reason.
        """
        self.inner.check(state, update)

    def aggregate(self, state: ServerState, uploads: Iterable[Upload]) -> ServerState:
        """Aggregate by the inner rule."""
        return self.inner.aggregate(state, uploads)
