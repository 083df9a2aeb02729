"""FedAvg in 8 bits: two rounds by hand, with values whose scale is a power of two."""

from __future__ import annotations

import numpy as np
from by_hand import NO_BUFFERS, begin, finish, moved, vector

from comask.algorithms import make_algorithm
from comask.wire import encode

UNIT = np.float32(2.0**-10)
"""The step of the coding where the largest magnitude is 127 of them."""


def test_two_rounds_by_hand():
    algorithm = make_algorithm("fedavg-8bit")
    state = algorithm.server.init(vector(0, 0, 0, 0), NO_BUFFERS)
    start = begin(algorithm, state)
    first, left = finish(algorithm, start, moved(start, UNIT * vector(127, 10.25, -3.375, 0)), weight=1.0)
    other, _ = finish(algorithm, start, moved(start, UNIT * vector(-127, 2, 1, 8)), client=1, weight=3.0)
    np.testing.assert_array_equal(first.update.blocks[0].values[0], UNIT * vector(127, 10, -3, 0))
    state = algorithm.server.aggregate(state, [first, other])
    # A quarter of the first, three quarters of the other.
    mean = UNIT * vector(-63.5, 4, 0, 6)
    np.testing.assert_array_equal(state.model.params, mean)

    start = begin(algorithm, state)
    np.testing.assert_array_equal(start.params, mean)
    # What rounding dropped, 0.25 and -0.375, is added: 1.375 + 0.25 = 1.625 is sent as 2, 0.25 - 0.375 = -0.125 as 0.
    second, left = finish(
        algorithm, start, moved(start, UNIT * vector(127, 1.375, 0.25, -5)), left, weight=1.0, round_number=2
    )
    np.testing.assert_array_equal(second.update.blocks[0].values[0], UNIT * vector(127, 2, 0, -5))
    (residual,) = left.values()
    np.testing.assert_array_equal(residual.ravel(), UNIT * vector(0, -0.375, -0.125, 0))


def test_without_feedback_nothing_is_kept():
    algorithm = make_algorithm("fedavg-8bit", feedback=False)
    state = algorithm.server.init(vector(0, 0), NO_BUFFERS)
    start = begin(algorithm, state)
    _, left = finish(algorithm, start, moved(start, UNIT * vector(127, 10.25)))
    assert left == {}


def test_a_byte_a_parameter_up_and_four_down():
    dim = 4096
    algorithm = make_algorithm("fedavg-8bit")
    state = algorithm.server.init(np.zeros(dim, np.float32), NO_BUFFERS)
    start = begin(algorithm, state)
    change = np.random.default_rng(0).standard_normal(dim)
    update, _ = finish(algorithm, start, moved(start, change))
    up = len(encode(update.update, algorithm.uplink))
    down = len(encode(algorithm.server.broadcast(state), algorithm.downlink))
    assert dim + 2 * dim // 256 <= up <= dim + 2 * dim // 256 + 64  # values, scales, header and checksum
    assert 4 * dim <= down <= 4 * dim + 64
    assert algorithm.paper_bits(dim) >= 8 * dim
