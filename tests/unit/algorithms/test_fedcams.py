"""FedCAMS against the paper's formulas: compression with feedback on the device, AMSGrad on the server."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import NO_BUFFERS, begin, finish, moved, vector

from comask.algorithms import make_algorithm
from comask.errors import ConfigError


def test_top_with_feedback_by_hand():
    """k = 1 of 4: what is not sent waits, is added to the next change, and wins then."""
    algorithm = make_algorithm("fedcams", density=0.25)
    state = algorithm.server.init(vector(0, 0, 0, 0), NO_BUFFERS)
    start = begin(algorithm, state)
    upload, memory = finish(algorithm, start, moved(start, [0.5, -0.25, 0.375, 0]))
    assert upload.update.blocks[0].indices.tolist() == [0]
    assert upload.update.blocks[0].values.tolist() == [[0.5]]
    upload, memory = finish(algorithm, start, moved(start, [0, -0.25, 0, 0]), memory, round_number=2)
    assert upload.update.blocks[0].indices.tolist() == [1]
    assert upload.update.blocks[0].values.tolist() == [[-0.5]]
    np.testing.assert_array_equal(memory["residual"], [[0, 0, 0.375, 0]])


def test_sign_with_feedback_by_hand():
    """One bit a parameter and ||x||_1 / d; the residual is what the receiver's numbers lack."""
    algorithm = make_algorithm("fedcams", compressor="sign")
    state = algorithm.server.init(vector(0, 0, 0, 0), NO_BUFFERS)
    start = begin(algorithm, state)
    change = vector(0.5, -0.25, 0.375, 0)
    upload, memory = finish(algorithm, start, moved(start, change))
    received = upload.update.blocks[0].values[0]
    mean = (0.5 + 0.25 + 0.375) / 4
    np.testing.assert_allclose(received, [mean, -mean, mean, mean], rtol=2**-7)  # the scale is a bfloat16
    np.testing.assert_array_equal(memory["residual"][0], change - received)
    upload, memory = finish(algorithm, start, moved(start, change), memory, round_number=2)
    wanted = change + (change - received)
    np.testing.assert_array_equal(memory["residual"][0], wanted - upload.update.blocks[0].values[0])


@pytest.mark.parametrize("corrected", [False, True])
def test_amsgrad_by_hand(corrected):
    """The running maximum keeps a large v after changes have become small, and never falls below the floor."""
    lr, beta1, beta2, floor = 0.5, 0.9, 0.5, 1e-2
    algorithm = make_algorithm(
        "fedcams",
        compressor="none",
        server_lr=lr,
        server_beta1=beta1,
        server_beta2=beta2,
        floor=floor,
        server_bias_correction=corrected,
    )
    state = algorithm.server.init(vector(1, -1), NO_BUFFERS)
    weights, m, v, largest = np.array([1.0, -1.0]), np.zeros(2), np.zeros(2), np.full(2, floor)
    for t, change in enumerate([[2.0, 0.01], [0.1, 0.01], [0.0, -0.01]], start=1):
        start = begin(algorithm, state)
        upload, _ = finish(algorithm, start, moved(start, change), round_number=t)
        state = algorithm.server.aggregate(state, [upload])
        m = beta1 * m + (1 - beta1) * np.array(change)
        v = beta2 * v + (1 - beta2) * np.array(change) ** 2
        largest = np.maximum(largest, v)
        c1, c2 = (1 - beta1**t, 1 - beta2**t) if corrected else (1, 1)
        weights = weights + lr * (m / c1) / np.sqrt(largest / c2)
        np.testing.assert_allclose(state.model.params, weights, rtol=1e-5)
    assert largest.tolist() == [2.0, floor]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compressor": "topk"}, "compressor must be one of sign, top, none, got 'topk'"),
        ({"floor": 0.0}, r"fedcams\(floor=\.\.\.\) must be above 0.0, got 0.0"),
        ({"density": 2.0}, r"density must be in \[0, 1\], got 2.0"),
    ],
)
def test_refused_settings(options, message):
    with pytest.raises(ConfigError, match=message):
        make_algorithm("fedcams", **options)
