"""Lemmas 5 and 6, Theorems 5 to 8: no run is slower than the bounds say."""

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
    Sparsity,
    convergence_bound_convex,
    convergence_bound_nonconvex,
    heterogeneity_floor,
    momentum_error,
    residual_bound,
    stale_momentum_bound,
)

SLACK = 1 + 1e-9
DIM, DEVICES, BATCH = 6, 3, 40

adams = st.builds(
    AdamSetting,
    lr=st.sampled_from([1e-4, 1e-3, 1e-2, 0.1]),
    beta1=st.sampled_from([0.0, 0.5, 0.9]),
    beta2=st.sampled_from([0.9, 0.99, 0.999]),
    eps=st.sampled_from([1e-4, 1e-2, 1.0, 30.0]),
    local_steps=st.integers(1, 6),
)
runs = {
    "adam": adams,
    "num_kept": st.integers(1, DIM),
    "error_feedback": st.booleans(),
    "rounds": st.sampled_from([1, 5, 40]),
    "spread": st.sampled_from([0.0, 0.3, 2.0]),
    "seed": st.integers(0, 10**6),
}


def sparsity_of(run, instance, density, *, error_feedback, worst=False, crude=False):
    """Return the measured sparsity of one instance, or only its density."""
    if crude:
        return Sparsity(density, error_feedback)
    stale = run.stale[:, instance]
    stale = stale.max() if worst else np.sqrt(np.mean(stale**2))
    return Sparsity(
        density, error_feedback, captured=min(1.0, float(run.captured[instance])), stale=float(stale)
    )


def rms_gradient(problem, run):
    points = run.weights[:-1].transpose(1, 0, 2)
    return np.sqrt(np.mean(np.square(problem.grad(points)).sum(axis=2), axis=1))


@settings(max_examples=60, deadline=None)
@given(**runs)
def test_momentum_error_and_residual_stay_within_lemmas_5_and_6(
    *, adam, num_kept, error_feedback, rounds, spread, seed
):
    rng = np.random.default_rng(seed)
    problem = fedsim.random_quadratics(rng, batch=BATCH, devices=DEVICES, dim=DIM, spread=spread)
    run = fedsim.simulate(
        problem,
        adam,
        rng.normal(size=(BATCH, DIM)),
        rounds=rounds,
        num_kept=num_kept,
        error_feedback=error_feedback,
    )
    for instance in range(BATCH):
        constants = run.constants(problem, instance)
        sparsity = sparsity_of(run, instance, num_kept / DIM, error_feedback=error_feedback, worst=True)
        error = momentum_error(constants, adam, sparsity)
        measured = run.momentum_error[:, instance].max(axis=0)
        assert measured[0] <= error.total * SLACK
        assert measured[1] <= error.kept * SLACK
        assert run.residual[instance] <= residual_bound(constants, adam, sparsity) * SLACK


@settings(max_examples=60, deadline=None)
@given(crude=st.booleans(), **runs)
def test_no_gradient_is_larger_than_theorems_5_and_6_allow(
    *, crude, adam, num_kept, error_feedback, rounds, spread, seed
):
    rng = np.random.default_rng(seed)
    problem = fedsim.random_quadratics(
        rng, batch=BATCH, devices=DEVICES, dim=DIM, spread=spread, tilt=min(spread, 0.3)
    )
    start = rng.normal(size=(BATCH, DIM))
    run = fedsim.simulate(
        problem, adam, start, rounds=rounds, num_kept=num_kept, error_feedback=error_feedback
    )
    gap = problem.value(start[:, None])[:, 0] - problem.minimum
    problem.smoothness = np.linalg.norm(problem.hessians, ord=2, axis=(2, 3)).max(axis=1)  # of every device
    measured = rms_gradient(problem, run)
    for instance in range(BATCH):
        bound = convergence_bound_nonconvex(
            run.constants(problem, instance, floor=not crude),
            adam,
            sparsity_of(run, instance, num_kept / DIM, error_feedback=error_feedback, crude=crude),
            rounds=rounds,
            gap=gap[instance],
            exact_gradients=True,
        )
        assert measured[instance] <= bound * SLACK


