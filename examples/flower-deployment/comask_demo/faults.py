"""What a client does wrong when its node's configuration says so: `faults="2:hang 3:garbage"`, one fault a round.

| fault | what the client does |
| --- | --- |
| `raise` | trains, keeps its residual, and raises |
| `die`, `hang`, `wait` | says that it trains, and goes on when it is let: never, after the round, after the server was killed |
| `garbage` | sends random bytes in place of its payload |
| `nan` | sends a valid payload that holds a NaN |
| `repeat` | sends the reply of an earlier round again |
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message

from comask.wire import Block, ParamLayout, decode, encode

PAYLOAD, RECEIPT = "comask.payload", "comask.receipt"
_HELD_BACK = ("die", "hang", "wait")
_AT_MOST = 600.0
"""Seconds that a client is held back for; whoever was to let it go on has died by then."""


class Faults:
    """The faults of one client.

    Args:
        context: Flower's; its node configuration holds `faults`, and `signals`: the folder of `Gate`.
        client: The client's number.
        number: The round's.
    """

    def __init__(self, context: Context, client: int, number: int) -> None:
        plan = dict(each.split(":") for each in str(context.node_config.get("faults", "")).split())
        self.name = plan.get(str(number), "")
        self._repeats = "repeat" in plan.values()
        self._folder = Path(str(context.node_config["signals"]))
        self._client, self._number = client, number

    def hold_back(self) -> None:
        """Before training: wait, if that is the fault."""
        if self.name in _HELD_BACK:
            Gate(self._folder, self._client, self._number).wait()

    def spoil(self, reply: Message, layout: ParamLayout) -> Message:
        """After training: return what is sent in place of an honest reply."""
        (array,) = reply.content[PAYLOAD].values()
        kept = self._folder / f"reply-of-{self._client}"
        if self.name == "raise":
            raise RuntimeError("This client fails on purpose.")
        if self.name == "garbage":
            _send(reply, np.random.default_rng(0).bytes(4096))
        elif self.name == "nan":
            _send(reply, _with_nan(array.data, layout))
        elif self.name == "repeat":
            _send(reply, kept.read_bytes())
            old = decode(kept.read_bytes(), dim=layout.dim, layout=layout)
            reply.content[RECEIPT] = ConfigRecord({**reply.content[RECEIPT], "round": old.round})
        elif self._repeats:
            kept.write_bytes(array.data)
        return reply


class Gate:
    """Where a client says that it trains, and waits to be let go on; two files, since it is in a process of its own."""

    def __init__(self, folder: Path, client: int, number: int) -> None:
        self._reached = folder / f"client-{client}-trains-in-round-{number}"
        self._open = folder / f"client-{client}-may-finish-round-{number}"

    @property
    def reached(self) -> bool:
        """Whether the client is there."""
        return self._reached.exists()

    def open(self) -> None:
        """Let the client go on."""
        self._open.touch()

    def wait(self) -> None:
        """Say that the client is there, and wait."""
        self._reached.touch()
        deadline = time.monotonic() + _AT_MOST
        while not self._open.exists() and time.monotonic() < deadline:
            time.sleep(0.1)


def _send(reply: Message, data: bytes) -> None:
    reply.content[PAYLOAD] = ArrayRecord({"data": Array("uint8", (len(data),), "comask.update.v1", data)})


def _with_nan(payload: bytes, layout: ParamLayout) -> bytes:
    update = decode(payload, dim=layout.dim, layout=layout)
    (block,) = update.blocks
    values = block.values.copy()
    values[0, 0] = np.nan
    return encode(replace(update, blocks=(Block(block.indices, values),)), layout=layout)
