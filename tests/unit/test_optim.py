"""LocalAdam against torch's own optimisers, over random models and settings."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from comask.errors import ConfigError
from comask.flat import FlatModel
from comask.hyperparams import AdamConfig, GradientConfig, SGDConfig
from comask.optim import LocalAdam, LocalSGD, MeanGradient, _adam_step_tensors, local_optimizer
from comask.state import ModelState

BUILDERS = (
    lambda: nn.Linear(5, 3),
    lambda: nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 3)),
    lambda: nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.ReLU(), nn.Linear(6, 3, bias=False)),
    lambda: nn.Sequential(nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 3), nn.Flatten(), nn.Linear(12, 3)),
)


def build(which: int, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return BUILDERS[which]()


def train(module, optimizer, seed, steps):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        x = torch.randn(8, 5, generator=generator)
        y = torch.randn(8, 3, generator=generator)
        optimizer.zero_grad()
        nn.functional.mse_loss(module(x), y).backward()
        optimizer.step()


def flat_params(module):
    return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy()


@given(
    which=st.integers(0, len(BUILDERS) - 1),
    seed=st.integers(0, 2**31),
    lr=st.floats(1e-4, 1e-1),
    beta1=st.floats(0.0, 0.95),
    beta2=st.floats(0.5, 0.9999),
    eps=st.floats(1e-8, 1e-2),
    weight_decay=st.sampled_from([0.0, 1e-3, 0.1]),
    decoupled=st.booleans(),
    steps=st.integers(1, 12),
)
@settings(max_examples=60, deadline=None)
def test_equals_torch(which, seed, lr, beta1, beta2, eps, weight_decay, decoupled, steps):
    theirs = build(which, seed)
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    train(theirs, kind(theirs.parameters(), lr, (beta1, beta2), eps, weight_decay), seed, steps)
    ours = FlatModel(build(which, seed))
    config = AdamConfig(
        lr,
        beta1,
        beta2,
        eps,
        eps_inside_sqrt=False,
        bias_correction="local",
        weight_decay=weight_decay,
        decoupled=decoupled,
    )
    optimizer = LocalAdam(ours, config)
    train(ours.module, optimizer, seed, steps)
    # Rounding differs by an ulp or two a step in the gradient's own chain; a step is at most about lr.
    np.testing.assert_allclose(ours.params_array(), flat_params(theirs), rtol=2e-5, atol=2e-4 * lr * steps)


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("correction", ["none", "local", "global"])
@pytest.mark.parametrize("decoupled", [True, False])
def test_formula_by_hand(inside, correction, decoupled):
    """Two steps on one weight, worked out in double precision from the docstring's formula."""
    lr, b1, b2, eps, wd, first_step = 0.1, 0.8, 0.9, 1e-3, 0.05, 4
    model = FlatModel(nn.Linear(1, 1, bias=False))
    model.vector.data.fill_(0.5)
    config = AdamConfig(lr, b1, b2, eps, inside, correction, wd, decoupled)
    start = ModelState(np.array([[0.5], [0.2], [0.04]], np.float32))
    optimizer = local_optimizer(config, model, start, steps_before=first_step)
    w, m, v = 0.5, 0.2, 0.04
    for step, gradient in enumerate((0.3, -0.7), start=1):
        t = step + (first_step if correction == "global" else 0)
        g = gradient + (0.0 if decoupled else wd * w)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        c1, c2 = (1.0, 1.0) if correction == "none" else (1 - b1**t, 1 - b2**t)
        root = math.sqrt(v / c2 + eps) if inside else math.sqrt(v / c2) + eps
        w = w * (1 - lr * wd if decoupled else 1.0) - lr * (m / c1) / root
        model.vector.grad.fill_(gradient)
        optimizer.step()
    np.testing.assert_allclose(optimizer.streams()[:, 0], [w, m, v], rtol=2e-6)


def test_kernel_and_tensor_steps_agree():
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(1000).astype(np.float32) for _ in range(4)]
    arrays[3] = np.abs(arrays[3])
    coefficients = (0.9, 0.1, 0.999, 0.001, 1e-2, 1.5, 1e-6, 1e-4, 0.999, 1e-3)
    from comask.kernels.adam import adam_step

    kernel = [a.copy() for a in arrays]
    adam_step(*kernel, np.array(coefficients, np.float32))
    tensors = [torch.from_numpy(a.copy()) for a in arrays]
    _adam_step_tensors(*tensors, coefficients)
    for by_kernel, by_tensor in zip(kernel, tensors, strict=True):
        np.testing.assert_allclose(by_kernel, by_tensor.numpy(), rtol=1e-5, atol=1e-7)


