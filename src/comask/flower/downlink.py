"""The downlink as changes: a client that holds an earlier broadcast is sent only the entries that differ since.

Changes are new values, not differences, so applying them gives the very bits of the full broadcast. The server keeps one
number a position, the round in which it last changed, and so can serve any earlier version without keeping any:
O(dim) memory whatever the number of clients and versions.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.base import Algorithm, ServerState
from comask.errors import FleetError
from comask.wire.container import encode
from comask.wire.update import Block, ParamLayout, Update

_LOSSLESS = {"float32"}
"""Value codings for which the value of one entry does not depend on what else is sent."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A payload for a client, and how it is to be read.

    Attributes:
        payload: The bytes.
        base: 0, or the round of the broadcast that the payload holds changes to.
        increment: Whether it is the algorithm's own increment in place of the broadcast.
    """

    payload: bytes
    base: int = 0
    increment: bool = False


class Downlink:
    """The server's side: encodes for clients that hold different versions, each version once a round.

    An algorithm that has an increment of its own is left to it: there are no changes beside it.

    Args:
        algorithm: Its downlink codec encodes. A lossy one is only used for whole broadcasts.
        layout: The model's layout.
        patches: Whether to send changes at all.

    Attributes:
        digest: Of the current broadcast; empty unless changes to it can be sent.
        keep: Whether clients are to keep the current broadcast.
    """

    def __init__(self, algorithm: Algorithm, layout: ParamLayout, *, patches: bool) -> None:
        self._algorithm, self._layout = algorithm, layout
        self._patches = (
            patches and algorithm.increment is None and set(algorithm.downlink.values) <= _LOSSLESS
        )
        self._state: ServerState | None = None
        self._broadcast: Update | None = None
        self._changed = np.zeros(0, np.uint32)
        self._since = 0
        self._made: dict[int | str, Outgoing | None] = {}
        self.digest = ""
        self.keep = False

    def advance(self, state: ServerState) -> None:
        """Begin the round after `state.round`."""
        self._made.clear()
        self._state, before = state, self._broadcast
        broadcast = self._broadcast = self._algorithm.server.broadcast(state)
        self.keep = self._patches and is_whole(broadcast)
        if not self.keep:
            return
        self.digest = digest(broadcast)
        if before is None or not is_whole(before):
            self._changed = np.zeros(broadcast.dim, np.uint32)
            self._since = broadcast.round
            return
        new, old = broadcast.blocks[0].values, before.blocks[0].values
        # Bit patterns, not numbers: 0.0 == -0.0, and only one of them is the broadcast.
        differs = (new.view(np.uint32) != old.view(np.uint32)).any(axis=0)
        self._changed[differs] = broadcast.round

    def outgoing(self, *, held: int, accepted: int) -> Outgoing:
        """Return the shortest payload that a client can use.

        Args:
            held: The round of the broadcast that the client keeps; 0: none.
            accepted: The last round in which its upload was added; 0: none.
        """
        assert self._state is not None, "advance comes first"
        if (
            accepted
            and accepted == self._state.round
            and (increment := self._once("increment", self._increment))
        ):
            return increment
        full = self._once("full", self._full)
        assert full is not None, "there is always the whole"
        if not self.keep or not self._since <= held <= self._state.round:
            return full
        changes = self._once(held, lambda: self._changes(held))
        return changes if changes is not None and len(changes.payload) < len(full.payload) else full

    def _once(self, key: int | str, make: Callable[[], Outgoing | None]) -> Outgoing | None:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def _increment(self) -> Outgoing | None:
        rule = self._algorithm.increment
        assert self._state is not None
        update = None if rule is None else rule.message(self._state)
        if rule is None or update is None:
            return None
        return Outgoing(encode(update, rule.codec, layout=self._layout), increment=True)

    def _full(self) -> Outgoing:
        assert self._broadcast is not None
        return Outgoing(encode(self._broadcast, self._algorithm.downlink, layout=self._layout))

    def _changes(self, held: int) -> Outgoing:
        assert self._broadcast is not None
        values = self._broadcast.blocks[0].values
        indices = np.flatnonzero(self._changed > held).astype(np.uint32)
        changes = replace(self._broadcast, blocks=(Block(indices, values[:, indices]),))
        return Outgoing(encode(changes, self._algorithm.downlink, layout=self._layout), base=held)


def is_whole(broadcast: Update) -> bool:
    """Tell whether a broadcast is one dense block, so that changes to it can be told."""
    return len(broadcast.blocks) == 1 and broadcast.blocks[0].indices is None


def digest(broadcast: Update) -> str:
    """Return 32 hexadecimal digits that differ, for all practical purposes, whenever two whole broadcasts do."""
    values = np.ascontiguousarray(broadcast.blocks[0].values, "<f4")
    hashed = hashlib.blake2b(digest_size=16, person=b"comask.model")
    hashed.update(f"{values.shape} {broadcast.round} ".encode())
    hashed.update(values.data)
    hashed.update(np.ascontiguousarray(broadcast.buffers, "<f4").data)
    return hashed.hexdigest()


def apply_changes(changes: Update, streams: NDArray[np.float32], expected: str) -> Update:
    """Return the broadcast: what the client holds, with the changes applied.

    Args:
        changes: The decoded payload.
        streams: Shape `(s, d)`: the broadcast that the client holds; left as it is.
        expected: The digest of the result.

    Raises:
        FleetError: If the changes do not fit what the client holds, or the result is not what the server meant.
    """
    if len(changes.blocks) != 1 or (changes.num_streams, changes.dim) != streams.shape:
        raise FleetError(
            f"The changes are for {changes.num_streams} streams of {changes.dim} in {len(changes.blocks)} blocks, "
            f"the kept model has shape {streams.shape}."
        )
    block = changes.blocks[0]
    values = streams.copy()
    if block.indices is None:
        values[...] = block.values
    else:
        values[:, block.indices] = block.values
    broadcast = replace(changes, blocks=(Block(None, values),))
    if digest(broadcast) != expected:
        raise FleetError("The kept model with the changes applied is not the server's model.")
    return broadcast
