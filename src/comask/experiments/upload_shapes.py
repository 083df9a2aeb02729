"""What an algorithm's uploads are made of, for any row of `ALGORITHMS`: found by playing rounds of it on short vectors.

A table of shapes would be one more place to touch for every new algorithm, and one more to be wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from comask.algorithms import algorithm_options, make_algorithm
from comask.algorithms.base import Algorithm, ClientContext, Memory, ServerState, Upload
from comask.masks import num_kept
from comask.seeding import derive_rng
from comask.state import SECOND_MOMENT, ModelState
from comask.wire import Block, Codec, ParamLayout, Update, decode, encode

OWN = "own"
"""Stands for the codec of an algorithm that brings its own."""

_TYPICAL = (2e-3, 2e-4, 5e-7)  # mean |dW|, |dM|, |dV| seen on Fashion-MNIST
_LENGTHS = (
    1 << 15,
    1 << 16,
)  # two, to tell what grows with the vector from what does not; whole chunks of any method
_DENSITY = 1 / 16


@dataclass(frozen=True, slots=True)
class BlockShape:
    """One block of an upload, for a vector of any length.

    Attributes:
        streams: How many streams share its positions.
        dense: Whether all positions are kept.
        factor: Kept positions over density times length; 0 if their number does not grow with the vector.
        count: That number.
    """

    streams: int
    dense: bool
    factor: float = 0.0
    count: int = 0

    def kept(self, dim: int, density: float) -> int:
        """Return how many positions are kept of `dim`."""
        if self.dense:
            return dim
        return num_kept(min(1.0, self.factor * density), dim) if self.factor else self.count


@dataclass(frozen=True, slots=True)
class UploadShape:
    """The uploads of some of the rounds of a run.

    Attributes:
        share: Which part of the rounds.
        last: The last of them that was played; what comes after it looks the same.
        blocks: The blocks.
        buffers: Whether buffers travel along.
    """

    share: float
    last: int
    blocks: tuple[BlockShape, ...]
    buffers: bool


@dataclass(frozen=True, slots=True, eq=False)
class ClientTurn:
    """A client at the end of its local training: all that its rule's `finish` takes."""

    algorithm: Algorithm
    start: ModelState
    end: ModelState
    memory: Memory
    context: ClientContext

    def finish(self) -> tuple[Update, Memory]:
        """Make the upload."""
        return self.algorithm.client.finish(self.start, self.end, self.memory, self.context)


def takes_density(name: str) -> bool:
    """Tell whether an algorithm has a density to choose."""
    return "density" in algorithm_options(name)


def takes_codec(name: str) -> bool:
    """Tell whether an algorithm leaves the codec to its user."""
    return "codec" in algorithm_options(name)


def configured(name: str, codec: Codec | str, density: float) -> Algorithm:
    """Make an algorithm with this codec, unless it is `OWN`, and this density, if it has one."""
    options: dict[str, Any] = {} if codec == OWN else {"codec": codec}
    return make_algorithm(name, **options, **({"density": density} if takes_density(name) else {}))


def play(algorithm: Algorithm, dim: int, rounds: int, *, num_buffers: int = 0) -> ClientTurn:
    """Play rounds with one client and synthetic changes, up to the last one's upload.

    Changes are normal, of a trained network's magnitudes, so masks have no structure.
    """
    rng = derive_rng(0, "plan")
    layout = ParamLayout(("synthetic",), ((dim, 1),))  # two axes, for methods that treat vectors otherwise
    state: ServerState = algorithm.server.init(
        rng.standard_normal(dim, np.float32), np.ones(num_buffers, np.float32)
    )
    memory: Memory = {}
    for number in range(1, rounds + 1):
        start = algorithm.client.begin(algorithm.server.broadcast(state), memory)
        trained = start.streams[: len(_TYPICAL)]  # a row below Adam's three is not trained
        change = rng.standard_normal(trained.shape, np.float32)
        change *= np.array(_TYPICAL[: len(change)], np.float32)[:, None]
        if len(change) > SECOND_MOMENT:
            np.abs(change[SECOND_MOMENT], out=change[SECOND_MOMENT])
        change += trained
        end = ModelState(change, start.buffers + np.float32(1))
        turn = ClientTurn(
            algorithm, start, end, memory, ClientContext(number, 0, 0, layout, algorithm.uplink)
        )
        if number < rounds:
            update, memory = turn.finish()
            payload = encode(update, algorithm.uplink, layout=layout, seed=turn.context.rounding_seed)
            arrived = decode(payload, dim=dim, layout=layout)
            state = algorithm.server.aggregate(state, [Upload(0, 1.0, arrived)])
    return turn


@cache
def upload_shapes(name: str, rounds: int) -> tuple[UploadShape, ...]:
    """Return the shapes that an algorithm's uploads have in rounds 1 to `rounds`: one for most, more for those with a warm-up.

    Rounds that cost the same by the paper's accounting have uploads of one shape.
    """
    algorithm = configured(name, OWN, _DENSITY)
    costs = [algorithm.paper_bits(_LENGTHS[0], number) for number in range(1, rounds + 1)]
    shapes = []
    for cost in dict.fromkeys(costs):
        first = costs.index(cost) + 1
        updates = [play(algorithm, dim, first, num_buffers=1).finish()[0] for dim in _LENGTHS]
        blocks = zip(*(update.blocks for update in updates), strict=True)
        shapes.append(
            UploadShape(
                share=costs.count(cost) / rounds,
                last=first,
                blocks=tuple(_shape(*pair) for pair in blocks),
                buffers=bool(len(updates[0].buffers)),
            )
        )
    return tuple(shapes)


def _shape(short: Block, long: Block) -> BlockShape:
    streams = len(short.values)
    if short.indices is None:
        return BlockShape(streams, dense=True)
    counts = [len(block.values[0]) for block in (short, long)]
    if counts[0] == counts[1]:
        return BlockShape(streams, dense=False, count=counts[0])
    return BlockShape(streams, dense=False, factor=counts[1] / (_DENSITY * _LENGTHS[1]))
