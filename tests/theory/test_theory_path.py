"""Equation (17'): the divergence bound with every step's own constants."""

from dataclasses import replace

import fedsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_theory_divergence import BATCH, DEVICES, DIM, SLACK, adams, fraction, kinds

from comask.errors import ConfigError
from comask.theory import AdamSetting, PathConstants, divergence_bound, measure_step, path_divergence_bound


def run_and_bound(adam, kind, num_kept, seed, **mutation):
    rng = np.random.default_rng(seed)
    problem = kind(rng, batch=BATCH, devices=DEVICES, dim=DIM)
    run = fedsim.simulate(problem, adam, rng.normal(size=(BATCH, DIM)), rounds=4, num_kept=num_kept)
    for instance in range(BATCH):
        path = run.path_of(instance)
        path = replace(path, **{name: factor * getattr(path, name) for name, factor in mutation.items()})
        bounds = path_divergence_bound(
            path, adam, shares=problem.shares[instance], sparsification=run.dropped[:, instance]
        )
        yield problem, run, instance, bounds


@settings(max_examples=25, deadline=None)
@given(adam=adams, kind=kinds, num_kept=st.integers(1, DIM), seed=st.integers(0, 10**6))
def test_no_run_diverges_more_than_its_path_allows(adam, kind, num_kept, seed):
    for _, run, instance, (server, device) in run_and_bound(adam, kind, num_kept, seed):
        assert fraction(run.server_distance[:, instance], server) <= SLACK
        assert fraction(run.device_distance[:, :, instance], device) <= SLACK


def test_measured_path_is_tighter_than_one_constant_for_all_steps():
    adam, gain = AdamSetting(1e-3, 0.9, 0.99, 1.0, 5), []
    for problem, run, instance, (server, _) in run_and_bound(adam, fedsim.random_quadratics, 2, 0):
        constants = run.constants(problem, instance)
        coarse = divergence_bound(constants, adam, rounds=4, sparsification=run.dropped[:, instance])
        gain.append(coarse.server[-1, 0] / server[-1, 0])
    fedsim.report("one constant / path, median", round(float(np.median(gain)), 2))
    assert np.median(gain) > 1.3


@pytest.mark.parametrize("name", ["heterogeneity", "square_slope", "in_m"])
def test_halving_a_constant_is_caught(name):
    adam, worst = AdamSetting(0.02, 0.9, 0.99, 10.0, 4), 0.0
    for _, run, instance, (_, device) in run_and_bound(adam, fedsim.random_quadratics, 3, 1, **{name: 0.5}):
        worst = max(worst, fraction(run.device_distance[:, :, instance], device))
    assert worst > SLACK


def test_two_steps_by_hand():
    names = {
        "smoothness": 4.0,
        "heterogeneity": 2.0,
        "square_slope": 3.0,
        "in_m": 5.0,
        "in_v": 7.0,
        "travel": 16.0,
    }
    path = PathConstants(**{name: np.full((1, 2, 1), value) for name, value in names.items()})
    adam = AdamSetting(0.1, 0.5, 0.75, local_steps=2)
    server, device = path_divergence_bound(path, adam, shares=[1.0], sparsification=[[0.1, 0.2, 0.3]])
    # First step: b = 0.5 * 2, c = 0.25 * 3 * 2, a = 0.1 * (5 * 1 + 7 * 1.5). Second: apart by 4 * 1.55 + 2 = 8.2, travel rules.
    np.testing.assert_allclose(device[0, 1, 0], [1.55, 1.0, 1.5])
    np.testing.assert_allclose(device[0, 2, 0], [1.55 + 1.6, 0.5 + 4.1, 0.75 * 1.5 + 0.75 * 8.2])
    np.testing.assert_allclose(server[1], device[0, 2, 0] + [0.1, 0.2, 0.3])


def test_single_steps_stack():
    state = tuple(np.array(x) for x in ([1.0, 2.0], [0.5, 0.5], [1.0, 3.0]))
    other = tuple(np.array(x) for x in ([1.0, 1.0], [0.5, 0.1], [1.0, 0.0]))
    gradients = tuple(np.array(x) for x in ([1.0, 1.0], [1.0, 0.0], [1.0, 2.0]))
    one = measure_step(state, other, gradients, (np.array([0.0, 3.0]), np.array([0.0, 1.0])), 1.0)
    assert one.smoothness == 1.0
    assert one.heterogeneity == 1.0
    assert one.square_slope == 3.0
    assert one.in_m == pytest.approx(0.5)
    assert one.in_v == pytest.approx(0.1 * (1 - 0.5) / 3)
    assert one.travel == pytest.approx(np.hypot(0.5 / 2**0.5, 0.25) + np.hypot(0.5 / 2**0.5, 0.1))
    stacked = PathConstants.stack([[[one, one]], [[one, one]], [[one, one]]])
    assert stacked.in_v.shape == (3, 1, 2)


def test_wrong_shapes_are_named():
    path = PathConstants(*[np.zeros((2, 1, 3))] * 6)
    with pytest.raises(
        ConfigError,
        match=r"shares must have shape \(3,\) and sparsification \(2, 3\), got \(2,\) and \(2, 3\)",
    ):
        path_divergence_bound(path, AdamSetting(0.1), shares=[0.5, 0.5], sparsification=np.zeros((2, 3)))
