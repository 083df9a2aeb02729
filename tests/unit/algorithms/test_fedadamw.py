"""FedAdamW against its update, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from by_hand import NO_BUFFERS, begin, finish, vector

from comask.algorithms import make_algorithm
from comask.algorithms.fedadamw import spread, tensor_means
from comask.errors import ConfigError, NonFiniteError, RefusedUpdateError
from comask.wire import Block, ParamLayout

LAYOUT = ParamLayout(("weight", "nothing", "bias"), ((2, 2), (0,), (2,)))


def one_round(algorithm):
    """Two clients of weights 1 and 3, with 2 and 6 local steps."""
    state = algorithm.server.init(np.zeros(6, np.float32), NO_BUFFERS)
    start = begin(algorithm, state)
    first = [[1, 0, 0, 0, 0, 2], [9, 9, 9, 9, 9, 9], [1, 2, 3, 6, 8, 10], [0] * 6]
    second = [[-1, 4, 0, 0, 0, 2], [7, 7, 7, 7, 7, 7], [0, 0, 0, 4, 2, 2], [0] * 6]
    uploads = [
        finish(algorithm, start, first, weight=1.0, layout=LAYOUT, steps=2)[0],
        finish(algorithm, start, second, client=1, weight=3.0, layout=LAYOUT, steps=6)[0],
    ]
    for upload in uploads:
        algorithm.server.check(state, upload.update)
    return state, uploads, algorithm.server.aggregate(state, uploads)


def test_the_first_round_starts_from_nothing():
    algorithm = make_algorithm("fedadamw")
    start = begin(algorithm, algorithm.server.init(vector(1, 2, 3, 4, 5, 6), NO_BUFFERS))
    np.testing.assert_array_equal(start.streams, [[1, 2, 3, 4, 5, 6], [0] * 6, [0] * 6, [0] * 6])


def test_one_round():
    """Means of v: 3 and 9 against 1 and 2, so 1.5 and 3.75; steps: (2 + 3 * 6) / 4 = 5."""
    algorithm = make_algorithm("fedadamw", gamma=0.5)
    _, uploads, after = one_round(algorithm)
    assert uploads[0].update.blocks[1].indices.tolist() == [0, 4]
    assert uploads[0].update.blocks[1].values.tolist() == [[3, 9]]
    change = np.array([-0.5, 3, 0, 0, 0, 2])
    start = begin(algorithm, after)
    np.testing.assert_allclose(start.params, change)
    np.testing.assert_array_equal(start.first_moment, np.zeros(6))
    np.testing.assert_allclose(start.second_moment, [1.5] * 4 + [3.75] * 2)
    np.testing.assert_allclose(start.streams[3], 0.5 * change / 5, rtol=1e-6)
    silent = algorithm.server.aggregate(after, [])
    np.testing.assert_array_equal(begin(algorithm, silent).streams, start.streams)


def test_a_tensor_whose_mean_is_zero_stays_a_tensor():
    means = tensor_means(vector(1, 1, 1, 1, 0, 0), LAYOUT)
    np.testing.assert_array_equal(spread(means, 6), [1, 1, 1, 1, 0, 0])
    none = Block(np.empty(0, np.uint32), np.empty((1, 0), np.float32))
    np.testing.assert_array_equal(spread(none, 6), np.zeros(6))


def _with_block(update, place, block):
    blocks = list(update.blocks)
    blocks[place] = block
    return replace(update, blocks=tuple(blocks))


@pytest.mark.parametrize(
    ("place", "block", "message"),
    [
        (1, Block(np.array([0, 4], np.uint32), np.array([[1, -1]], np.float32)), "must not be negative"),
        (2, Block(np.zeros(1, np.uint32), np.zeros((1, 1), np.float32)), "steps below 1"),
        (2, Block(np.array([0, 1], np.uint32), np.ones((1, 2), np.float32)), "the last of one number"),
        (1, Block(None, np.ones((1, 6), np.float32)), "must be dense and its tensor means not"),
        (1, Block(np.array([0, 3], np.uint32), np.ones((1, 2), np.float32)), "must have means of 2 tensors"),
    ],
)
def test_uploads_that_are_refused(place, block, message):
    algorithm = make_algorithm("fedadamw")
    _, uploads, after = one_round(algorithm)
    good = replace(uploads[0].update, round=2)
    algorithm.server.check(after, good)
    with pytest.raises(RefusedUpdateError, match=message) as caught:
        algorithm.server.check(after, _with_block(good, place, block))
    assert caught.value.reason == "shape"


def test_moments_that_are_no_numbers_are_refused_on_the_device():
    algorithm = make_algorithm("fedadamw")
    start = begin(algorithm, algorithm.server.init(np.zeros(6, np.float32), NO_BUFFERS))
    broken = start.streams.copy()
    broken[2, 3] = np.inf
    with pytest.raises(NonFiniteError, match="Stream 'v' of client 4 holds inf at position 3"):
        finish(algorithm, start, broken, client=4, layout=LAYOUT)


def test_refused_settings():
    with pytest.raises(
        ConfigError, match=r"fedadamw\(gamma=\.\.\.\) must be at least 0.0 and at most 1.0, got 1.5"
    ):
        make_algorithm("fedadamw", gamma=1.5)
