"""The sweeps of the other files again, over tens of thousands of instances."""

import pytest
import test_theory_convergence
import test_theory_divergence
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DEEP = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@DEEP
@given(**test_theory_convergence.runs)
def test_lemmas_5_and_6(**drawn):
    test_theory_convergence.test_momentum_error_and_residual_stay_within_lemmas_5_and_6.hypothesis.inner_test(
        **drawn
    )


@DEEP
@given(crude=st.booleans(), **test_theory_convergence.runs)
def test_theorems_5_and_6(**drawn):
    test_theory_convergence.test_no_gradient_is_larger_than_theorems_5_and_6_allow.hypothesis.inner_test(
        **drawn
    )


@DEEP
@given(**test_theory_convergence.runs)
def test_theorem_7(**drawn):
    test_theory_convergence.test_no_gap_is_larger_than_theorem_7_allows.hypothesis.inner_test(**drawn)


@DEEP
@given(
    adam=test_theory_divergence.adams,
    kind=test_theory_divergence.kinds,
    num_kept=st.integers(1, test_theory_divergence.DIM),
    spread=st.sampled_from([0.0, 0.1, 1.0, 10.0]),
    error_feedback=st.booleans(),
    seed=st.integers(0, 10**9),
)
def test_theorem_2(**drawn):
    test_theory_divergence.test_no_run_diverges_more_than_theorem_2_allows.hypothesis.inner_test(**drawn)


@DEEP
@given(rule=st.sampled_from(["w", "random", "separate"]), **test_theory_convergence.runs)
def test_theorem_9(**drawn):
    inner = test_theory_convergence.test_no_preconditioned_gradient_is_larger_than_theorem_9_allows
    inner.hypothesis.inner_test(**drawn)


@DEEP
@given(**test_theory_convergence.runs | {"rounds": st.sampled_from([1, 5, 20])})
def test_constants_of_the_problem_alone(**drawn):
    test_theory_convergence.test_constants_of_the_problem_alone_suffice.hypothesis.inner_test(**drawn)
