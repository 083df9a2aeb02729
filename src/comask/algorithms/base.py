"""What an algorithm is: a frozen value made of pure functions, with all state passed in and returned.

One round, seen by the code that runs it (the simulator and the Flower adapter alike):

```
server    broadcast = algorithm.server.broadcast(state)            -> Update, encoded by algorithm.downlink
          (or, for a client that holds the last round's model, algorithm.increment.message(state): what has changed since)
client    start     = algorithm.client.begin(broadcast, memory)    -> ModelState
          ... local steps with the optimiser that algorithm.local describes, in anybody's training loop ...
          update, memory = algorithm.client.finish(start, end, memory, context)   # encoded by algorithm.uplink
server    algorithm.server.check(state, update)                      # for each decoded upload; raises if it must not be added
          state     = algorithm.server.aggregate(state, uploads)   # uploads: checked, weighted, in any order
```

Nothing here imports torch, so that a server can aggregate without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from comask.hyperparams import LocalConfig
from comask.seeding import derive_seed
from comask.state import ModelState
from comask.wire.codec import Codec
from comask.wire.update import ParamLayout, Update

Memory = Mapping[str, NDArray[np.float32]]
"""What a client or a server keeps between rounds beside the model (residuals, frozen moments): named arrays, empty at first."""


@dataclass(frozen=True, slots=True, eq=False)
class ServerState:
    """All that a server must keep to continue.

    Attributes:
        model: The model and the moments that travel with it.
        round: Rounds completed: 0 before the first.
        memory: Whatever else the server's rule remembers.
    """

    model: ModelState
    round: int = 0
    memory: Memory = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientContext:
    """Read-only facts that a client rule may use in `finish`.

    Attributes:
        round: The current round, from 1.
        client: The client's number.
        seed: The run's root seed; rules derive their own streams from it.
        layout: Names and shapes of the tensors in the flat vector.
        codec: What will encode the upload. Error feedback needs it: what a lossy coding drops is carried over too.
        steps: How many local steps were taken in this round; `ClientRound` counts them.
    """

    round: int
    client: int
    seed: int
    layout: ParamLayout
    codec: Codec
    steps: int = 1

    @property
    def rounding_seed(self) -> int:
        """The seed with which the upload is encoded, for codecs that round at random."""
        return derive_seed(self.seed, "rounding", self.round, self.client)


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

    def finish(
        self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext
    ) -> tuple[Update, Memory]:
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
        """Return what every client of round `state.round + 1` receives."""
        ...

    def check(self, state: ServerState, update: Update) -> None:
        """Refuse a decoded update that `aggregate` must not see.

        Raises:
            RefusedUpdateError: With the reason.
        """
        ...

    def aggregate(self, state: ServerState, uploads: Iterable[Upload]) -> ServerState:
        """Add the weighted mean of the uploads and count the round; with none, the model stays as it was."""
        ...


class PaperBits(Protocol):
    """Uplink bits of one device in one round by a paper's accounting."""

    def __call__(self, dim: int, round_number: int = 1) -> int:
        """Return the bits for a model of `dim` parameters in the round of that number, from 1."""
        ...


class IncrementRule(Protocol):
    """A short way down: what has changed since the last round, for clients that hold the model of that round.

    `ServerRule.broadcast` stays right for everybody. A client gets the increment only if `applies` says so of the memory
    that the server has seen it commit, that is, if its upload of the round before was accepted; one that was not chosen,
    dropped out or was refused gets the whole. Client rules tell the two apart by looking at the message.
    """

    @property
    def codec(self) -> Codec:
        """What encodes the increment."""
        ...

    def message(self, state: ServerState) -> Update | None:
        """Return the increment from round `state.round`'s model to that of round `state.round + 1`, or None if there is none."""
        ...

    def applies(self, memory: Memory, round_number: int) -> bool:
        """Tell whether a client with this memory can use the increment of this round."""
        ...


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm with all its settings: a value, without state.

    Attributes:
        name: Its row in `ALGORITHMS`.
        num_streams: Rows of `ModelState.streams` that travel: 3 with Adam's moments, 1 without.
        local: The local optimiser's settings.
        client: The device's pure functions.
        server: The server's pure functions.
        uplink: How uploads are encoded.
        downlink: How broadcasts are encoded.
        paper_bits: Uplink bits of one device in one round by the paper's accounting (q = 32 bits a number).
        increment: The short way down of methods that compress both ways; None: every client gets the broadcast.
    """

    name: str
    num_streams: int
    local: LocalConfig
    client: ClientRule
    server: ServerRule
    uplink: Codec
    downlink: Codec
    paper_bits: PaperBits
    increment: IncrementRule | None = None
