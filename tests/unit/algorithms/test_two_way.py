"""STC, Efficient-Adam and SparseLoCo against their published loops, and who gets an increment."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import NO_BUFFERS, begin, finish, follow, moved, vector

from comask.algorithms import make_algorithm
from comask.algorithms.delta import DeltaClient, keep_all
from comask.algorithms.sparse_loco import ScaleStep
from comask.errors import ConfigError
from comask.wire import Block, Update, decode, encode
from comask.wire.codec import Codec

DIM, ROUNDS = 20, 6


def quantise(x, coding):
    """What a receiver reads of one dense stream."""
    update = Update(len(x), (Block(None, x.astype(np.float32)[None]),))
    return decode(encode(update, Codec(coding, values=(coding,))), dim=len(x)).blocks[0].values[0]


def ternary(x, k):
    kept = np.sort(np.argsort(-np.abs(x), kind="stable")[:k])
    out = np.zeros_like(x)
    out[kept] = np.abs(x[kept]).mean() * np.where(x[kept] < 0, -1, 1)
    return out


def change(client, number):
    return np.random.default_rng((client, number)).standard_normal(DIM).astype(np.float32)


def run(algorithm):
    """Two clients of weights 1 and 3 for some rounds, on increments where they apply; return all states."""
    state = algorithm.server.init(np.ones(DIM, np.float32), NO_BUFFERS)
    memories, states = [{}, {}], []
    for number in range(1, ROUNDS + 1):
        uploads = []
        for client in (0, 1):
            whole = begin(algorithm, state, memories[client])
            if number > 1:
                assert algorithm.increment.applies(memories[client], number)
                np.testing.assert_array_equal(
                    follow(algorithm, state, memories[client]).streams, whole.streams
                )
            end = moved(whole, change(client, number))
            upload, memories[client] = finish(
                algorithm,
                whole,
                end,
                memories[client],
                client=client,
                weight=(1.0, 3.0)[client],
                round_number=number,
            )
            uploads.append(upload)
        state = algorithm.server.aggregate(state, uploads)
        states.append(state)
    return states


def two_way_loop(up, down):
    """The loop that the papers share: compress, feed back, at both ends."""
    weights, errors, server_error = np.ones(DIM), [np.zeros(DIM), np.zeros(DIM)], np.zeros(DIM)
    for number in range(1, ROUNDS + 1):
        sent = []
        for client in (0, 1):
            wanted = change(client, number) + errors[client]
            sent.append(up(wanted))
            errors[client] = wanted - sent[client]
        total = (sent[0] + 3 * sent[1]) / 4 + server_error
        step = down(total)
        server_error = total - step
        weights = weights + step
        yield weights


def test_stc_is_the_published_loop():
    algorithm = make_algorithm("stc", density=0.1, downlink_density=0.2, values="float32")
    loop = two_way_loop(lambda x: ternary(x, 2), lambda x: ternary(x, 4))
    for state, weights in zip(run(algorithm), loop, strict=True):
        np.testing.assert_allclose(state.model.params, weights, rtol=1e-4, atol=1e-4)


def test_efficient_adam_is_the_published_loop():
    algorithm = make_algorithm("efficient-adam", values="linear4", downlink_values="linear8")
    loop = two_way_loop(lambda x: quantise(x, "linear4"), lambda x: quantise(x, "linear8"))
    for state, weights in zip(run(algorithm), loop, strict=True):
        np.testing.assert_allclose(state.model.params, weights, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["efficient-adam", "sparse-loco"])
def test_moments_stay_on_the_device(name):
    """They come back in the next round, and nothing of them is sent."""
    algorithm = make_algorithm(name)
    state = algorithm.server.init(np.ones(DIM, np.float32), NO_BUFFERS)
    start = begin(algorithm, state)
    np.testing.assert_array_equal(start.streams[1:], np.zeros((2, DIM)))
    end = start.streams + np.arange(3 * DIM, dtype=np.float32).reshape(3, DIM)
    upload, memory = finish(algorithm, start, end)
    assert upload.update.num_streams == 1
    state = algorithm.server.aggregate(state, [upload])
    again = begin(algorithm, state, memory)
    np.testing.assert_array_equal(again.params, state.model.params)
    np.testing.assert_array_equal(again.streams[1:], end[1:])


def test_sparse_loco_by_hand():
    """k = 1 of each 2; what is left is halved; the mean goes in with a factor 2."""
    algorithm = make_algorithm(
        "sparse-loco", density=0.5, chunk=2, decay=0.5, server_lr=2.0, values="float32"
    )
    state = algorithm.server.init(vector(0, 0, 0, 0), NO_BUFFERS)
    start = begin(algorithm, state)
    upload, memory = finish(algorithm, start, moved(start, [4, 3, 0.5, -1]))
    assert upload.update.blocks[0].indices.tolist() == [0, 3]
    state = algorithm.server.aggregate(state, [upload])
    np.testing.assert_array_equal(state.model.params, [8, 0, 0, -2])
    start = begin(algorithm, state, memory)
    upload, memory = finish(algorithm, start, moved(start, [1, 1, 1, 1]), memory, round_number=2)
    np.testing.assert_array_equal(upload.update.blocks[0].values, [[2.5, 1.25]])  # 1 + 3 / 2, 1 + 0.5 / 2
    np.testing.assert_array_equal(memory["residual"], [[1, 0, 0, 1]])


def test_a_client_that_missed_a_round_is_told_to_get_the_whole():
    algorithm = make_algorithm("stc")
    state = algorithm.server.init(np.ones(DIM, np.float32), NO_BUFFERS)
    start = begin(algorithm, state)
    upload, memory = finish(algorithm, start, moved(start, change(0, 1)))
    for number in (1, 2):
        state = algorithm.server.aggregate(state, [upload])
        assert algorithm.increment.applies(memory, number + 1) == (number == 1)
    with pytest.raises(
        ConfigError, match=r"an increment to the model of round 2; this client holds that of round 1"
    ):
        follow(algorithm, state, memory)
    with pytest.raises(ConfigError, match="this client holds none and must be sent the whole"):
        follow(algorithm, state, {})
    np.testing.assert_array_equal(begin(algorithm, state, memory).params, state.model.params)


def test_an_increment_after_a_silent_round_does_not_exist():
    algorithm = make_algorithm("efficient-adam")
    states = run(algorithm)
    assert algorithm.increment.message(states[-1]) is not None
    silent = algorithm.server.aggregate(states[-1], [])
    assert algorithm.increment.message(silent) is None
    np.testing.assert_array_equal(silent.memory["residual"], states[-1].memory["residual"])


def test_refused_settings():
    with pytest.raises(ConfigError, match=r"decay must be in \[0, 1\], got 1.5"):
        DeltaClient(keep_all, decay=1.5)
    with pytest.raises(ConfigError, match=r"sparse-loco\(server_lr=\.\.\.\) must be above 0.0, got -1.0"):
        ScaleStep(-1.0)
