"""One client's round, from the broadcast to the payload: the code path that the simulator and Flower share."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from comask.algorithms.base import Algorithm, ClientContext, Memory
from comask.flat import FlatModel
from comask.optim import LocalOptimizer, local_optimizer
from comask.state import ModelState
from comask.wire.container import encode
from comask.wire.update import Update


@dataclass(frozen=True, slots=True)
class ClientReply:
    """What a client's round leaves behind.

    Attributes:
        payload: The upload.
        memory: What the client must remember, once the upload is accepted.
        mask_seconds: Time spent choosing what to send.
        encode_seconds: Time spent turning it into bytes.
    """

    payload: bytes
    memory: Memory
    mask_seconds: float
    encode_seconds: float


class ClientRound:
    """A client's round in three steps: make this, train with `optimizer` in any loop, call `finish`.

    Args:
        algorithm: What is run.
        model: Overwritten with the state that training starts from.
        broadcast: The decoded message of the server.
        memory: What this client kept; empty in its first round.
        context: The facts of this round; its `steps` are counted here.
        steps_before: Local steps of earlier rounds; counts only with `bias_correction="global"`.

    Attributes:
        optimizer: The optimiser that local training must use.
    """

    def __init__(
        self,
        algorithm: Algorithm,
        model: FlatModel,
        broadcast: Update,
        memory: Memory,
        context: ClientContext,
        *,
        steps_before: int = 0,
    ) -> None:
        self._algorithm, self._model, self._memory, self._context = algorithm, model, memory, context
        self._start = algorithm.client.begin(broadcast, memory)
        self.optimizer: LocalOptimizer = local_optimizer(
            algorithm.local, model, self._start, steps_before=steps_before
        )

    def finish(self) -> ClientReply:
        """Compare with the start, select and encode.

        Raises:
            NonFiniteError: If training produced NaN or infinity.
        """
        began = time.perf_counter()
        end = ModelState(self.optimizer.streams(), self._model.buffers_array())
        context = replace(self._context, steps=self.optimizer.steps)
        update, memory = self._algorithm.client.finish(self._start, end, self._memory, context)
        masked = time.perf_counter()
        payload = encode(update, self._algorithm.uplink, layout=context.layout, seed=context.rounding_seed)
        encoded = time.perf_counter()
        return ClientReply(payload, memory, masked - began, encoded - masked)
