"""1-bit Adam and 0/1 Adam against the published step, by an independent loop, and their schedules and bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from by_hand import NO_BUFFERS, begin, finish, follow

from comask.algorithms import make_algorithm
from comask.algorithms.frozen_adam import live_signs
from comask.algorithms.zero_one_adam import DoublingIntervals
from comask.errors import ConfigError, RefusedUpdateError
from comask.wire import Block, encode

DIM, LR, BETA1, EPS = 7, 0.1, 0.8, 1e-3


def gradient(client, number, step):
    """The same gradients for both sides of a comparison."""
    return np.random.default_rng((client, number, step)).standard_normal(DIM)


def local_training(start, client, number, num_steps):
    """Momentum steps at the start's V, in double precision."""
    w, m, v = start.streams.astype(np.float64)
    for step in range(num_steps):
        m = BETA1 * m + (1 - BETA1) * gradient(client, number, step)
        w = w - LR * m / (np.sqrt(v) + EPS)
    return np.stack([w, m, v])


def make(**options):
    """With values in float32, so that the scale is exact, and one scale, as published."""
    options = {
        "values": "float32",
        "scale": "vector",
        "lr": LR,
        "beta1": BETA1,
        "eps": EPS,
        "eps_inside_sqrt": False,
    } | options
    return make_algorithm("one-bit-adam", **options)


def after_warm_up(algorithm, *, dead=()):
    """A server that has just frozen V."""
    rng = np.random.default_rng(5)
    state = algorithm.server.init(rng.standard_normal(DIM).astype(np.float32), NO_BUFFERS)
    streams = state.model.streams.copy()
    streams[1] = 0.1 * rng.standard_normal(DIM)
    streams[2] = rng.uniform(0.5, 2.0, DIM)
    streams[1:, list(dead)] = 0.0
    return replace(state, model=type(state.model)(streams), round=1)


def test_one_local_step_is_the_published_algorithm():
    """Two workers, five steps: c = m + delta, s = ||c||_2 / sqrt(d), the same on the server, w -= lr m / (sqrt(v) + eps)."""
    algorithm = make(warmup_rounds=1)
    state = after_warm_up(algorithm)
    w, mean, v = state.model.streams.astype(np.float64)
    errors, server_error, memories = [np.zeros(DIM), np.zeros(DIM)], np.zeros(DIM), [{}, {}]

    def one_bit(x):
        return np.linalg.norm(x) / np.sqrt(DIM) * np.where(x < 0, -1.0, 1.0)

    for number in range(2, 7):
        uploads = []
        for client in (0, 1):
            start = begin(algorithm, state, memories[client])
            assert start.frozen_second_moment
            end = local_training(start, client, number, 1)
            upload, memories[client] = finish(
                algorithm, start, end, memories[client], client=client, round_number=number
            )
            algorithm.server.check(state, upload.update)
            uploads.append(upload)
        state = algorithm.server.aggregate(state, uploads)

        sent = []
        for client in (0, 1):
            c = BETA1 * mean + (1 - BETA1) * gradient(client, number, 0) + errors[client]
            sent.append(one_bit(c))
            errors[client] = c - sent[client]
        total = (sent[0] + sent[1]) / 2 + server_error
        mean = one_bit(total)
        server_error = total - mean
        w = w - LR * mean / (np.sqrt(v) + EPS)
        np.testing.assert_allclose(state.model.streams, [w, mean, v], rtol=2e-5, atol=2e-5)


def test_several_local_steps_send_their_mean_momentum():
    """Clients of weights 1 and 3 with 2 and 4 steps: the server moves by lr times 3.5 mean steps."""
    algorithm = make(warmup_rounds=1)
    state = after_warm_up(algorithm)
    v = state.model.second_moment.astype(np.float64)
    uploads, means = [], []
    for client, num_steps in enumerate((2, 4)):
        start = begin(algorithm, state)
        end = local_training(start, client, 2, num_steps)
        upload, _ = finish(
            algorithm, start, end, client=client, weight=(1.0, 3.0)[client], round_number=2, steps=num_steps
        )
        uploads.append(upload)
        mean = (start.streams[0] - end[0]) * (np.sqrt(v) + EPS) / (LR * num_steps)
        means.append(np.sqrt(np.mean(mean**2)) * np.sign(mean))
    after = algorithm.server.aggregate(state, uploads).model
    total = 0.25 * means[0] + 0.75 * means[1]
    momentum = np.sqrt(np.mean(total**2)) * np.sign(total)
    np.testing.assert_allclose(after.first_moment, momentum, rtol=1e-4)
    expected = state.model.params - LR * 3.5 * momentum / (np.sqrt(v) + EPS)
    np.testing.assert_allclose(after.params, expected, rtol=1e-5, atol=1e-6)


def test_coordinates_that_never_saw_a_gradient_stay_where_they_are():
    algorithm = make(warmup_rounds=1)
    state = after_warm_up(algorithm, dead=(2, 5))
    start = begin(algorithm, state)
    end = start.streams + np.float32(0.5) * (start.second_moment > 0)
    upload, memory = finish(algorithm, start, end, round_number=2)
    after = algorithm.server.aggregate(state, [upload])
    np.testing.assert_array_equal(after.model.params[[2, 5]], start.params[[2, 5]])
    np.testing.assert_array_equal(after.model.first_moment[[2, 5]], [0, 0])
    np.testing.assert_array_equal(memory["momentum_residual"][[2, 5]], [0, 0])
    assert (after.model.params != start.params).sum() == DIM - 2


