"""What a client rule can ask of local Adam: a second moment that stands still, and a drift; and the count of steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from comask.flat import FlatModel
from comask.hyperparams import AdamConfig, SGDConfig
from comask.optim import local_optimizer
from comask.state import ModelState


def flat_model():
    return FlatModel(nn.Linear(3, 1, bias=False))


def run(optimizer, model, gradients):
    for gradient in gradients:
        optimizer.zero_grad()
        model.vector.grad.copy_(torch.tensor(gradient))
        optimizer.step()


@pytest.mark.parametrize("correction", ["none", "local"])
def test_frozen_second_moment(correction):
    """Momentum with a fixed scale: V is used as it is, uncorrected, and comes back bit for bit."""
    config = AdamConfig(lr=0.1, beta1=0.5, eps=1e-2, bias_correction=correction)
    model, v = flat_model(), np.array([0.04, 0.09, 0.0], np.float32)
    streams = np.stack([np.ones(3, np.float32), np.zeros(3, np.float32), v])
    optimizer = local_optimizer(config, model, ModelState(streams, frozen_second_moment=True))
    run(optimizer, model, [[1.0, -2.0, 3.0], [4.0, 5.0, -6.0]])
    weights, m = np.ones(3), np.zeros(3)
    for t, g in enumerate(([1.0, -2.0, 3.0], [4.0, 5.0, -6.0]), start=1):
        m = 0.5 * m + 0.5 * np.array(g)
        c1 = 1 - 0.5**t if correction == "local" else 1.0
        weights -= 0.1 * m / c1 / np.sqrt(v.astype(np.float64) + 1e-2)
    end = optimizer.streams()
    np.testing.assert_allclose(end[0], weights, rtol=1e-5)
    np.testing.assert_allclose(end[1], m, rtol=1e-6)
    np.testing.assert_array_equal(end[2], v)


def test_drift_is_added_at_every_step():
    config = AdamConfig(lr=0.1)
    drift = np.array([0.25, -0.5, 0.0], np.float32)
    ends = []
    for rows in (3, 4):
        model = flat_model()
        streams = np.concatenate([np.zeros((3, 3), np.float32), drift[None]])[:rows]
        optimizer = local_optimizer(config, model, ModelState(streams))
        run(optimizer, model, [[1.0, 1.0, 1.0]] * 4)
        assert optimizer.steps == 4
        ends.append(optimizer.streams())
    np.testing.assert_allclose(ends[1][0], ends[0][0] + 4 * drift, rtol=1e-6)
    np.testing.assert_array_equal(ends[1][1:], ends[0][1:])


def test_steps_are_counted():
    model = flat_model()
    optimizer = local_optimizer(SGDConfig(), model, ModelState(np.zeros((1, 3), np.float32)))
    assert optimizer.steps == 0
    run(optimizer, model, [[1.0, 0.0, 0.0]] * 3)
    assert optimizer.steps == 3
