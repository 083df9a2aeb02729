"""Theorems 3 and 4: which mask minimises the bound, and when that is top-k of |dW|."""

import math
from itertools import combinations

import fedsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comask.errors import ConfigError
from comask.theory import (
    AdamSetting,
    MaskWeights,
    ProblemConstants,
    bound_scores,
    coordinate_sensitivities,
    mask_objective,
    mask_weights,
    optimal_mask,
    transition,
    weights_mask_is_optimal,
)

DIM = 9


def draw(seed):
    rng = np.random.default_rng(seed)
    changes = rng.standard_t(2, size=(3, DIM)) * 10 ** rng.uniform(-1, 1, size=(3, 1))
    return changes, int(rng.integers(1, DIM)), MaskWeights(*(10 ** rng.uniform(-1, 1, size=3)))


def masks(num_kept):
    for positions in combinations(range(DIM), num_kept):
        mask = np.zeros(DIM, bool)
        mask[list(positions)] = True
        yield mask


def exhaustive(changes, num_kept, weights):
    return min(masks(num_kept), key=lambda mask: mask_objective(changes, mask, weights))


def top(scores, num_kept):
    return fedsim.top_k(scores, num_kept)


def test_optimum_is_a_top_k_of_its_own_score_and_squares_come_within_root_3():
    worst = 1.0
    for seed in range(300):
        changes, num_kept, weights = draw(seed)
        best = exhaustive(changes, num_kept, weights)
        least = mask_objective(changes, best, weights)
        score = (np.array(weights) / np.linalg.norm(changes[:, ~best], axis=1)) @ changes**2
        assert score[best].min() >= score[~best].max() * (1 - 1e-12)
        squares = mask_objective(changes, top(np.square(weights) @ changes**2, num_kept), weights)
        worst = max(worst, squares / least)
    fedsim.report("squared score, worst loss over the optimum (allowed 1.732)", round(worst, 3))
    assert 1.01 < worst <= math.sqrt(3)


def test_optimal_mask_is_at_least_as_good_as_both_starts_and_often_optimal():
    exact = 0
    for seed in range(300):
        changes, num_kept, weights = draw(seed)
        found = optimal_mask(changes, num_kept, weights)
        assert found.sum() == num_kept
        value = mask_objective(changes, found, weights)
        least = mask_objective(changes, exhaustive(changes, num_kept, weights), weights)
        for start in (np.square(weights) @ changes**2, np.abs(changes[0])):
            assert value <= mask_objective(changes, top(start, num_kept), weights) * (1 + 1e-12)
        exact += value <= least * (1 + 1e-12)
    assert exact >= 240


def test_optimal_mask_stops_where_a_stream_loses_nothing():
    changes = np.array([[5.0, 0.0, 0.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0]])
    assert optimal_mask(changes, 1, MaskWeights(9.0, 1.0, 1.0)).tolist() == [True, False, False]


def test_condition_22_implies_that_the_weights_mask_minimises_the_squares():
    held = 0
    for seed in range(2000):
        changes, num_kept, weights = draw(seed)
        if not weights_mask_is_optimal(changes, num_kept, weights):
            continue
        held += 1
        scores = np.square(weights) @ changes**2
        by_weights = top(np.abs(changes[0]), num_kept)
        assert scores[by_weights].min() >= scores[~by_weights].max()
    assert held > 100


def test_weights_mask_loses_at_most_what_23_says():
    tightest = 0.0
    for seed in range(300):
        changes, num_kept, weights = draw(seed)
        by_weights = top(np.abs(changes[0]), num_kept)
        value = mask_objective(changes, by_weights, weights)
        least = mask_objective(changes, exhaustive(changes, num_kept, weights), weights)
        extra = mask_objective(changes, by_weights, MaskWeights(0.0, *weights[1:]))
        assert value <= least + extra
        tightest = max(tightest, value / (least + extra))
    assert tightest > 0.9


def test_a_mask_that_keeps_all_is_optimal():
    assert weights_mask_is_optimal(np.ones((3, DIM)), DIM, MaskWeights(1.0, 1.0, 1.0))


