"""Lemmas 5 and 6, Theorems 5 to 8: no run is slower than the bounds say."""

import math
from dataclasses import replace

import fedsim
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from comask.errors import ConfigError
from comask.theory import (
    AdamSetting,
    ProblemConstants,
    Sparsity,
    convergence_bound_convex,
    convergence_bound_nonconvex,
    divergence_bound,
    heterogeneity_floor,
    momentum_error,
    preconditioner_range,
    residual_bound,
    residual_factor,
    sparsification_bound,
    stale_momentum_bound,
    step_bound,
    weighted_convergence_bound,
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
kinds = st.sampled_from([fedsim.random_quadratics, fedsim.random_logistic])
runs = {
    "kind": kinds,
    "adam": adams,
    "num_kept": st.integers(1, DIM),
    "error_feedback": st.booleans(),
    "rounds": st.sampled_from([1, 5, 25]),
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


def simulated(kind, adam, num_kept, error_feedback, rounds, spread, seed, *, rule="w", **options):
    """Draw a batch of problems that `spread` drives apart, and run on them."""
    rng = np.random.default_rng(seed)
    apart = {"spread": spread} if kind is fedsim.random_quadratics else {"skew": spread}
    problem = kind(rng, batch=BATCH, devices=DEVICES, dim=DIM, **apart, **options)
    start = rng.normal(size=(BATCH, DIM))
    run = fedsim.simulate(
        problem, adam, start, rounds=rounds, num_kept=num_kept, error_feedback=error_feedback, rule=rule
    )
    return problem, start, run


def rms_gradient(problem, run):
    points = run.weights[:-1].transpose(1, 0, 2)
    return np.sqrt(np.mean(np.square(problem.grad(points)).sum(axis=2), axis=1))


@settings(max_examples=60, deadline=None)
@given(**runs)
def test_momentum_error_and_residual_stay_within_lemmas_5_and_6(
    *, kind, adam, num_kept, error_feedback, rounds, spread, seed
):
    problem, _, run = simulated(kind, adam, num_kept, error_feedback, rounds, spread, seed)
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
    *, crude, kind, adam, num_kept, error_feedback, rounds, spread, seed
):
    options = {"tilt": min(spread, 0.3)} if kind is fedsim.random_quadratics else {}
    problem, start, run = simulated(kind, adam, num_kept, error_feedback, rounds, spread, seed, **options)
    gap = problem.value(start[:, None])[:, 0] - problem.minimum
    problem.smoothness = problem.device_smoothness()
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
        assert np.isfinite(bound)
        assert measured[instance] <= bound * SLACK


@settings(max_examples=40, deadline=None)
@given(**runs)
def test_no_gap_is_larger_than_theorem_7_allows(
    *, kind, adam, num_kept, error_feedback, rounds, spread, seed
):
    problem, _, run = simulated(kind, adam, num_kept, error_feedback, rounds, spread, seed)
    gaps = problem.value(run.weights.transpose(1, 0, 2)) - problem.minimum[:, None]
    radius = np.linalg.norm(run.virtual - problem.minimiser, axis=2).max(axis=0)
    for instance in range(BATCH):
        strong, near = {"strong_convexity": problem.strong_convexity[instance]}, {"radius": radius[instance]}
        for known in (strong, near, strong | near):
            bound = convergence_bound_convex(
                run.constants(problem, instance),
                adam,
                sparsity_of(run, instance, num_kept / DIM, error_feedback=error_feedback, worst=True),
                rounds=rounds,
                gap=gaps[instance, 0],
                **known,
            )
            assert np.isfinite(bound).all()
            assert (gaps[instance] <= bound * SLACK + 1e-12).all()


@settings(max_examples=40, deadline=None)
@given(rule=st.sampled_from(["w", "random", "separate"]), **runs)
def test_no_preconditioned_gradient_is_larger_than_theorem_9_allows(
    *, rule, kind, adam, num_kept, error_feedback, rounds, spread, seed
):
    problem, _, run = simulated(kind, adam, num_kept, error_feedback, rounds, spread, seed, rule=rule)
    values = problem.value(run.virtual[[0, -1]].transpose(1, 0, 2))
    for instance in range(BATCH):
        path = run.measures_of(instance, adam)
        measured = np.sqrt(np.mean([one.gradient for one in path]))
        bound = weighted_convergence_bound(
            path,
            adam,
            smoothness=problem.smoothness[instance],
            gap=max(0.0, values[instance, 0] - values[instance, 1]),
        )
        assert measured <= bound * SLACK


@settings(max_examples=25, deadline=None)
@given(**runs | {"rounds": st.sampled_from([1, 5, 20])})
def test_constants_of_the_problem_alone_suffice(
    *, kind, adam, num_kept, error_feedback, rounds, spread, seed
):
    assume(adam.beta1**2 < adam.beta2)
    problem, start, run = simulated(kind, adam, num_kept, error_feedback, rounds, spread, seed)
    factor = residual_factor(num_kept / DIM) if error_feedback else 0.0
    gaps = problem.value(run.weights.transpose(1, 0, 2)) - problem.minimum[:, None]
    measured = rms_gradient(problem, run)
    crude = fedsim.crude_constants(problem, start, adam, rounds=rounds, residual_factor=factor)
    sparsity = Sparsity(num_kept / DIM, error_feedback)
    for instance, constants in enumerate(crude):
        assert run.grad_bound[instance] <= constants.grad_bound * SLACK
        known = {"rounds": rounds, "gap": gaps[instance, 0]}
        convex = convergence_bound_convex(
            constants, adam, sparsity, strong_convexity=problem.strong_convexity[instance], **known
        )
        assert measured[instance] <= convergence_bound_nonconvex(constants, adam, sparsity, **known) * SLACK
        assert (gaps[instance] <= convex * SLACK + 1e-12).all()
        dropped = sparsification_bound(constants, adam, num_kept / DIM)
        residual = residual_bound(constants, adam, sparsity) if error_feedback else None
        apart = divergence_bound(constants, adam, rounds=rounds, sparsification=dropped, residual=residual)
        assert (run.server_distance[:, instance] <= apart.server * SLACK + 1e-13).all()


@pytest.mark.parametrize("error_feedback", [False, True])
@pytest.mark.parametrize("num_kept", [2, DIM])
@pytest.mark.parametrize("kind", [fedsim.random_quadratics, fedsim.random_logistic])
def test_sweeps_measure_something(kind, num_kept, error_feedback):
    # Were the measured quantities 0 or the bounds astronomic everywhere, the sweeps above would prove nothing.
    adam, rounds = AdamSetting(0.05, 0.9, 0.99, 1.0, 3), 40
    problem, _, run = simulated(kind, adam, num_kept, error_feedback, rounds, 0.3, 1)
    gaps = problem.value(run.weights.transpose(1, 0, 2)) - problem.minimum[:, None]
    values = problem.value(run.virtual[[0, -1]].transpose(1, 0, 2))
    measured, ratios = rms_gradient(problem, run), []
    for instance in range(BATCH):
        constants = run.constants(problem, instance)
        sparsity = sparsity_of(run, instance, num_kept / DIM, error_feedback=error_feedback, worst=True)
        known = {"rounds": rounds, "gap": gaps[instance, 0]}
        convex = convergence_bound_convex(
            constants, adam, sparsity, strong_convexity=problem.strong_convexity[instance], **known
        )
        path = run.measures_of(instance, adam)
        weighted = weighted_convergence_bound(
            path, adam, smoothness=constants.smoothness, gap=values[instance, 0] - values[instance, 1]
        )
        ratios.append(
            (
                measured[instance] / convergence_bound_nonconvex(constants, adam, sparsity, **known),
                gaps[instance, 10] / convex[10],
                np.sqrt(np.mean([one.gradient for one in path])) / weighted,
            )
        )
    median = np.median(ratios, axis=0)
    fedsim.report(
        f"{kind.__name__}, {num_kept} of {DIM}, feedback={error_feedback}: measured / bound of (33)/(35), (38), (45)",
        median.round(4),
    )
    assert np.max(ratios) <= SLACK
    assert (median > [0.03, 0.01, 0.5]).all()


@settings(max_examples=10, deadline=None)
@given(adam=adams, seed=st.integers(0, 10**6))
def test_dense_fedadam_refreshes_momentum(adam, seed):
    rng = np.random.default_rng(seed)
    problem = fedsim.random_quadratics(rng, batch=BATCH, devices=DEVICES, dim=DIM)
    run = fedsim.simulate(problem, adam, rng.normal(size=(BATCH, DIM)), rounds=20, num_kept=DIM)
    for instance in range(BATCH):
        bound = stale_momentum_bound(run.constants(problem, instance), adam, run.stale[0, instance])
        assert run.stale[:, instance].max() <= bound * SLACK
    problem.smoothness = problem.device_smoothness()
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


def test_the_least_cost_counts_only_the_slope_that_the_example_has():
    # Equation (41) has G' = delta / sqrt(k), however large a gradient other problems may have.
    problem, constants = conflict(10, 1, delta=0.5)
    adam = AdamSetting(0.1, 0.9, 0.99, 1e-2, 3)
    run = fedsim.simulate(problem, adam, np.zeros((1, 10)), rounds=5, num_kept=1)
    least, _ = heterogeneity_floor(replace(constants, grad_bound=100.0), adam, Sparsity(0.1))
    assert rms_gradient(problem, run)[0] == pytest.approx(least, rel=1e-12)


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


@pytest.mark.parametrize("error_feedback", [False, True])
@pytest.mark.parametrize(("steps", "density"), [(1, 0.1), (8, 0.1), (8, 1.0)])
def test_the_expanded_bound_is_the_bound_but_for_one_inequality(error_feedback, steps, density):
    # (33') and (35') of the document, term by term: at most twice (33) and (35), and never below them.
    problem = ProblemConstants(50, 2.0, 0.7, 0.4, second_moment_floor=0.05)
    adam = AdamSetting(1e-3, 0.9, 0.99, 0.1, steps)
    low, high = preconditioner_range(problem, adam)
    move = adam.lr * steps * step_bound(problem, adam) * 50**0.5
    powers = 0.9 ** np.arange(1, steps + 1)
    lag = np.sqrt(np.mean(powers**2))
    kept = 1.0 if error_feedback else density
    optimisation = math.sqrt(3.0 / (adam.lr * steps * 100))
    curvature = math.sqrt(2.0 * move**2 * kept / (2 * adam.lr * steps))
    held = 2 / density * move if error_feedback and density < 1 else 0.0
    common = 0.4 + 2.0 * held + 2.0 * move

    def error(share):
        return 2 * 0.7 * math.sqrt(50 * share) * lag + common

    if error_feedback or density == 1:
        expanded = (optimisation + curvature + math.sqrt(high) * error(1)) / math.sqrt(low) + 2.0 * held
    else:
        inner = optimisation + curvature + math.sqrt(high) * error(density)
        expanded = math.sqrt(high / density) / low * inner + math.sqrt(high / low) * error(1)
    bound = convergence_bound_nonconvex(problem, adam, Sparsity(density, error_feedback), rounds=100, gap=3.0)
    assert 0.4 * expanded < bound <= expanded * SLACK


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