@settings(max_examples=40, deadline=None)
@given(**runs)
def test_no_gap_is_larger_than_theorem_7_allows(*, adam, num_kept, error_feedback, rounds, spread, seed):
    rng = np.random.default_rng(seed)
    problem = fedsim.random_quadratics(rng, batch=BATCH, devices=DEVICES, dim=DIM, spread=spread)
    start = rng.normal(size=(BATCH, DIM))
    run = fedsim.simulate(
        problem, adam, start, rounds=rounds, num_kept=num_kept, error_feedback=error_feedback
    )
    gaps = problem.value(run.weights.transpose(1, 0, 2)) - problem.minimum[:, None]
    radius = np.linalg.norm(run.virtual - problem.minimiser, axis=2).max(axis=0)
    for instance in range(BATCH):
        for known in ({"strong_convexity": problem.strong_convexity[instance]}, {"radius": radius[instance]}):
            bound = convergence_bound_convex(
                run.constants(problem, instance),
                adam,
                sparsity_of(run, instance, num_kept / DIM, error_feedback=error_feedback, worst=True),
                rounds=rounds,
                gap=gaps[instance, 0],
                **known,
            )
            assert (gaps[instance] <= bound * SLACK + 1e-12).all()


@pytest.mark.parametrize("error_feedback", [False, True])
@pytest.mark.parametrize("num_kept", [1, 3, DIM])
def test_logistic_regression_obeys_all_three(num_kept, error_feedback):
    adam, rounds, batch = AdamSetting(0.05, 0.9, 0.99, 1.0, 3), 60, 100
    rng = np.random.default_rng(num_kept)
    problem = fedsim.random_logistic(rng, batch=batch, devices=DEVICES, dim=DIM, ridge=0.3)
    start = rng.normal(size=(batch, DIM))
    run = fedsim.simulate(
        problem, adam, start, rounds=rounds, num_kept=num_kept, error_feedback=error_feedback
    )
    minimum = minimise(problem, start)
    gaps = problem.value(run.weights.transpose(1, 0, 2)) - minimum[:, None]
    measured, ratios = rms_gradient(problem, run), []
    for instance in range(batch):
        constants = run.constants(problem, instance)
        sparsity = sparsity_of(run, instance, num_kept / DIM, error_feedback=error_feedback, worst=True)
        known = {"rounds": rounds, "gap": gaps[instance, 0]}
        bound = convergence_bound_convex(constants, adam, sparsity, strong_convexity=0.3, **known)
        ratios.append(
            (
                measured[instance] / convergence_bound_nonconvex(constants, adam, sparsity, **known),
                gaps[instance, -1] / bound[-1],
            )
        )
        assert (gaps[instance] <= bound * SLACK + 1e-12).all()
    fedsim.report(
        f"logistic, k={num_kept}/{DIM}, feedback={error_feedback}: worst measured/bound (gradient, gap)",
        np.max(ratios, axis=0),
    )
    assert np.max(ratios) <= SLACK


def minimise(problem, start):
    """Newton's method is not needed: strongly convex, 3000 gradient steps of size 1 / smoothness reach rounding."""
    w = start[:, None]
    for _ in range(3000):
        w = w - problem.grad(w) / problem.smoothness[:, None, None]
    assert np.abs(problem.grad(w)).max() < 1e-9
    return problem.value(w)[:, 0]


@settings(max_examples=10, deadline=None)
@given(adam=adams, seed=st.integers(0, 10**6))
def test_dense_fedadam_refreshes_momentum(adam, seed):
    rng = np.random.default_rng(seed)
    problem = fedsim.random_quadratics(rng, batch=BATCH, devices=DEVICES, dim=DIM)
    run = fedsim.simulate(problem, adam, rng.normal(size=(BATCH, DIM)), rounds=20, num_kept=DIM)
    for instance in range(BATCH):
        bound = stale_momentum_bound(run.constants(problem, instance), adam, run.stale[0, instance])
        assert run.stale[:, instance].max() <= bound * SLACK
    problem.smoothness = np.linalg.norm(problem.hessians, ord=2, axis=(2, 3)).max(axis=1)  # of every device
    for instance in range(BATCH):
        bound = stale_momentum_bound(
            run.constants(problem, instance), adam, run.stale[0, instance], exact_gradients=True
        )
        assert run.stale[:, instance].max() <= bound * SLACK


def conflict(dim, num_kept, *, delta=0.5, eps=1e-2):
    """The example of Theorem 8: two devices that disagree on the first positions and agree on the rest."""
    high = delta / math.sqrt(num_kept)
    low = high * math.sqrt(eps / (high**2 + eps))
    slopes = np.full((1, 2, dim), low)
    slopes[0, :, :num_kept] = [[high], [-high]]
    return fedsim.Linear(slopes, np.full((1, 2), 0.5)), ProblemConstants(dim, 0.0, high, delta)


