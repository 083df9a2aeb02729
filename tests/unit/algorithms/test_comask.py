"""comask: two rounds of two clients worked out by hand, the lossless way down, and V that never becomes negative."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import NO_BUFFERS, begin, finish, follow

from comask.algorithms import make_algorithm
from comask.algorithms.base import Upload
from comask.errors import ConfigError
from comask.wire import Block, Update, encode

EXACT = {"values": "float32", "moment_values": "float32"}
WEIGHTS = (1.0, 3.0)


def a_round(algorithm, state, changes, memories):
    """One round in which client `c` changes the streams by `changes[c]`, on the increment where it applies."""
    uploads, kept = [], []
    for client, (change, held) in enumerate(zip(changes, memories, strict=True)):
        number = state.round + 1
        informed = algorithm.increment.applies(held, number) and algorithm.increment.message(state)
        start = follow(algorithm, state, held) if informed else begin(algorithm, state, held)
        np.testing.assert_array_equal(start.streams, state.model.streams)
        end = start.streams + np.array(change, np.float32)
        upload, memory = finish(
            algorithm, start, end, held, client=client, weight=WEIGHTS[client], round_number=number
        )
        algorithm.server.check(state, upload.update)
        uploads.append(upload)
        kept.append(memory)
    return algorithm.server.aggregate(state, uploads), uploads, kept


def test_two_rounds_by_hand():
    """k = 2 of 4 up, 1 of 4 down; what is left of W comes back at both ends, what is left of M and V does not."""
    algorithm = make_algorithm("comask", density=0.5, downlink_density=0.25, **EXACT)
    state = algorithm.server.init(np.zeros(4, np.float32), NO_BUFFERS)
    first = [
        [[4, 3, 0.5, -1], [0.5, 0.25, 0.125, -0.5], [0.25, 0.5, 1, 2]],
        [[0, 1, 2, -3], [0.25, 0.5, 1, -2], [1, 1, 2, 4]],
    ]
    state, uploads, memories = a_round(algorithm, state, first, [{}, {}])
    assert [upload.update.blocks[0].indices.tolist() for upload in uploads] == [[0, 1], [2, 3]]
    np.testing.assert_array_equal(memories[0]["residual"], [[0, 0, 0.5, -1]])
    np.testing.assert_array_equal(memories[1]["residual"], [[0, 1, 0, 0]])
    # Means (1 x first + 3 x second) / 4 of W: 1, 0.75, 1.5, -2.25. Only position 3 goes down.
    np.testing.assert_array_equal(
        state.model.streams, [[0, 0, 0, -2.25], [0, 0, 0, 0.75 * -2], [0, 0, 0, 0.75 * 4]]
    )
    np.testing.assert_array_equal(state.memory["residual"], [1, 0.75, 1.5, 0])

    second = [
        [[1, 0, 0.25, 0], [0.5, 0, 0, 0.5], [0.5, 0, 0, 0]],
        [[0, 1, 0, 1], [0, 1, 0, 0.5], [0, 1, 0, -1]],
    ]
    # With what was left: 1, 0, 0.75, -1 and 0, 2, 0, 1.
    state, uploads, memories = a_round(algorithm, state, second, memories)
    assert [upload.update.blocks[0].indices.tolist() for upload in uploads] == [[0, 3], [1, 3]]
    np.testing.assert_array_equal(memories[0]["residual"], [[0, 0, 0.75, 0]])
    np.testing.assert_array_equal(memories[1]["residual"], [[0, 0, 0, 0]])
    # Means of W 0.25, 1.5, 0, 0.5, and what was left: 1.25, 2.25, 1.5, 0.5. Position 1 goes down, with its mean M and V.
    np.testing.assert_array_equal(
        state.model.streams, [[0, 2.25, 0, -2.25], [0, 0.75, 0, -1.5], [0, 0.75, 0, 3]]
    )
    np.testing.assert_array_equal(state.memory["residual"], [1.25, 0, 1.5, 0.5])


def test_with_room_on_the_way_down_nothing_is_lost():
    """At density 1 down and exact values, the model moves by the mean; the increment names only what changed."""
    algorithm = make_algorithm("comask", density=0.5, downlink_density=1.0, **EXACT)
    state = algorithm.server.init(np.zeros(4, np.float32), NO_BUFFERS)
    change = [[4, 3, 0, 0], [1, 1, 0, 0], [2, 2, 0, 0]]
    state, _, _ = a_round(algorithm, state, [change, change], [{}, {}])
    np.testing.assert_array_equal(state.model.streams, change)
    (block,) = algorithm.increment.message(state).blocks
    assert block.indices.tolist() == [0, 1]
    np.testing.assert_array_equal(state.memory["residual"], np.zeros(4))


def test_the_second_moment_never_becomes_negative():
    """Whatever clients send and whatever coding drops; and clients that add increments up need not clamp."""
    algorithm = make_algorithm("comask", density=0.5, downlink_density=0.5)
    rng = np.random.default_rng(3)
    state = algorithm.server.init(np.zeros(64, np.float32), NO_BUFFERS)
    memories = [{}, {}]
    for _ in range(12):
        changes = rng.standard_normal((2, 3, 64)) * np.array([[[1e-2], [1e-3], [1e-5]]])
        changes[:, 2] = np.maximum(changes[:, 2], -0.9 * state.model.second_moment)
        state, _, memories = a_round(algorithm, state, changes, memories)
        assert (state.model.second_moment >= 0).all()
    greedy = np.stack([np.ones(64), np.zeros(64), -2 * state.model.second_moment - 1e-3]).astype(np.float32)
    update = Update(64, (Block(None, greedy),), round=state.round + 1)
    after = algorithm.server.aggregate(state, [Upload(0, 1.0, update)])
    _, _, (took_part, _) = a_round(algorithm, state, changes, memories)
    followed = follow(algorithm, after, took_part)
    np.testing.assert_array_equal(followed.streams, after.model.streams)
    assert (followed.second_moment >= 0).all()


def test_bytes_both_ways():
    """Twelve bits a kept entry and its position up; an increment is a small part of the whole model."""
    algorithm = make_algorithm("comask")
    rng = np.random.default_rng(4)
    dim = 20_000
    state = algorithm.server.init(np.zeros(dim, np.float32), NO_BUFFERS)
    changes = rng.standard_normal((2, 3, dim)) * np.array([[[1e-2], [1e-3], [1e-5]]])
    changes[:, 2] = np.abs(changes[:, 2])
    state, uploads, _ = a_round(algorithm, state, changes, [{}, {}])
    assert all(upload.update.blocks[0].num_kept == 200 for upload in uploads)
    increment = encode(algorithm.increment.message(state), algorithm.increment.codec)
    whole = encode(algorithm.server.broadcast(state), algorithm.downlink)
    assert 8 * len(increment) <= 400 * (12 + 9) + 1000
    assert len(whole) >= 3 * 4 * dim


@pytest.mark.parametrize("option", ["density", "downlink_density"])
def test_refused_settings(option):
    with pytest.raises(ConfigError, match=r"density must be in \[0, 1\], got 1.5"):
        make_algorithm("comask", **{option: 1.5})