def test_second_moment_stays_non_negative_from_extreme_gradients():
    model = FlatModel(nn.Linear(4, 1, bias=False))
    optimizer = LocalAdam(model)
    for gradient in (0.0, 1e-30, -1e-40, 1e10, -1e-3):
        model.vector.grad.fill_(gradient)
        optimizer.step()
    assert (optimizer.streams()[2] >= 0).all()
    assert np.isfinite(optimizer.streams()).all()


def test_scheduler_and_closure_and_state_dict():
    model = FlatModel(build(1, 0))
    optimizer = LocalAdam(model, AdamConfig(lr=1e-3))
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    x = torch.ones(2, 5)

    def closure():
        optimizer.zero_grad()
        loss = model.module(x).square().sum()
        loss.backward()
        return loss.item()

    first = optimizer.step(closure)
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(5e-4)
    assert optimizer.step(closure) < first
    saved = optimizer.state_dict()
    other = LocalAdam(FlatModel(build(1, 0)), AdamConfig(lr=0.3))
    other.load_state_dict(saved)
    np.testing.assert_array_equal(other.streams()[1:], optimizer.streams()[1:])


def test_sgd_equals_torch():
    for momentum, decay in ((0.0, 0.0), (0.9, 0.0), (0.5, 0.01)):
        theirs = build(1, 3)
        train(theirs, torch.optim.SGD(theirs.parameters(), 0.05, momentum, weight_decay=decay), 3, 7)
        ours = FlatModel(build(1, 3))
        train(ours.module, LocalSGD(ours, SGDConfig(0.05, momentum, decay)), 3, 7)
        np.testing.assert_allclose(ours.params_array(), flat_params(theirs), rtol=1e-5, atol=1e-7)


def test_mean_gradient_is_one_step_over_the_whole_data():
    """FedSGD over the batches of one pass equals one step with the gradient of all samples."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 5, generator=generator), torch.randn(24, 3, generator=generator)
    whole = build(1, 3)
    nn.functional.mse_loss(whole(x), y).backward()
    expected = flat_params(whole) - 0.1 * torch.cat([p.grad.reshape(-1) for p in whole.parameters()]).numpy()
    ours = FlatModel(build(1, 3))
    before = ours.params_array()
    optimizer = MeanGradient(ours, GradientConfig(lr=0.1))
    for batch in range(3):
        optimizer.zero_grad()
        nn.functional.mse_loss(
            ours.module(x[8 * batch : 8 * batch + 8]), y[8 * batch : 8 * batch + 8]
        ).backward()
        optimizer.step()
    np.testing.assert_array_equal(ours.params_array(), before)
    np.testing.assert_allclose(optimizer.streams()[0], expected, rtol=1e-5, atol=1e-7)


def test_zero_grad_survives_a_loop_that_detaches_gradients():
    model = FlatModel(build(1, 0))
    optimizer = LocalAdam(model)
    model.module.zero_grad(set_to_none=True)
    model.vector.grad = None
    optimizer.zero_grad()
    model.module(torch.ones(2, 5)).sum().backward()
    assert model.vector.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdamConfig(lr=0.0), r"AdamConfig\(lr=...\) must be above 0.0, got 0.0"),
        (lambda: AdamConfig(beta1=1.0), r"AdamConfig\(beta1=...\) must be in \[0, 1\), got 1.0"),
        (lambda: AdamConfig(eps=-1.0), r"AdamConfig\(eps=...\) must be at least 0.0, got -1.0"),
        (
            lambda: AdamConfig(weight_decay=math.nan),
            r"AdamConfig\(weight_decay=...\) must be at least 0.0, got nan",
        ),
        (lambda: AdamConfig(bias_correction="yes"), r"must be 'none', 'local' or 'global', got 'yes'"),
        (lambda: SGDConfig(momentum=1.0), r"SGDConfig\(momentum=...\) must be in \[0, 1\), got 1.0"),
        (lambda: GradientConfig(lr=math.inf), r"GradientConfig\(lr=...\) must be above 0.0, got inf"),
        (
            lambda: LocalAdam(FlatModel(nn.Linear(2, 1)), first_moment=np.zeros(2, np.float32)),
            r"LocalAdam\(first_moment=...\) must have shape \(3,\), got \(2,\)",
        ),
    ],
)
def test_settings_that_are_not_allowed(make, message):
    with pytest.raises(ConfigError, match=message):
        make()