@pytest.mark.parametrize(("dim", "num_kept"), [(10, 1), (10, 5), (100, 5)])
def test_without_feedback_conflict_stops_all_progress_as_theorem_8_says(dim, num_kept):
    problem, constants = conflict(dim, num_kept)
    adam = AdamSetting(0.1, 0.9, 0.99, 1e-2, 3)
    run = fedsim.simulate(problem, adam, np.zeros((1, dim)), rounds=100, num_kept=num_kept)
    assert not run.weights.any()
    assert run.heterogeneity[0] == pytest.approx(constants.heterogeneity)
    least, most = heterogeneity_floor(constants, adam, Sparsity(num_kept / dim))
    assert rms_gradient(problem, run)[0] == pytest.approx(least, rel=1e-12)
    assert least < most
    freed = fedsim.simulate(
        problem, adam, np.zeros((1, dim)), rounds=100, num_kept=num_kept, error_feedback=True
    )
    assert (freed.weights[-1, 0, num_kept:] < 0).all()
    assert heterogeneity_floor(constants, adam, Sparsity(num_kept / dim, error_feedback=True))[0] == 0


def test_the_least_cost_is_that_of_an_example_that_exists():
    # Gradients of at most G on k positions cannot differ by more than G sqrt(k).
    adam, sparsity = AdamSetting(0.1, eps=1e-2), Sparsity(0.1)
    large, possible = (
        heterogeneity_floor(ProblemConstants(10, 0.0, 0.5, delta), adam, sparsity)[0] for delta in (7.0, 0.5)
    )
    assert large == possible > 0


def test_the_upper_floor_is_the_limit_of_the_bound():
    problem = ProblemConstants(50, smoothness=1.0, grad_bound=1.0, heterogeneity=0.2)
    adam = AdamSetting(1e-8, 0.0, eps=0.5, local_steps=10)
    for sparsity in (Sparsity(0.1), Sparsity(0.1, error_feedback=True), Sparsity()):
        bound = convergence_bound_nonconvex(problem, adam, sparsity, rounds=10**15, gap=1.0)
        assert bound == pytest.approx(heterogeneity_floor(problem, adam, sparsity)[1], rel=1e-3)


def test_exact_gradients_make_heterogeneity_cheap_when_devices_share_the_preconditioner():
    problem = ProblemConstants(50, smoothness=1.0, grad_bound=1.0, heterogeneity=0.5)
    adam = AdamSetting(1e-9, 0.0, 0.9999, eps=0.5)
    noisy, exact = (
        convergence_bound_nonconvex(problem, adam, Sparsity(), rounds=10**12, gap=1.0, exact_gradients=known)
        for known in (False, True)
    )
    assert exact < 0.1 * noisy


def test_a_known_gap_shrinks_faster_when_strongly_convex():
    problem, adam = ProblemConstants(4, 1.0, 1.0, second_moment_floor=0.5), AdamSetting(1e-3, 0.0, 0.9, 1.0)
    known = {"rounds": 5000, "gap": 1.0}
    linear = convergence_bound_convex(problem, adam, Sparsity(stale=0.0), strong_convexity=1.0, **known)
    slower = convergence_bound_convex(problem, adam, Sparsity(stale=0.0), radius=2.0, **known)
    assert linear[-1] < 0.1 * slower[-1] < 0.1 * slower[0]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"density": 0.0}, r"density must be in \(0, 1\], got 0\.0"),
        ({"captured": 1.2}, r"captured must be in \(0, 1\], got 1\.2"),
        ({"stale": -1.0}, r"stale must be a finite number that is not negative, got -1\.0"),
    ],
)
def test_sparsity_names_what_is_wrong(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        Sparsity(**kwargs)


def test_a_gap_needs_convexity():
    problem, adam = ProblemConstants(4, 1.0, 1.0), AdamSetting(1e-3)
    with pytest.raises(ConfigError, match="Give strong_convexity > 0 or a finite radius"):
        convergence_bound_convex(problem, adam, Sparsity(), rounds=3, gap=1.0)
    with pytest.raises(ConfigError, match="gap must be a finite number that is not negative, got -1"):
        convergence_bound_nonconvex(problem, adam, Sparsity(), rounds=3, gap=-1)
