"""Lemmas 1 and 2: what a shared mask preserves, and how sensitive a step is."""

import math

import fedsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comask.errors import ConfigError
from comask.theory import (
    AdamSetting,
    ProblemConstants,
    moment_ratio,
    preconditioner_range,
    step_bound,
    step_sensitivity,
)

betas = st.sampled_from([(0.0, 0.5), (0.5, 0.9), (0.9, 0.99), (0.9, 0.999), (0.9, 0.5)])


@settings(max_examples=20, deadline=None)
@given(
    betas=betas, eps=st.sampled_from([1e-8, 1e-4, 1.0]), steps=st.integers(1, 8), seed=st.integers(0, 10**6)
)
def test_shared_mask_keeps_ratio_and_step_within_lemma_1(betas, eps, steps, seed):
    adam = AdamSetting(0.01, *betas, eps, steps)
    problem = fedsim.random_quadratics(np.random.default_rng(seed), batch=50, devices=3, dim=6)
    run = fedsim.simulate(problem, adam, np.ones((50, 6)), rounds=4, num_kept=2)
    assert (run.largest_ratio <= moment_ratio(*betas) * (1 + 1e-9)).all()
    for instance in range(50):
        assert run.largest_step[instance] <= step_bound(run.constants(problem, instance), adam) * (1 + 1e-9)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.5, 0.9), (0.9, 0.99), (0.9, 0.999)])
def test_moment_ratio_is_attained(beta1, beta2):
    # From the boundary, the gradient with equality in Cauchy-Schwarz leads to the boundary again.
    limit = moment_ratio(beta1, beta2)
    m, v = 1.0, 1 / limit
    gradient = beta2 * (1 - beta1) / (beta1 * (1 - beta2) * limit)
    m, v = beta1 * m + (1 - beta1) * gradient, beta2 * v + (1 - beta2) * gradient**2
    assert m**2 / v == pytest.approx(limit, rel=1e-12)


def test_separate_masks_break_lemma_1():
    adam = AdamSetting(0.01, 0.9, 0.999, 1e-8, 30)
    problem = fedsim.random_quadratics(np.random.default_rng(0), batch=20, devices=3, dim=12)
    start = np.ones((20, 12))
    shared = fedsim.simulate(problem, adam, start, rounds=3, num_kept=3)
    separate = fedsim.simulate(problem, adam, start, rounds=3, num_kept=3, rule="separate")
    limit = math.sqrt(moment_ratio(0.9, 0.999))
    assert shared.largest_step.max() <= limit
    assert separate.largest_step.max() > 10 * limit


def test_step_bound_without_a_ratio_is_the_crude_one():
    problem = ProblemConstants(dim=3, smoothness=1, grad_bound=2.0)
    assert moment_ratio(0.9, 0.8) == math.inf
    assert step_bound(problem, AdamSetting(0.1, 0.9, 0.8, 1e-4)) == pytest.approx(2 / 1e-2)


def test_step_bound_is_attained_by_a_matched_pair():
    # v = m^2 / C exactly, |m| = G.
    problem, adam = ProblemConstants(dim=1, smoothness=0, grad_bound=3.0), AdamSetting(0.1, eps=1e-3)
    v = 9 / moment_ratio(adam.beta1, adam.beta2)
    assert 3 / math.sqrt(v + adam.eps) == pytest.approx(step_bound(problem, adam), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    betas=betas,
    eps=st.sampled_from([1e-6, 1e-2, 1.0]),
    floor=st.sampled_from([0.0, 1e-3, 0.5]),
    seed=st.integers(0, 10**6),
)
def test_step_sensitivity_bounds_every_difference_quotient(betas, eps, floor, seed):
    rng = np.random.default_rng(seed)
    problem = ProblemConstants(dim=1, smoothness=0, grad_bound=1.0, second_moment_floor=floor)
    adam = AdamSetting(0.1, *betas, eps)
    v = np.exp(rng.uniform(math.log(max(floor, eps * 1e-2)), 0, size=(2, 2000))).clip(floor, 1)
    top = np.minimum(1, np.sqrt(moment_ratio(*betas) * v))
    m = top * rng.uniform(-1, 1, size=v.shape)
    ratio = m / np.sqrt(v + eps)
    in_m, in_v = step_sensitivity(problem, adam)
    allowed = in_m * np.abs(m[0] - m[1]) + in_v * np.abs(v[0] - v[1])
    assert (np.abs(ratio[0] - ratio[1]) <= allowed * (1 + 1e-9) + 1e-12).all()


@pytest.mark.parametrize(("floor", "eps"), [(0.0, 1e-6), (0.1, 1e-2), (0.0, 10.0)])
def test_step_sensitivity_in_v_is_attained(floor, eps):
    adam = AdamSetting(0.1, 0.9, 0.99, eps)
    problem = ProblemConstants(dim=1, smoothness=0, grad_bound=1.0, second_moment_floor=floor)
    v = np.geomspace(max(floor, 1e-12), 1, 200_001)
    m = np.minimum(1, np.sqrt(moment_ratio(0.9, 0.99) * v))
    slope = (m / (2 * (v + eps) ** 1.5)).max()
    in_m, in_v = step_sensitivity(problem, adam)
    assert in_m == pytest.approx(1 / math.sqrt(floor + eps))
    assert (
        0.6 * in_v < slope <= in_v * (1 + 1e-9)
    )  # two separate maxima are combined, so it need not be tight


def test_preconditioner_range_is_the_range():
    problem = ProblemConstants(dim=1, smoothness=0, grad_bound=2.0, second_moment_floor=0.25)
    assert preconditioner_range(problem, AdamSetting(0.1, eps=0.75)) == (1 / math.sqrt(4.75), 1.0)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"lr": 0.0}, r"lr must be a positive finite number, got 0\.0"),
        ({"lr": 0.1, "beta1": 1.0}, r"beta1 must be in \[0, 1\), got 1\.0"),
        ({"lr": 0.1, "beta2": -0.1}, r"beta2 must be in \[0, 1\), got -0\.1"),
        ({"lr": 0.1, "eps": math.nan}, "eps must be a positive finite number, got nan"),
        ({"lr": 0.1, "local_steps": 0}, "local_steps must be at least 1, got 0"),
    ],
)
def test_adam_setting_names_what_is_wrong(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        AdamSetting(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"dim": 0}, "dim must be at least 1, got 0"),
        ({"smoothness": -1.0}, r"smoothness must be a finite number that is not negative, got -1\.0"),
        ({"grad_bound": math.inf}, "grad_bound must be a positive finite number, got inf"),
        ({"heterogeneity": -2.0}, r"heterogeneity must be a finite number that is not negative, got -2\.0"),
        (
            {"second_moment_floor": 5.0},
            r"second_moment_floor must be in \[0, grad_bound \*\* 2 = 4\.0\], got 5\.0",
        ),
    ],
)
def test_problem_constants_names_what_is_wrong(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        ProblemConstants(**({"dim": 2, "smoothness": 1.0, "grad_bound": 2.0} | kwargs))
