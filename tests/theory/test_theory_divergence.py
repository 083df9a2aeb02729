"""Theorems 1 and 2 and Lemma 3: the measured distance to centralised Adam never exceeds the bound."""

from dataclasses import replace

import fedsim
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from comask.errors import ConfigError
from comask.theory import (
    AdamSetting,
    ProblemConstants,
    divergence,
    divergence_bound,
    sparsification_bound,
    transition,
)

SLACK = 1 + 1e-9  # rounding only
DIM, DEVICES, BATCH = 6, 3, 40

adams = st.builds(
    AdamSetting,
    lr=st.sampled_from([1e-4, 1e-3, 1e-2, 0.1]),
    beta1=st.sampled_from([0.0, 0.5, 0.9]),
    beta2=st.sampled_from([0.9, 0.99, 0.999]),
    eps=st.sampled_from([1e-6, 1e-3, 1.0]),
    local_steps=st.integers(1, 8),
)
kinds = st.sampled_from([fedsim.random_quadratics, fedsim.random_logistic])


def worst_ratio(run, problem, adam, *, density=None, error_feedback=False):
    """Return the largest measured / bound over instances, streams, rounds, steps and devices: data-dependent constants."""
    rounds, worst = len(run.dropped), 0.0
    held_back = np.linalg.norm(run.virtual - run.weights, axis=2).max(axis=0)
    for instance in range(len(run.grad_bound)):
        constants = run.constants(problem, instance)
        dropped = (
            run.dropped[:, instance] if density is None else sparsification_bound(constants, adam, density)
        )
        known = {"residual": held_back[instance]} if error_feedback else {}
        bound = divergence_bound(constants, adam, rounds=rounds, sparsification=dropped, **known)
        assert np.isfinite(bound.device).all()
        worst = max(worst, fraction(run.server_distance[:, instance], bound.server))
        for device, own in enumerate(run.heterogeneity[instance]):
            bound = divergence_bound(
                constants, adam, rounds=rounds, sparsification=dropped, device_heterogeneity=own, **known
            )
            worst = max(worst, fraction(run.device_distance[:, :, instance, device], bound.device))
    return worst


def fraction(measured, bound):
    # 1e-13 is float64's rounding of distances between numbers of size 1.
    return float(
        np.divide(measured, bound, out=np.where(measured > 1e-13, np.inf, 0.0), where=bound > 1e-13).max()
    )


