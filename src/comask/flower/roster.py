"""Which node is which client, and who is asked in a round."""

from __future__ import annotations

import logging
import time
from typing import Literal

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from comask.flower.exchange import exchange

Numbering = Literal["assigned", "announced"]

_ACTION = "comask"
_NUMBER = "client"
_MAX_CLIENT = 2**31 - 1
_PATIENCE = 60.0
"""Seconds that a new node has to say its number: in a deployment it first starts a process and imports torch."""

_log = logging.getLogger("flwr")


def announce(app: ClientApp) -> ClientApp:
    """Let the nodes of an app say their number, the node's `partition-id`, to a strategy that asks for it.

    Returns:
        The app.
    """

    @app.query(_ACTION)
    def number(message: Message, context: Context) -> Message:
        partition = context.node_config.get("partition-id")
        record = ConfigRecord() if partition is None else ConfigRecord({_NUMBER: int(partition)})
        return Message(RecordDict({_ACTION: record}), reply_to=message)

    return app


_TRIES = 3
"""How often a node is asked that answers nothing or fails: it may still be starting."""


class Roster:
    """The numbers of the nodes seen so far. A node keeps its number when it leaves and comes back.

    Args:
        numbering: `"assigned"`: new nodes get the lowest free numbers, in the order of their ids. `"announced"`: nodes
            are asked (see `announce`), and one without an answer takes no part. A node that claims another's number
            gets it when the other cannot be reached: Flower gives a node without a key of its own, and one of a
            SuperLink without a database, a new id after a restart.

    Attributes:
        clients: Numbers by node id; may be set to those of an earlier run of the server.
    """

    def __init__(self, numbering: Numbering) -> None:
        self._numbering = numbering
        self.clients: dict[int, int] = {}
        self._claims: dict[int, int] = {}
        self._tries: dict[int, int] = {}

    def online(self, grid: Grid) -> dict[int, int]:
        """Return the nodes that can be reached now: node ids by client number."""
        nodes = sorted(set(grid.get_node_ids()))
        # A node that went away and came back is asked again.
        self._tries = {node: tries for node, tries in self._tries.items() if node in nodes}
        self._claims = {node: number for node, number in self._claims.items() if node in nodes}
        known = {*self.clients, *self._claims}
        new = [node for node in nodes if node not in known and self._tries.get(node, 0) < _TRIES]
        if new and self._numbering == "assigned":
            taken = set(self.clients.values())
            free = (number for number in range(_MAX_CLIENT) if number not in taken)
            self.clients.update(zip(new, free, strict=False))
        elif new:
            self._ask(grid, new)
        self._settle(nodes)
        return {self.clients[node]: node for node in nodes if node in self.clients}

    def _ask(self, grid: Grid, nodes: list[int]) -> None:
        """Ask nodes for their numbers: a valid answer is a claim."""
        content = RecordDict({_ACTION: ConfigRecord()})
        questions = [
            Message(content, dst_node_id=node, message_type=f"query.{_ACTION}", group_id="0")
            for node in nodes
        ]
        holders = {number: node for node, number in self.clients.items()}
        for node, reply in zip(nodes, _answers(grid, questions), strict=True):
            number = _claim(reply)
            if number is None:
                _log.warning("comask: node %d takes no part: it gave no valid number", node)
                answered = reply is not None and reply.has_content()
                self._tries[node] = _TRIES if answered else self._tries.get(node, 0) + 1
                continue
            if number in holders:
                _log.warning("comask: node %d claims number %d of node %d", node, number, holders[number])
            holders.setdefault(number, node)
            self._claims[node] = number

    def _settle(self, nodes: list[int]) -> None:
        """Grant the claims to numbers that no node which can be reached holds."""
        holders = {number: node for node, number in self.clients.items()}
        for node, number in sorted(self._claims.items()):
            holder = holders.get(number)
            if holder in nodes:
                continue
            if holder is not None:
                _log.warning("comask: node %d takes the place of node %d as client %d", node, holder, number)
                del self.clients[holder]
            self.clients[node] = number
            holders[number] = node
            del self._claims[node]


def _answers(grid: Grid, questions: list[Message]) -> list[Message | None]:
    """Return the answer to each question, None where there is none."""
    sent = exchange(grid, questions, timeout=_PATIENCE)
    found = {reply.metadata.reply_to_message_id: reply for reply in sent.replies}
    return [None if key is None else found.get(key) for key in sent.message_ids]


def _claim(reply: Message | None) -> int | None:
    """Return the number that a node says is its own, or None if it says none that is allowed."""
    if reply is None or not reply.has_content():
        return None
    number = reply.content.config_records.get(_ACTION, ConfigRecord()).get(_NUMBER)
    return number if type(number) is int and 0 <= number <= _MAX_CLIENT else None


def wait_for_nodes(roster: Roster, grid: Grid, *, needed: int, timeout: float) -> dict[int, int]:
    """Wait until enough nodes can be reached, or the time is over; return those that can."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        online = roster.online(grid)
        if len(online) >= needed or left <= 0:
            return online
        time.sleep(min(1.0, max(left, 0.0)))