@pytest.mark.parametrize("scale", ["block", "vector"])
def test_signs_and_scales(scale):
    """Scales of the live values alone, by block or for all; and again the same from their own result."""
    x = np.random.default_rng(0).standard_normal(600).astype(np.float32)
    x[256:] *= 100
    live = np.random.default_rng(1).random(600) < 0.5
    live[512:] = False
    signs = live_signs(x, live, scale)
    first, second = np.arange(600) < 256, (np.arange(600) >= 256) & (np.arange(600) < 512)
    expected = np.full(600, np.sqrt(np.mean(x[live].astype(np.float64) ** 2)))
    if scale == "block":
        expected[first] = np.abs(x[first & live]).mean()
        expected[second] = np.abs(x[second & live]).mean()
        expected[512:] = 0.0
    np.testing.assert_allclose(signs[live], (expected * np.where(x < 0, -1, 1))[live], rtol=1e-6)
    np.testing.assert_allclose(signs[~live], expected[~live], rtol=1e-6)
    np.testing.assert_array_equal(live_signs(np.where(live, signs, np.float32(0)), live, scale), signs)


def test_bytes_of_warm_up_and_after():
    """Both ways: three floats a parameter in the warm-up, one bit after it for those who follow."""
    dim, bits = 4096, 4096 * (1 + 16 / 256)
    algorithm = make_algorithm("one-bit-adam", warmup_rounds=2)
    state = algorithm.server.init(np.ones(dim, np.float32), NO_BUFFERS)
    memory, down, up = {}, [], []
    for number in range(1, 6):
        increment = algorithm.increment.message(state)
        assert (increment is not None) == (number > 3)
        if increment is None:
            start = begin(algorithm, state, memory)
            down.append(len(encode(algorithm.server.broadcast(state), algorithm.downlink)))
        else:
            assert algorithm.increment.applies(memory, number)
            start = follow(algorithm, state, memory)
            down.append(len(encode(increment, algorithm.increment.codec)))
        noise = 1e-3 * np.random.default_rng(number).standard_normal((3, dim)).astype(np.float32)
        end = start.streams + np.abs(noise) * [[-1], [1], [0 if number > 2 else 1]]
        upload, memory = finish(algorithm, start, end, memory, round_number=number)
        up.append(len(encode(upload.update, algorithm.uplink)))
        state = algorithm.server.aggregate(state, [upload])
    dense = 12 * dim
    assert all(dense <= size <= dense + 64 for size in (*up[:2], *down[:3]))
    assert all(bits / 8 <= size <= bits / 8 + 64 for size in (*up[2:], *down[3:]))
    assert [algorithm.paper_bits(dim, number) for number in (2, 3)] == [96 * dim, bits + 32]


def test_refreshes_ever_more_rarely():
    schedule = DoublingIntervals(2)
    assert [n for n in range(1, 70) if schedule.dense(n)] == [1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63]
    assert [n for n in range(1, 20) if DoublingIntervals(1).dense(n)] == [1, 2, 4, 8, 16]


def test_feedback_outlives_a_refresh():
    algorithm = make_algorithm("zero-one-adam", refreshes=1)
    state = replace(after_warm_up(algorithm), round=2)
    start = begin(algorithm, state)
    _, memory = finish(algorithm, start, start.streams + np.float32(0.1), round_number=3)
    assert np.abs(memory["momentum_residual"]).max() > 0
    state = replace(state, round=3)
    start = begin(algorithm, state)
    assert not start.frozen_second_moment
    _, later = finish(algorithm, start, start.streams, memory, round_number=4)
    np.testing.assert_array_equal(later["momentum_residual"], memory["momentum_residual"])


@pytest.mark.parametrize(
    ("place", "block", "message"),
    [
        (1, Block(np.zeros(1, np.uint32), np.ones((1, 1), np.float32)), r"must have blocks of shapes .*got"),
        (2, Block(np.zeros(1, np.uint32), np.zeros((1, 1), np.float32)), "at least 1 local step, got 0"),
    ],
)
def test_uploads_that_are_refused(place, block, message):
    algorithm = make(warmup_rounds=1)
    state = after_warm_up(algorithm)
    start = begin(algorithm, state)
    upload, _ = finish(algorithm, start, local_training(start, 0, 2, 1), round_number=2)
    blocks = list(upload.update.blocks)
    blocks[place] = block
    with pytest.raises(RefusedUpdateError, match=message) as caught:
        algorithm.server.check(state, replace(upload.update, blocks=tuple(blocks)))
    assert caught.value.reason == "shape"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("one-bit-adam", {"warmup_rounds": 0}, "warmup_rounds must be at least 1, got 0"),
        ("one-bit-adam", {"scale": "tensor"}, "scale must be one of block, vector, got 'tensor'"),
        ("zero-one-adam", {"eps": 0.0}, r"zero-one-adam\(eps=\.\.\.\) must be above 0.0, got 0.0"),
        ("zero-one-adam", {"refreshes": 0}, "refreshes must be at least 1, got 0"),
        ("one-bit-adam", {"bias_correction": "local"}, "one-bit-adam must run with bias_correction='none'"),
    ],
)
def test_refused_settings(name, options, message):
    with pytest.raises(ConfigError, match=message):
        make_algorithm(name, **options)
