"""Section 8: the density that a budget calls for."""

from dataclasses import replace

import pytest

from comask.errors import ConfigError
from comask.theory import (
    AdamSetting,
    ProblemConstants,
    Sparsity,
    convergence_bound_nonconvex,
    optimal_density,
    payload_floor_bits,
)

PROBLEM = ProblemConstants(10_000, smoothness=1.0, grad_bound=0.1, second_moment_floor=1e-3)
ADAM = AdamSetting(1e-5, beta1=0.0, eps=0.1, local_steps=10)
DENSE = payload_floor_bits(10_000, 10_000)


def choose(sparsity, *, rounds=1000, **options):
    return optimal_density(PROBLEM, ADAM, sparsity, budget_bits=rounds * DENSE, gap=1.0, **options)


def test_the_choice_is_the_least_bound_among_all_candidates():
    choice = choose(Sparsity(error_feedback=True))
    for num_kept in (1, 10, 100, 1000, 10_000):
        rounds = int(1000 * DENSE / payload_floor_bits(10_000, num_kept))
        density = Sparsity(num_kept / 10_000, error_feedback=True)
        assert choice.bound <= convergence_bound_nonconvex(PROBLEM, ADAM, density, rounds=rounds, gap=1.0)
    assert choice.bound == convergence_bound_nonconvex(
        PROBLEM, ADAM, Sparsity(choice.density, error_feedback=True), rounds=choice.rounds, gap=1.0
    )


def test_without_feedback_the_worst_case_gives_no_reason_to_sparsify():
    assert choose(Sparsity()).density == 1


def test_captured_energy_beyond_its_share_is_a_reason():
    heavy = choose(Sparsity(), captured=lambda num_kept: (num_kept / 10_000) ** 0.3)
    assert heavy.density < 0.5
    assert heavy.bound < choose(Sparsity()).bound


def test_with_feedback_a_tighter_budget_calls_for_a_lower_density():
    rich, poor = (choose(Sparsity(error_feedback=True), rounds=rounds) for rounds in (1000, 10))
    assert poor.density < rich.density < 1


def test_leading_order_formula_is_within_a_factor_of_three():
    # kappa = (2 b / a)^(2/3) of section 8, where optimisation and residual rule.
    from comask.theory import preconditioner_range, step_bound

    choice = choose(Sparsity(error_feedback=True))
    low, high = preconditioner_range(PROBLEM, ADAM)
    pace = ADAM.lr * ADAM.local_steps
    bits = payload_floor_bits(10_000, choice.num_kept) / choice.num_kept
    a = (10_000 * bits / (low * pace * 1000 * DENSE)) ** 0.5
    b = 2 * PROBLEM.smoothness * pace * step_bound(PROBLEM, ADAM) * 100 * (1 + (high / low) ** 0.5)
    assert choice.density == pytest.approx((2 * b / a) ** (2 / 3), rel=2)
    assert choice.density > (2 * b / a) ** (2 / 3) / 3


def test_wrong_arguments_are_named():
    with pytest.raises(
        ConfigError, match=r"budget_bits=3\.0 pays for no round: one upload of 1 position takes 10"
    ):
        optimal_density(PROBLEM, ADAM, Sparsity(), budget_bits=3.0, gap=1.0)
    with pytest.raises(ConfigError, match=r"captured and sparsity\.stale must be None"):
        choose(replace(Sparsity(), captured=0.5))
