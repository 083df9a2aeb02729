"""Adam with a frozen second moment and one bit a parameter, both ways: what 1-bit Adam and 0/1 Adam have in common.

Some rounds are dense: FedAdam's, with W, M and V averaged in float32. In the others V stands still, so that Adam is momentum with a
fixed scale for each coordinate, and momentum can be compressed with error feedback:

```
device   L steps: m = beta1 m + (1 - beta1) g ; w -= lr m / D                     D = sqrt(V + eps), or sqrt(V) + eps
         c_n = (W - w) D / (lr L) + e_n                                           the mean momentum of the L steps, and what was left
         send sign(c_n), its scale s_n, L ; e_n = c_n - s_n sign(c_n)
server   a = mean s_n sign(c_n) + e ; S = the scale of a ; M = S sign(a) ; e = a - M
         W -= lr L M / D ; send sign(a), S, L
```

With L = 1 the mean momentum is the momentum, and with one scale for the vector, ||c||_2 / sqrt(d), this is the published step. One bit cannot say zero: coordinates whose
frozen V is exactly zero never saw a gradient, and both ends leave them out (the momentum mask of DeepSpeed's program).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from comask.aggregate import WeightedSum, check_update
from comask.algorithms.accounting import DenseBits, SignBits
from comask.algorithms.base import Algorithm, ClientContext, Memory, ServerState, Upload
from comask.algorithms.coded import coded
from comask.algorithms.delta import AveragingServer, BufferPolicy, DeltaClient, keep_all
from comask.algorithms.two_way import (
    dense,
    holds_model,
    is_whole,
    received,
    remember_model,
    require_held_model,
    whole,
)
from comask.errors import ConfigError, RefusedUpdateError
from comask.hyperparams import AdamConfig, require_finite
from comask.kernels.quantise import BLOCK
from comask.state import WEIGHTS, ModelState
from comask.wire.codec import Codec, get_codec
from comask.wire.update import Block, ParamLayout, Update

_RESIDUAL, _STEPS, _FORMED = "momentum_residual", "steps", "steps_round"
_NOWHERE = np.empty(0, np.uint32)
_COMPRESSED_STREAMS = (
    5  # three empty ones, so that W, M and V keep their codings; the momentum; the number of steps
)


Scale = Literal["block", "vector"]
"""`block`: the mean magnitude of each run of 256 positions, as many scales as the wire's `sign` coding writes anyway.
`vector`: one root mean square for the whole vector, as published. With the l2 scale the sign of a heavy-tailed vector is
no contraction (it needs ||x||_1 > sqrt(d) ||x||_2 / 2), and feedback then piles up instead of dying out."""


class Schedule(Protocol):
    """Which rounds are dense."""

    def dense(self, round_number: int) -> bool:
        """Tell whether W, M and V are averaged in this round, counted from 1; the first must be."""
        ...


@dataclass(frozen=True, slots=True)
class ScheduledBits:
    """3 d q in dense rounds; in the others d + q and the scales: the signs and the number of steps."""

    schedule: Schedule

    def __call__(self, dim: int, round_number: int = 1) -> int:
        """Bits for a model of `dim` parameters."""
        formula = DenseBits(3) if self.schedule.dense(round_number) else SignBits(1)
        return formula(dim)


def denominator(second_moment: NDArray[np.float32], config: AdamConfig) -> NDArray[np.float32]:
    """Return what local Adam divides by, shape `(d,)`."""
    eps = np.float32(config.eps)
    divisor: NDArray[np.float32] = (
        np.sqrt(second_moment + eps) if config.eps_inside_sqrt else np.sqrt(second_moment) + eps
    )
    return divisor


def advance(
    streams: NDArray[np.float32], message: NDArray[np.float32], steps: float, config: AdamConfig
) -> NDArray[np.float32]:
    """Return the model after a compressed round: the same numbers on the server and on every device.

    Args:
        streams: Shape `(3, d)`: W, M and V before.
        message: Shape `(d,)`: the decoded mean momentum.
        steps: The mean number of local steps.
        config: Local Adam's settings.
    """
    momentum = np.where(streams[2] > 0, message, np.float32(0.0))
    change = np.float32(config.lr * steps) * momentum / denominator(streams[2], config)
    return np.stack([streams[WEIGHTS] - change, momentum, streams[2]])


def live_signs(values: NDArray[np.float32], live: NDArray[np.bool_], scale: Scale) -> NDArray[np.float32]:
    """Return each value's sign times its scale, made of the live values alone; `+scale` where a value is not live.

    Done to its own result, with the other positions set to zero, it gives that result again.

    Args:
        values: Shape `(d,)`.
        live: Shape `(d,)`: which count.
        scale: One for each run of 256 positions, or one for all.
    """
    starts = np.arange(0, len(values), BLOCK) if scale == "block" else np.zeros(1, np.int64)
    wide = np.where(live, values, 0.0).astype(np.float64)
    power = np.abs(wide) if scale == "block" else wide**2
    means = np.add.reduceat(power, starts) / np.maximum(1, np.add.reduceat(live.astype(np.int64), starts))
    scales = (means if scale == "block" else np.sqrt(means)).astype(np.float32)
    each = np.repeat(scales, np.diff(starts, append=len(values)))
    return np.where(wide < 0, -each, each)


def _keep_none(delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:  # noqa: ARG001 -- a Selector
    return (Block(_NOWHERE, np.empty((len(delta), 0), np.float32)),)


def _message(momentum: NDArray[np.float32], steps: float) -> tuple[Block, Block]:
    return Block(None, momentum[None]), Block(np.zeros(1, np.uint32), np.array([[steps]], np.float32))


@dataclass(frozen=True, slots=True)
class FrozenAdamClient:
    """The device: dense changes in dense rounds, the sign of the mean momentum in the others.

    Attributes:
        schedule: Which rounds are dense.
        local: Local Adam's settings.
        codec: What encodes momentum and number of steps.
        scale: What the scales are made of.
        buffers: The buffer policy.
    """

    schedule: Schedule
    local: AdamConfig
    codec: Codec
    scale: Scale
    buffers: BufferPolicy

    def begin(self, broadcast: Update, memory: Memory) -> ModelState:
        """Start from the whole model, or from the last one and the increment; freeze V unless the round is dense.

        Raises:
            ConfigError: If the broadcast is an increment to a model that this client does not hold.
        """
        if is_whole(broadcast):
            blocks = broadcast.blocks[:-1]
        else:
            momentum, steps = dense(broadcast)
            held = require_held_model(memory, broadcast.round)
            blocks = (Block(None, advance(held, momentum, float(steps[0]), self.local)),)
        start = self._rule(dense_round=True).begin(replace(broadcast, blocks=blocks), memory)
        return replace(start, frozen_second_moment=not self.schedule.dense(broadcast.round))

    def finish(
        self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext
    ) -> tuple[Update, Memory]:
        """Send the changes of W, M and V, or the sign of the mean momentum with what is left of earlier rounds.

        Raises:
            NonFiniteError: If training produced NaN or infinity.
        """
        dense_round = self.schedule.dense(context.round)
        update, kept = self._rule(dense_round=dense_round).finish(start, end, memory, context)
        left = {_RESIDUAL: memory[_RESIDUAL]} if _RESIDUAL in memory else {}
        if dense_round:
            return update, {**kept, **left}
        scale = denominator(start.second_moment, self.local) / np.float32(self.local.lr * context.steps)
        wanted = (start.params - end.params) * scale
        if left:
            wanted += left[_RESIDUAL]
        live = start.second_moment > 0
        message = _message(live_signs(wanted, live, self.scale), context.steps)
        arrives = dense(received(Update(start.dim, message), self.codec))[0]
        left = {_RESIDUAL: np.where(live, wanted - arrives, np.float32(0.0))}
        update = replace(update, blocks=(*update.blocks, *message))
        return update, {**kept, **left, **remember_model(start, 3, context.round)}

    def _rule(self, *, dense_round: bool) -> DeltaClient:
        return DeltaClient(keep_all if dense_round else _keep_none, buffers=self.buffers)


@dataclass(frozen=True, slots=True)
class FrozenAdamServer:
    """The server: the average of W, M and V in dense rounds, its sign and scale in the others.

    Attributes:
        schedule: Which rounds are dense.
        local: Local Adam's settings.
        codec: What encodes momentum and number of steps on the way down.
        scale: What the scales are made of.
        buffers: The buffer policy.
    """

    schedule: Schedule
    local: AdamConfig
    codec: Codec
    scale: Scale
    buffers: BufferPolicy

    def init(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> ServerState:
        """Return the initial weights with moments of zero."""
        return self._average().init(params, buffers)

    def broadcast(self, state: ServerState) -> Update:
        """Return W, M and V, dense."""
        return whole(self._average().broadcast(state))

    def check(self, state: ServerState, update: Update) -> None:
        """Refuse updates of another shape or round, and those with NaN or infinity, or without steps.

        Raises:
            RefusedUpdateError: With reason `"shape"`, `"stale-round"` or `"non-finite"`.
        """
        if self.schedule.dense(state.round + 1):
            self._average().check(state, update)
            return
        check_update(
            update,
            num_streams=_COMPRESSED_STREAMS,
            dim=state.model.dim,
            num_buffers=len(state.model.buffers) if self.buffers == "average" else 0,
            expected_round=state.round + 1,
        )
        shapes = [block.values.shape for block in update.blocks]
        if shapes != [(3, 0), (1, update.dim), (1, 1)]:
            raise RefusedUpdateError(
                "shape",
                f"An update of round {update.round} must have blocks of shapes (3, 0), (1, {update.dim}) and (1, 1), got {shapes}.",
            )
        steps = update.blocks[2].values[0, 0]
        if steps < 1:
            raise RefusedUpdateError("shape", f"An update must report at least 1 local step, got {steps}.")

    def aggregate(self, state: ServerState, uploads: Iterable[Upload]) -> ServerState:
        """Average in a dense round; else average the momenta, compress the mean, and take the step that it says."""
        if self.schedule.dense(state.round + 1):
            return self._average().aggregate(state, uploads)
        model = state.model
        num_buffers = len(model.buffers) if self.buffers == "average" else 0
        total, steps = WeightedSum(1, model.dim, num_buffers), 0.0
        for upload in uploads:
            _, momentum, count = upload.update.blocks
            total.add(replace(upload.update, blocks=(momentum,)), upload.weight)
            steps += upload.weight * float(count.values[0, 0])
        if not total.count:
            return ServerState(model, state.round + 1, state.memory)
        (mean,), mean_buffers = total.mean()
        live = model.second_moment > 0
        wanted = (mean + state.memory.get(_RESIDUAL, np.float32(0.0))).astype(np.float32)
        message = _message(live_signs(wanted, live, self.scale), steps / total.weight)
        momentum_row, steps_row = dense(received(Update(model.dim, message), self.codec))
        streams = advance(model.streams, momentum_row, float(steps_row[0]), self.local)
        memory = {
            _RESIDUAL: np.where(live, wanted - momentum_row, np.float32(0.0)),
            _STEPS: steps_row[:1],
            _FORMED: np.array([state.round + 1], np.float32),
        }
        buffers = (model.buffers + mean_buffers).astype(np.float32) if num_buffers else model.buffers
        return ServerState(ModelState(streams, buffers), state.round + 1, memory)

    def _average(self) -> AveragingServer:
        return AveragingServer(3, self.buffers)


@dataclass(frozen=True, slots=True)
class MomentumIncrements:
    """An `IncrementRule`: sign and scale of the mean momentum, and the number of steps.

    The server's first moment is that sign and scale where V is not zero, so that nothing else need be kept.

    Attributes:
        codec: What encodes the increment.
        scale: What the scales are made of.
    """

    codec: Codec
    scale: Scale

    def message(self, state: ServerState) -> Update | None:
        """Return the increment to the model that the last round left; None if that was dense or silent."""
        formed = state.memory.get(_FORMED)
        if formed is None or float(formed[0]) != state.round:
            return None
        momentum = state.model.first_moment
        live = state.model.second_moment > 0
        blocks = _message(live_signs(momentum, live, self.scale), float(state.memory[_STEPS][0]))
        return Update(state.model.dim, blocks, state.model.buffers, round=state.round + 1)

    def applies(self, memory: Memory, round_number: int) -> bool:
        """Tell whether the memory holds the model of the round before."""
        return holds_model(memory, round_number)


def frozen_adam(
    name: str, local: AdamConfig, schedule: Schedule, *, values: str, scale: Scale, buffers: BufferPolicy
) -> Algorithm:
    """Return the algorithm of that schedule.

    Args:
        name: Its row in `ALGORITHMS`.
        local: Local Adam's settings, without bias correction.
        schedule: Which rounds are dense.
        values: The value coding of the momentum: one that keeps two-valued streams as they are.
        scale: What the scales are made of.
        buffers: The buffer policy.

    Raises:
        ConfigError: If there is no such scale, if eps is 0 (V may be, too), or if local Adam corrects biases: the change of
            the weights would not be the mean momentum.
    """
    if scale not in get_args(Scale):
        raise ConfigError(f"scale must be one of {', '.join(get_args(Scale))}, got {scale!r}.")
    if local.bias_correction != "none":
        raise ConfigError(
            f"{name} must run with bias_correction='none', as published, got {local.bias_correction!r}."
        )
    require_finite(name, "eps", local.eps, low=0.0, open_low=True)
    codec = coded(name, values, "float32")
    return Algorithm(
        name=name,
        num_streams=3,
        local=local,
        client=FrozenAdamClient(schedule, local, codec, scale, buffers),
        server=FrozenAdamServer(schedule, local, codec, scale, buffers),
        uplink=coded(name, "float32", "float32", "float32", values, "float32"),
        downlink=get_codec("exact"),
        paper_bits=ScheduledBits(schedule),
        increment=MomentumIncrements(codec, scale),
    )
