"""A module and its flat vectors are the same memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from comask.errors import ConfigError
from comask.flat import FlatModel


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 2))


def test_order_values_and_layout():
    module = build()
    expected = np.concatenate([p.detach().numpy().reshape(-1) for p in module.parameters()])
    buffers = np.concatenate([module[1].running_mean.numpy(), module[1].running_var.numpy()])
    flat = FlatModel(module)
    np.testing.assert_array_equal(flat.params_array(), expected)
    np.testing.assert_array_equal(flat.buffers_array(), buffers)
    assert flat.layout.names == tuple(name for name, _ in module.named_parameters())
    assert flat.layout.dim == flat.dim == len(expected)


def test_writes_are_seen_on_both_sides():
    flat = FlatModel(build())
    with torch.no_grad():
        flat.vector[0] = 42.0
    assert flat.module[0].weight.reshape(-1)[0] == 42.0
    with torch.no_grad():
        flat.module[3].bias[1] = -7.0
    assert flat.vector[-1] == -7.0
    flat.module.train()
    flat.module(torch.randn(4, 1, 4, 4)).sum().backward()
    assert not np.array_equal(flat.buffers_array()[:3], np.zeros(3))
    np.testing.assert_array_equal(
        flat.vector.grad.numpy(),
        np.concatenate([p.grad.numpy().reshape(-1) for p in flat.module.parameters()]),
    )


def test_load_overwrites_both():
    flat = FlatModel(build())
    params, buffers = np.arange(flat.dim, dtype=np.float32), np.arange(6, dtype=np.float32)
    params.flags.writeable = False  # as decoded payloads may be
    flat.load(params, buffers)
    np.testing.assert_array_equal(flat.params_array(), params)
    np.testing.assert_array_equal(flat.module[1].running_var.numpy(), buffers[3:])


def test_frozen_parameters_stay_outside_and_tied_ones_appear_once():
    module = build()
    module[0].requires_grad_(False)
    assert FlatModel(module).layout.names[0] == "1.weight"
    tied = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    tied[1].weight = tied[0].weight
    assert FlatModel(tied).dim == 4 + 2 + 2


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.ReLU(), "at least one parameter that requires a gradient"),
        (lambda: nn.Linear(2, 2).double(), "'weight' is torch.float64"),
    ],
)
def test_modules_that_cannot_be_flat(make, message):
    with pytest.raises(ConfigError, match=message):
        FlatModel(make())


def test_load_refuses_another_size():
    with pytest.raises(
        ConfigError, match=r"FlatModel.load\(params=...\) must have shape \(62,\), got \(3,\)"
    ):
        FlatModel(build()).load(np.zeros(3, np.float32), np.zeros(6, np.float32))