@settings(max_examples=40, deadline=None)
@given(
    adam=adams,
    kind=kinds,
    num_kept=st.integers(1, DIM),
    spread=st.sampled_from([0.0, 0.3, 3.0]),
    error_feedback=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_no_run_diverges_more_than_theorem_2_allows(adam, kind, num_kept, spread, error_feedback, seed):
    rng = np.random.default_rng(seed)
    problem = kind(
        rng,
        batch=BATCH,
        devices=DEVICES,
        dim=DIM,
        **{"spread" if "quad" in kind.__name__ else "skew": spread},
    )
    run = fedsim.simulate(
        problem,
        adam,
        rng.normal(size=(BATCH, DIM)),
        rounds=4,
        num_kept=num_kept,
        error_feedback=error_feedback,
    )
    assert worst_ratio(run, problem, adam, error_feedback=error_feedback) <= SLACK


@settings(max_examples=20, deadline=None)
@given(
    adam=adams,
    num_kept=st.integers(1, DIM),
    rule=st.sampled_from(["w", "random"]),
    seed=st.integers(0, 10**6),
)
def test_the_bound_needs_no_measured_error(adam, num_kept, rule, seed):
    rng = np.random.default_rng(seed)
    problem = fedsim.random_quadratics(rng, batch=BATCH, devices=DEVICES, dim=DIM)
    run = fedsim.simulate(
        problem, adam, rng.normal(size=(BATCH, DIM)), rounds=4, num_kept=num_kept, rule=rule
    )
    for instance in range(BATCH):
        allowed = sparsification_bound(run.constants(problem, instance), adam, num_kept / DIM)
        assert (run.dropped[:, instance] <= allowed * SLACK + 1e-13).all()
    assert worst_ratio(run, problem, adam, density=num_kept / DIM) <= SLACK


@pytest.mark.parametrize("error_feedback", [False, True])
@pytest.mark.parametrize("kind", [fedsim.random_quadratics, fedsim.random_logistic])
def test_sweeps_are_about_runs_that_do_diverge(kind, error_feedback):
    # If distances or bounds were 0 or infinite, the sweeps above would prove nothing.
    adam, rng = AdamSetting(1e-2, 0.9, 0.99, 1.0, 4), np.random.default_rng(1)
    problem = kind(rng, batch=BATCH, devices=DEVICES, dim=DIM)
    start = rng.normal(size=(BATCH, DIM))
    run = fedsim.simulate(problem, adam, start, rounds=4, num_kept=2, error_feedback=error_feedback)
    assert (run.server_distance[1:] > 1e-6).all()
    assert (run.device_distance[1:] > 1e-6).all()
    assert worst_ratio(run, problem, adam, error_feedback=error_feedback) <= SLACK
    held_back = np.linalg.norm(run.virtual - run.weights, axis=2).max(axis=0)
    ratios = []
    for instance in range(BATCH):
        known = {"residual": held_back[instance]} if error_feedback else {}
        bound = divergence_bound(
            run.constants(problem, instance), adam, rounds=4, sparsification=run.dropped[:, instance], **known
        )
        ratios.append(run.server_distance[-1, instance] / bound.server[-1])
    median = np.median(ratios, axis=0)
    fedsim.report(f"{kind.__name__}, feedback={error_feedback}: measured / bound, medians", median.round(3))
    assert (median > 0.05).all()


def test_with_feedback_what_is_dropped_does_not_add_up():
    # A mask that always drops the same: without feedback the distance grows with every round, with it the residual does.
    problem = fedsim.Linear(np.array([[[1.0, 0.4]]]), np.ones((1, 1)))
    adam = AdamSetting(1e-3, 0.0, 0.99, 100.0)
    for feedback in (False, True):
        run = fedsim.simulate(problem, adam, np.zeros((1, 2)), rounds=40, num_kept=1, error_feedback=feedback)
        held = np.linalg.norm(run.virtual - run.weights, axis=2).max()
        known = {"residual": held} if feedback else {}
        bound = divergence_bound(
            run.constants(problem, 0), adam, rounds=40, sparsification=run.dropped[:, 0], **known
        )
        ratio = run.server_distance[1:, 0, 0] / bound.server[1:, 0]
        fedsim.report(f"feedback={feedback}: largest measured / bound", round(ratio.max(), 3))
        assert 0.9 < ratio.max() <= SLACK
        distances = run.server_distance[[10, 40], 0, 0]
        assert distances[1] == pytest.approx(distances[0] * (1 if feedback else 4), rel=0.5)
        if feedback:
            wrong = divergence_bound(
                run.constants(problem, 0),
                adam,
                rounds=40,
                sparsification=run.dropped[:, 0],
                residual=held / 2,
            )
            assert (run.server_distance[1:, 0, 0] > wrong.server[1:, 0] * SLACK).any()


def test_bound_grows_at_most_linearly():
    problem = ProblemConstants(DIM, smoothness=10.0, grad_bound=1.0, heterogeneity=1.0)
    adam = AdamSetting(0.1, eps=1e-8, local_steps=5)
    bound = divergence_bound(problem, adam, rounds=50, sparsification=np.ones(3))
    assert bound.server[50, 0] <= 50 * bound.server[1, 0] * SLACK
    assert np.isfinite(bound.device).all()


def test_identical_devices_that_send_all_do_not_diverge():
    adam = AdamSetting(0.01, local_steps=3)
    problem = fedsim.random_quadratics(
        np.random.default_rng(0), batch=5, devices=2, dim=3, spread=0.0, tilt=0.0
    )
    run = fedsim.simulate(problem, adam, np.ones((5, 3)), rounds=3, num_kept=3)
    assert np.abs(run.server_distance).max() < 1e-13
    bound = divergence_bound(ProblemConstants(3, 1.0, 1.0), adam, rounds=3, sparsification=np.zeros(3))
    assert not bound.server.any()


def one_step_ratio(apart, problem, adam):
    """Return measured / bound for one local step from two given states, a device's and the reference's."""
    (device, gradient), (reference, central) = apart
    before = np.abs(np.subtract(device, reference))
    after = np.abs(
        np.subtract(fedsim.adam_step(device, gradient, adam), fedsim.adam_step(reference, central, adam))
    )
    matrix, source = divergence.transition(problem, adam)
    bound = matrix @ before + source * problem.heterogeneity
    return np.divide(after, bound, out=np.zeros(3), where=bound > 0)


# Pairs of states between which one step comes within a few per cent of the bound, each led by other entries of T and tau.
# Device, reference, and the slope of grad F(w) = slope * w + 1; the device's gradient is off by the last number.
TIGHT = {
    "weights apart": (
        (1e-3, -0.9, 0.5),
        (0.0, -0.9, 0.5),
        -2.0,
        0.0,
    ),  # a concave F drives them further apart
    "first moments apart": ((0.0, 0.51, 0.5), (0.0, 0.5, 0.5), 2.0, 0.0),
    "second moments apart": ((0.0, 1.0, 0.4), (0.0, 1.0, 0.401), 2.0, 0.0),
    "gradients apart": ((0.0, -0.9, 0.5), (0.0, -0.9, 0.5), 2.0, 1e-3),
}
ENTRIES = [
    ("T", 0, 0),
    ("T", 0, 1),
    ("T", 0, 2),
    ("T", 1, 0),
    ("T", 1, 1),
    ("T", 2, 0),
    ("T", 2, 2),
    ("tau", 0),
    ("tau", 1),
    ("tau", 2),
]


def tight_ratios():
    adam = AdamSetting(0.3, 0.5, 0.9, 0.01)
    ratios = {}
    for name, (device, reference, slope, bias) in TIGHT.items():
        gradients = [slope * device[0] + 1 + bias, slope * reference[0] + 1]
        steps = [
            fedsim.adam_step(list(s), g, adam) for s, g in zip((device, reference), gradients, strict=True)
        ]
        constants = ProblemConstants(
            1, abs(slope), max(gradients), bias, second_moment_floor=min(s[2] for s in steps)
        )
        ratios[name] = one_step_ratio(
            ((list(device), gradients[0]), (list(reference), gradients[1])), constants, adam
        )
    return ratios


def test_tight_pairs_respect_theorem_1_and_come_close_to_it():
    ratios = tight_ratios()
    fedsim.report("measured / bound of one step", {name: np.round(r, 3) for name, r in ratios.items()})
    assert max(r.max() for r in ratios.values()) <= SLACK
    assert min(r.max() for r in ratios.values()) > 0.9


@pytest.mark.parametrize("entry", ENTRIES, ids=str)
def test_halving_any_entry_is_caught(entry, monkeypatch):
    def halved(problem, adam):
        parts = dict(zip(("T", "tau"), transition(problem, adam), strict=True))
        identity = float(entry == ("T", 0, 0))  # the part of this entry that no constant scales
        parts[entry[0]][entry[1:]] = (parts[entry[0]][entry[1:]] + identity) / 2
        return parts["T"], parts["tau"]

    monkeypatch.setattr(divergence, "transition", halved)
    assert max(r.max() for r in tight_ratios().values()) > SLACK


MUTATIONS = {
    "heterogeneity halved": lambda c, e: (replace(c, heterogeneity=c.heterogeneity / 2), e),
    "smoothness dropped": lambda c, e: (replace(c, smoothness=0.0), e),
    "sparsification of W halved": lambda c, e: (c, e * [0.5, 1, 1]),
    "sparsification of M halved": lambda c, e: (c, e * [1, 0.5, 1]),
    "sparsification of V halved": lambda c, e: (c, e * [1, 1, 0.5]),
}


@pytest.mark.parametrize("name", MUTATIONS)
def test_wrong_inputs_are_caught_over_rounds(name):
    caught = 0.0
    for adam, spread, num_kept in [
        (AdamSetting(0.02, 0.9, 0.99, 10.0, 4), 1.0, DIM),  # led by heterogeneity
        (AdamSetting(0.02, 0.9, 0.99, 10.0, 4), 0.0, 1),  # led by what the masks drop
        (AdamSetting(0.5, 0.0, 0.99, 10.0, 4), 0.0, 1),  # led by what the moved weights do to the gradient
    ]:
        rng = np.random.default_rng(5)
        problem = fedsim.random_quadratics(rng, batch=BATCH, devices=2, dim=DIM, spread=spread, tilt=0.0)
        problem = fedsim.Quadratics(problem.hessians, problem.centres, np.full((BATCH, 2), 0.5))
        run = fedsim.simulate(problem, adam, rng.normal(size=(BATCH, DIM)), rounds=5, num_kept=num_kept)
        for instance in range(BATCH):
            constants, dropped = MUTATIONS[name](run.constants(problem, instance), run.dropped[:, instance])
            bound = divergence_bound(constants, adam, rounds=5, sparsification=dropped)
            caught = max(caught, fraction(run.server_distance[:, instance], bound.server))
            caught = max(caught, fraction(run.device_distance[:, :, instance, 0], bound.device))
    assert caught > SLACK


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rounds": 0}, "rounds must be at least 1, got 0"),
        ({"sparsification": np.ones((3, 3))}, r"sparsification must hold non-negative numbers in shape \(3,\) or \(2, 3\), got shape \(3, 3\)"),
        ({"sparsification": np.array([1, -1, 0])}, "minimum -1"),
        ({"residual": -1.0}, r"residual must be a finite number that is not negative, got -1\.0"),
        ({"device_heterogeneity": -1.0}, r"device_heterogeneity must be a finite number that is not negative, got -1\.0"),
    ],
)  # fmt: skip
def test_divergence_bound_names_what_is_wrong(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        divergence_bound(
            ProblemConstants(3, 1.0, 1.0),
            AdamSetting(0.1),
            **({"rounds": 2, "sparsification": np.zeros(3)} | kwargs),
        )


def test_density_outside_its_range_is_refused():
    with pytest.raises(ConfigError, match=r"density must be in \(0, 1\], got 1\.5"):
        sparsification_bound(ProblemConstants(3, 1.0, 1.0), AdamSetting(0.1), 1.5)