@settings(max_examples=50, deadline=None)
@given(steps=st.integers(1, 40), beta1=st.sampled_from([0.0, 0.5, 0.9]))
def test_mask_weights_are_the_reach_of_what_is_dropped(steps, beta1):
    problem, lr = ProblemConstants(4, smoothness=1.0, grad_bound=1.0), 1e-9
    adam = AdamSetting(lr, beta1, 0.99, 1e-2, steps)
    powers = np.arange(1, steps + 1)
    matrix, _ = transition(problem, adam)
    # With lr -> 0 only direct reach is left: equation (19).
    expected = [
        1,
        matrix[0, 1] * np.sum(beta1 ** (powers - 1.0)),
        matrix[0, 2] * np.sum(0.99 ** (powers - 1.0)),
    ]
    np.testing.assert_allclose(mask_weights(problem, adam), expected, rtol=1e-4)


def test_reach_of_the_first_moment_saturates_and_that_of_the_second_does_not():
    problem = ProblemConstants(4, smoothness=0.0, grad_bound=1.0)
    short, long = (mask_weights(problem, AdamSetting(1e-3, local_steps=steps)) for steps in (20, 200))
    assert long.first_moment / short.first_moment < 1.15
    assert long.second_moment / short.second_moment > 8


def rollout(start, gradients, adam):
    state = list(start)
    for gradient in gradients:
        state = fedsim.adam_step(state, gradient, adam)
    return state[0]


def stationary(seed, adam):
    """Moments at which a constant gradient leaves them: m = g, v = g^2."""
    gradient = np.random.default_rng(seed).normal(size=DIM)
    return [np.zeros(DIM), gradient, gradient**2], [gradient] * adam.local_steps


@pytest.mark.parametrize("local_steps", [1, 5, 30])
def test_sensitivities_are_the_derivatives_of_a_round(local_steps):
    adam = AdamSetting(0.01, 0.9, 0.99, 0.05, local_steps)
    start, gradients = stationary(1, adam)
    in_m, in_v = coordinate_sensitivities(
        start[2],
        start[1],
        lr=adam.lr,
        beta1=adam.beta1,
        beta2=adam.beta2,
        eps=adam.eps,
        local_steps=local_steps,
    )
    for stream, expected in ((1, -in_m), (2, np.sign(start[1]) * in_v)):
        ends = []
        for sign in (1, -1):
            moved = [x.copy() for x in start]
            moved[stream] = moved[stream] + sign * 1e-6
            ends.append(rollout(moved, gradients, adam))
        np.testing.assert_allclose((ends[0] - ends[1]) / 2e-6, expected, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("signed", [True, False])
def test_bound_scores_predict_what_dropping_a_position_does(signed):
    adam = AdamSetting(0.01, 0.9, 0.99, 0.05, 6)
    settings = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 0.05, "local_steps": 6}
    end, gradients = stationary(2, adam)
    rng = np.random.default_rng(3)
    changes = 1e-4 * rng.normal(size=(3, DIM)) * np.array([[0.1], [1.0], [1.0]])
    dropped = [x - change for x, change in zip(end, changes, strict=True)]
    effect = np.abs(rollout(dropped, gradients, adam) - rollout(end, gradients, adam))
    scores = bound_scores(*changes, end[2], end[1], signed=signed, **settings)
    assert scores.dtype == np.float32
    if signed:
        np.testing.assert_allclose(scores, effect, rtol=2e-3, atol=1e-9)
    else:
        assert (effect <= math.sqrt(3) * scores * 1.002).all()
        assert (effect > 0.8 * scores).any()


def test_bound_scores_are_abs_dw_when_moments_do_not_change():
    dw = np.array([3.0, -2.0, 0.5], np.float32)
    zero = np.zeros(3, np.float32)
    scores = bound_scores(dw, zero, zero, zero, zero, lr=0.1, beta1=0.9, beta2=0.999, eps=1e-8, local_steps=3)
    np.testing.assert_array_equal(scores, np.abs(dw))


