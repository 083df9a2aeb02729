"""What an algorithm is: a frozen value made of pure functions, with all state passed in and returned.

One round, seen by the code that runs it (the simulator and the Flower adapter alike):

```
server    broadcast = algorithm.server.broadcast(state)            -> Update, encoded by algorithm.downlink
client    start     = algorithm.client.begin(broadcast, memory)    -> ModelState
          ... local steps with the optimiser that algorithm.local describes, in anybody's training loop ...
          update, memory = algorithm.client.finish(start, end, memory, context)   # encoded by algorithm.uplink
server    state     = algorithm.server.aggregate(state, uploads)   # uploads: decoded, weighted, in any order
```

Nothing here imports torch, so that a server can aggregate without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError
from comask.wire.codec import Codec
from comask.wire.update import ParamLayout, Update

Memory = Mapping[str, NDArray[np.float32]]
"""What a client or a server keeps between rounds beside the model (residuals, frozen moments): named arrays, empty at first."""

WEIGHTS, FIRST_MOMENT, SECOND_MOMENT = 0, 1, 2
"""Rows of `ModelState.streams`."""


def _no_buffers() -> NDArray[np.float32]:
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class ModelState:
    """A model and the moments that travel with it, as one matrix.

    Attributes:
        streams: Shape `(s, d)` float32. Row 0 holds the weights; with `s = 3`, rows 1 and 2 hold Adam's first and
            second moment (the second never negative). With `s = 1` the optimiser has no state that travels.
        buffers: Shape `(b,)` float32: statistics that are sent but not trained.
    """

    streams: NDArray[np.float32]
    buffers: NDArray[np.float32] = field(default_factory=_no_buffers)

    def __post_init__(self) -> None:
        if self.streams.ndim != 2 or self.streams.dtype != np.float32:
            raise ConfigError(f"ModelState.streams must be a (s, d) float32 array, got {self.streams.shape} {self.streams.dtype}.")

    @property
    def dim(self) -> int:
        """Number of trained parameters, `d`."""
        return int(self.streams.shape[1])

    @property
    def params(self) -> NDArray[np.float32]:
        """The weights, shape `(d,)`: a view."""
        return self.streams[WEIGHTS]

    @property
    def first_moment(self) -> NDArray[np.float32]:
        """Adam's running mean of the gradient, shape `(d,)`: a view."""
        return self.streams[FIRST_MOMENT]

    @property
    def second_moment(self) -> NDArray[np.float32]:
        """Adam's running mean of the squared gradient, shape `(d,)`: a view."""
        return self.streams[SECOND_MOMENT]


@dataclass(frozen=True, slots=True, eq=False)
class ServerState:
    """All that a server must keep to continue: the model, and whatever memory its rule has."""

    model: ModelState
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientContext:
    """Read-only facts that a client rule may use in `finish`.

    Attributes:
        round: The current round, from 1.
        client: The client's number.
        seed: The run's root seed; rules derive their own streams from it.
        layout: Names and shapes of the tensors in the flat vector.
    """

    round: int
    client: int
    seed: int
    layout: ParamLayout


@dataclass(frozen=True, slots=True, eq=False)
class Upload:
    """One client's decoded contribution to a round.

    Attributes:
        client: Who sent it.
        weight: Its unnormalised weight, the number of samples it holds; positive and finite.
        update: The decoded update.
    """

    client: int
    weight: float
    update: Update


class ClientRule(Protocol):
    """The device's side of an algorithm."""

    def begin(self, broadcast: Update, memory: Memory) -> ModelState:
        """Turn what the server sent into the state that local training starts from."""
        ...

    def finish(self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext) -> tuple[Update, Memory]:
        """Turn the state before and after local training into the upload and the next memory.

        Raises:
            NonFiniteError: If training produced NaN or infinity; the message names the stream and position.
        """
        ...


class ServerRule(Protocol):
    """The server's side of an algorithm."""

    def init(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> ServerState:
        """Return the state before round 1, from the initial weights `(d,)` and buffers `(b,)`."""
        ...

    def broadcast(self, state: ServerState) -> Update:
        """Return what every client of the next round receives."""
        ...

    def aggregate(self, state: ServerState, uploads: Iterable[Upload]) -> ServerState:
        """Add the weighted mean of the uploads; with none, return the state as it was."""
        ...
