"""Send messages and take the replies in, a few at a time and in the order of the messages.

Flower's own `send_and_receive` returns when all replies have arrived and holds all of them. Here the replies that are not
wanted yet stay where Flower stores them, so a server holds a handful whatever the size of the cohort; and since sums of
floating-point numbers depend on their order, the order of the cohort is part of what makes a run repeatable.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from flwr.app import Message
from flwr.serverapp import Grid

WINDOW = 16
"""Replies asked for, and so held, at one time."""

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.02, 1.0
"""Seconds between two questions to the grid; the pause doubles while nothing comes."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """Messages on their way.

    Attributes:
        message_ids: The grid's name for each message, in order; None where it could not be sent.
        replies: Yields the replies in the order of the messages; ends when all have answered or the time is over.
    """

    message_ids: tuple[str | None, ...]
    replies: Iterator[Message]


def exchange(grid: Grid, messages: Sequence[Message], *, timeout: float) -> Exchange:
    """Send messages; the replies are pulled while `Exchange.replies` is iterated over.

    Args:
        grid: Flower's grid.
        messages: What to send.
        timeout: Seconds from now until no more replies are waited for. What has arrived by then is still taken.
    """
    deadline = time.monotonic() + timeout
    sent: list[str | None] = list(grid.push_messages(messages)) if messages else []
    # A grid that refuses the whole batch (too large a message) returns an empty list.
    ids = tuple(sent) if len(sent) == len(messages) else (None,) * len(messages)
    return Exchange(ids, _pull(grid, [key for key in ids if key], deadline))


def _pull(grid: Grid, message_ids: Sequence[str], deadline: float) -> Iterator[Message]:
    waiting = deque(message_ids)
    arrived: dict[str, Message] = {}
    strangers: list[Message] = []  # what was not asked for, or came twice: last, so that it disturbs no order
    pause = _SHORTEST_PAUSE
    while waiting:
        over = time.monotonic() >= deadline  # before pulling: what came in time is taken
        wanted = [key for key in islice(waiting, WINDOW) if key not in arrived]
        for reply in grid.pull_messages(wanted):
            key = reply.metadata.reply_to_message_id
            if key in wanted and key not in arrived:
                arrived[key] = reply
            else:
                strangers.append(reply)
        before = len(waiting)
        while waiting and (waiting[0] in arrived or (over and waiting[0] in wanted)):
            key = waiting.popleft()
            if key in arrived:
                yield arrived.pop(key)
        if len(waiting) < before:
            pause = _SHORTEST_PAUSE
        else:
            time.sleep(min(pause, max(deadline - time.monotonic(), 0.0)))
            pause = min(2 * pause, _LONGEST_PAUSE)
    yield from strangers