def test_bound_scores_survive_extreme_float32_values():
    tiny, huge = np.float32(1e-30), np.float32(1e15)
    arrays = [np.array([tiny, huge], np.float32) for _ in range(5)]
    scores = bound_scores(*arrays, lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-8, local_steps=30)
    assert np.isfinite(scores).all()
    assert (scores > 0).all()


def test_bound_scores_refuse_arrays_of_different_length():
    arrays = [np.zeros(3, np.float32)] * 4 + [np.zeros(2, np.float32)]
    with pytest.raises(
        ConfigError, match=r"dw, dm, dv, v and m must have one shape, got \[\(3,\), .*\(2,\)\]"
    ):
        bound_scores(*arrays, lr=0.1, beta1=0.9, beta2=0.9, eps=1.0, local_steps=1)


@pytest.mark.parametrize("num_kept", [0, DIM + 1])
def test_optimal_mask_refuses_to_keep_none_or_more_than_all(num_kept):
    with pytest.raises(ConfigError, match=rf"num_kept must be in 1\.\.{DIM}, got {num_kept}"):
        optimal_mask(np.ones((3, DIM)), num_kept, MaskWeights(1.0, 1.0, 1.0))


def next_round_errors(local_steps, mean, *, warm=300):
    """Return, by mask rule, the mean error of the weights after the round that follows a masked one.

    Gradients are noise of unit size around `mean`, on coordinates of different scale. After 300 steps of `warm`
    up the moments are stationary; without, the masked round starts from zero.
    """
    adam = AdamSetting(0.01, 0.9, 0.99, 1e-4, local_steps)
    settings = {"lr": 0.01, "beta1": 0.9, "beta2": 0.99, "eps": 1e-4, "local_steps": local_steps}
    rng, runs = np.random.default_rng(0), 200
    gradients = np.exp(rng.normal(size=(runs, 20))) * rng.normal(
        mean, 1.0, size=(warm + 2 * local_steps, runs, 20)
    )
    states = [[np.zeros((runs, 20))] * 3]
    for gradient in gradients[: warm + local_steps]:
        states.append(fedsim.adam_step(states[-1], gradient, adam))
    begin, end = states[warm], states[warm + local_steps]
    changes = [x - y for x, y in zip(end, begin, strict=True)]
    scores = {
        **dict(zip("wmv", map(np.abs, changes), strict=True)),
        "bound": bound_scores(*changes, end[2], end[1], **settings),
        "signed": bound_scores(*changes, end[2], end[1], signed=True, **settings),
    }
    later = gradients[warm + local_steps :]
    target, errors = rollout(end, later, adam), {}
    for rule, score in scores.items():
        masked = [x + change * top(score, 5) for x, change in zip(begin, changes, strict=True)]
        errors[rule] = float(np.linalg.norm(rollout(masked, later, adam) - target, axis=1).mean())
    fedsim.report(
        f"error of the next round's weights, L = {local_steps}",
        {rule: round(e, 4) for rule, e in errors.items()},
    )
    return errors


def test_the_bound_masks_leave_the_least_error_when_moments_matter():
    errors = next_round_errors(local_steps=5, mean=0.0)
    assert errors["bound"] < 0.99 * min(errors[rule] for rule in "wmv")
    assert errors["signed"] < 0.95 * errors["bound"]


@pytest.mark.parametrize("local_steps", [3, 60])
def test_from_zero_moments_first_order_says_little(local_steps):
    errors = next_round_errors(local_steps, mean=0.5, warm=0)
    assert errors["bound"] == pytest.approx(errors["w"], rel=0.01)
    assert errors["signed"] == pytest.approx(errors["w"], rel=0.05)


def test_the_weights_mask_is_as_good_when_rounds_are_long_and_gradients_steady():
    errors = next_round_errors(local_steps=60, mean=0.5)
    assert errors["w"] == pytest.approx(errors["bound"], rel=0.01)
    assert errors["w"] < 0.95 * min(errors["m"], errors["v"])
