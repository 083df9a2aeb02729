"""Replies are taken in the order of the messages, a few at a time, until the time is over."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from comask.flower import exchange as module
from comask.flower.exchange import WINDOW, exchange


class Clock:
    """A clock that only sleeping moves."""

    def __init__(self):
        self.now, self.sleeps = 1000.0, []

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.sleeps.append(seconds)
        self.now += seconds


class Grid:
    """Answers each message at a set time; counts what it hands out."""

    def __init__(self, clock, times, *, unsent=(), refuses=False):
        self.clock, self.times, self.unsent, self.refuses = clock, times, unsent, refuses
        self.handed_out = self.most_asked = 0

    def push_messages(self, messages):
        if self.refuses:
            return []
        return [None if message in self.unsent else str(message) for message in messages]

    def pull_messages(self, keys):
        self.most_asked = max(self.most_asked, len(keys))
        ready = [key for key in keys if self.times.get(key, 1e9) <= self.clock.now - 1000.0]
        for key in ready:
            del self.times[key]
        self.handed_out += len(ready)
        return [SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id=key)) for key in ready]


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def names(replies):
    return [reply.metadata.reply_to_message_id for reply in replies]


def test_in_order_whatever_the_order_of_arrival(clock):
    grid = Grid(clock, {str(i): 40.0 - i for i in range(40)})
    sent = exchange(grid, range(40), timeout=100.0)
    assert names(sent.replies) == [str(i) for i in range(40)]
    assert sent.message_ids == tuple(str(i) for i in range(40))


def test_holds_a_window_of_replies_at_most(clock):
    """All have answered; whoever adds the first one has caused no more than a window to be fetched."""
    grid = Grid(clock, {str(i): 0.0 for i in range(1000)})
    replies = exchange(grid, range(1000), timeout=100.0).replies
    for taken, _ in enumerate(replies):
        assert grid.handed_out - taken <= WINDOW
    assert grid.handed_out == 1000
    assert grid.most_asked <= WINDOW


def test_the_silent_are_passed_over_when_the_time_is_over(clock):
    times = {str(i): 0.0 for i in range(100)} | {"0": 1e9, "37": 1e9, "99": 1e9, "50": 29.9, "51": 30.1}
    replies = exchange(Grid(clock, times), range(100), timeout=30.0).replies
    assert names(replies) == [str(i) for i in range(100) if i not in (0, 37, 99, 51)]
    assert clock.now - 1000.0 == pytest.approx(30.0)


def test_pauses_grow_while_nothing_comes_and_shrink_when_something_does(clock):
    list(exchange(Grid(clock, {"0": 10.0, "1": 12.0}), range(2), timeout=60.0).replies)
    assert clock.sleeps[:7] == pytest.approx([0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0])
    assert max(clock.sleeps) == 1.0
    assert min(clock.sleeps[10:]) == 0.02


def test_messages_that_were_not_sent_are_not_waited_for(clock):
    sent = exchange(Grid(clock, {"0": 0.0, "2": 0.0}, unsent=(1,)), range(3), timeout=60.0)
    assert sent.message_ids == ("0", None, "2")
    assert names(sent.replies) == ["0", "2"]
    assert clock.sleeps == []


def test_a_batch_that_the_grid_refuses_is_over_at_once(clock):
    sent = exchange(Grid(clock, {}, refuses=True), range(3), timeout=60.0)
    assert (sent.message_ids, list(sent.replies), clock.sleeps) == ((None, None, None), [], [])


def test_nothing_to_send(clock):
    sent = exchange(Grid(clock, {}), [], timeout=60.0)
    assert (sent.message_ids, list(sent.replies)) == ((), [])
