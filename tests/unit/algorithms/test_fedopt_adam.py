"""FedOpt's Adam against the paper's formulas."""

from __future__ import annotations

import numpy as np
import pytest
from by_hand import NO_BUFFERS, begin, finish, moved, vector

from comask.algorithms import make_algorithm
from comask.errors import ConfigError

CHANGES = [(vector(0.5, -0.25, 0.0), vector(0.1, 0.75, 0.0)), (vector(-0.5, 0.5, 1.0), vector(0.5, 0.5, 0.0))]


def two_rounds(algorithm):
    state = algorithm.server.init(vector(1, 2, 3), NO_BUFFERS)
    states = []
    for number, changes in enumerate(CHANGES, start=1):
        start = begin(algorithm, state)
        uploads = [
            finish(
                algorithm, start, moved(start, change), client=c, weight=(1.0, 3.0)[c], round_number=number
            )[0]
            for c, change in enumerate(changes)
        ]
        for upload in uploads:
            algorithm.server.check(state, upload.update)
        state = algorithm.server.aggregate(state, uploads)
        states.append(state)
    return states


@pytest.mark.parametrize("corrected", [False, True])
def test_two_rounds(corrected):
    """`D = (D_1 + 3 D_2) / 4`; m, v and the step as in algorithm 2 of the paper, and as in Keras with the corrections."""
    lr, beta1, beta2, tau = 0.1, 0.8, 0.95, 0.01
    algorithm = make_algorithm(
        "fedopt-adam",
        server_lr=lr,
        server_beta1=beta1,
        server_beta2=beta2,
        tau=tau,
        server_bias_correction=corrected,
    )
    weights, m, v = np.array([1.0, 2.0, 3.0]), np.zeros(3), np.full(3, 0.0 if corrected else tau**2)
    for t, (state, (one, two)) in enumerate(zip(two_rounds(algorithm), CHANGES, strict=True), start=1):
        mean = (one.astype(np.float64) + 3 * two) / 4
        m = beta1 * m + (1 - beta1) * mean
        v = beta2 * v + (1 - beta2) * mean**2
        c1, c2 = (1 - beta1**t, 1 - beta2**t) if corrected else (1, 1)
        weights = weights + lr * (m / c1) / (np.sqrt(v / c2) + tau)
        np.testing.assert_allclose(state.model.params, weights, rtol=1e-5)
        np.testing.assert_allclose(state.memory["first_moment"][0], m, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(state.memory["second_moment"][0], v, rtol=1e-5, atol=1e-12)


def test_a_silent_round_moves_nothing_and_keeps_the_moments():
    algorithm = make_algorithm("fedopt-adam")
    state = two_rounds(algorithm)[-1]
    after = algorithm.server.aggregate(state, [])
    np.testing.assert_array_equal(after.model.params, state.model.params)
    assert after.memory is state.memory
    assert after.round == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"server_lr": 0.0}, r"server Adam\(server_lr=\.\.\.\) must be above 0.0, got 0.0"),
        ({"server_beta1": 1.0}, r"server_beta1 must be in \[0, 1\), got 1.0"),
        ({"server_beta2": -0.1}, r"server_beta2 must be in \[0, 1\), got -0.1"),
        ({"tau": 0.0}, r"fedopt-adam\(tau=\.\.\.\) must be above 0.0, got 0.0"),
    ],
)
def test_refused_settings(options, message):
    with pytest.raises(ConfigError, match=message):
        make_algorithm("fedopt-adam", **options)
