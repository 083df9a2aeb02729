"""Instances close to the convergence bounds, and proof that they would catch a wrong constant.

Each case runs an instance on which one term of a bound is nearly attained and returns what was measured; `CASES` are first
checked to stay under their bound by little, then every mutation must push some bound below what was measured.
"""

from dataclasses import dataclass, replace

import fedsim
import numpy as np
import pytest
from test_theory_convergence import conflict, rms_gradient

from comask.theory import (
    AdamSetting,
    MomentumError,
    ProblemConstants,
    Sparsity,
    convergence,
    convergence_bound_convex,
    convergence_bound_nonconvex,
    momentum,
    momentum_error,
    residual_bound,
)

LINEAR = AdamSetting(1e-3, 0.0, 0.99, 100.0)  # epsilon so large that the preconditioner is constant


@dataclass
class Inputs:
    constants: ProblemConstants
    adam: AdamSetting
    sparsity: Sparsity
    known: dict


def line(slopes, shares=(1.0,)):
    return fedsim.Linear(np.atleast_2d(slopes)[None].astype(float), np.array([shares]))


def bowl(curvature):
    return fedsim.Quadratics(np.full((1, 1, 1, 1), curvature), np.zeros((1, 1, 1)), np.ones((1, 1)))


def gradient_case(problem, adam, *, rounds, num_kept, start, floor=0.0, **options):
    """Run, and return the measured gradient and the inputs of its bound: the gap is that to the last model."""
    error_feedback = options.get("error_feedback", False)
    run = fedsim.simulate(
        problem, adam, np.full((1, len(start)), start), rounds=rounds, num_kept=num_kept, **options
    )
    constants = replace(run.constants(problem, 0, floor=False), second_moment_floor=floor)
    values = problem.value(run.virtual[[0, -1]].transpose(1, 0, 2))[0]
    sparsity = Sparsity(num_kept / len(start), error_feedback, stale=float(np.sqrt(np.mean(run.stale**2))))
    known = {"rounds": rounds, "gap": max(0.0, float(values[0] - values[1]))}
    return rms_gradient(problem, run)[0], Inputs(constants, adam, sparsity, known)


def nonconvex(inputs, **changes):
    return convergence_bound_nonconvex(
        inputs.constants, inputs.adam, inputs.sparsity, **inputs.known, **changes
    )


def descent():
    # Constant gradient: progress is exactly that of the descent lemma.
    measured, inputs = gradient_case(line([1.0]), LINEAR, rounds=20, num_kept=1, start=[0.0])
    return measured, nonconvex(inputs)


def descent_with_half_the_gap():
    measured, inputs = gradient_case(line([1.0]), LINEAR, rounds=20, num_kept=1, start=[0.0])
    inputs.known["gap"] /= 2
    return measured, nonconvex(inputs)


def equal_coordinates(captured=None):
    # All entries of one size: a top-k keeps exactly its share.
    measured, inputs = gradient_case(line(np.ones(8)), LINEAR, rounds=20, num_kept=2, start=np.zeros(8))
    return measured, nonconvex(replace(inputs, sparsity=replace(inputs.sparsity, captured=captured)))


def overshoot():
    # lr q = 2 / rho: every step leads to the mirror image, and the second-order term is all there is.
    adam = AdamSetting(2.0 * 10.0, 0.0, 0.99, 100.0)
    measured, inputs = gradient_case(bowl(1.0), adam, rounds=50, num_kept=1, start=[1.0])
    return measured, nonconvex(inputs)


def biased():
    # The device's gradient is wrong by exactly what cancels the true one: nothing moves.
    adam, slope = LINEAR, 0.5
    constants = ProblemConstants(1, 0.0, slope, heterogeneity=slope)
    return slope, convergence_bound_nonconvex(constants, adam, Sparsity(stale=0.0), rounds=10**9, gap=0.0)


def conflicting():
    problem, constants = conflict(100, 1, eps=100.0)
    run = fedsim.simulate(problem, LINEAR, np.zeros((1, 100)), rounds=10, num_kept=1)
    bound = convergence_bound_nonconvex(constants, LINEAR, Sparsity(0.01, stale=0.0), rounds=10, gap=0.0)
    return rms_gradient(problem, run)[0], bound


def disagreeing():
    # Two devices whose preconditioned gradients cancel although their gradients do not.
    one, two, eps = 1.0, 0.55, 1e-6
    share = two / np.sqrt(two**2 + eps) / (one / np.sqrt(one**2 + eps) + two / np.sqrt(two**2 + eps))
    problem = line([[one], [-two]], (share, 1 - share))
    adam = AdamSetting(1e-3, 0.0, 0.0, eps)
    measured, inputs = gradient_case(problem, adam, rounds=20, num_kept=1, start=[0.0], floor=two**2)
    return measured, nonconvex(inputs, exact_gradients=True)


def stale():
    # The broadcast momentum cancels the first gradient: one step goes nowhere.
    adam = AdamSetting(1e-3, 0.9, 0.99, 100.0)
    moments = (np.full((1, 1), -(1 - adam.beta1) / adam.beta1), np.zeros((1, 1)))
    measured, inputs = gradient_case(line([1.0]), adam, rounds=1, num_kept=1, start=[0.0], moments=moments)
    return measured, nonconvex(inputs)


def residual():
    # One entry of a hundred equal ones is held back.
    run = fedsim.simulate(
        line(np.ones(100)), LINEAR, np.zeros((1, 100)), rounds=1, num_kept=99, error_feedback=True
    )
    constants = run.constants(line(np.ones(100)), 0)
    return run.residual[0], residual_bound(constants, LINEAR, Sparsity(0.99, error_feedback=True))


def drift():
    # Two steps along a quadratic whose gradient changes as fast as rho allows.
    adam = AdamSetting(1e-3, 0.0, 0.99, 100.0, local_steps=2)
    run = fedsim.simulate(bowl(1.0), adam, np.ones((1, 1)), rounds=1, num_kept=1)
    error = momentum_error(run.constants(bowl(1.0), 0), adam, Sparsity(stale=float(run.stale.max())))
    return run.momentum_error[0, 0, 0], error.drift


def first_round(strong_convexity=1.0):
    adam = AdamSetting(0.4 * 10.0, 0.0, 0.99, 100.0)
    run = fedsim.simulate(bowl(1.0), adam, np.full((1, 1), 1e-2), rounds=1, num_kept=1)
    gaps = run.weights[:, 0, 0] ** 2 / 2
    known = {"rounds": 1, "gap": gaps[0], "strong_convexity": strong_convexity}
    return gaps[1], convergence_bound_convex(run.constants(bowl(1.0), 0), adam, Sparsity(stale=0.0), **known)[
        1
    ]


def flat(radius=10.0):
    # f(w) = w until the minimum, 10 away.
    run = fedsim.simulate(line([1.0]), LINEAR, np.zeros((1, 1)), rounds=50, num_kept=1)
    known = {"rounds": 50, "gap": 10.0, "radius": radius}
    constants = run.constants(line([1.0]), 0)
    return 10 + run.weights[-1, 0, 0], convergence_bound_convex(
        constants, LINEAR, Sparsity(stale=0.0), **known
    )[-1]


CASES = [
    descent, equal_coordinates, overshoot, biased, conflicting, disagreeing, stale, residual, drift, first_round, flat,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_case_stays_under_its_bound_and_close_to_it(case):
    measured, bound = case()
    fedsim.report(f"{case.__name__}: measured / bound", round(measured / bound, 4))
    assert 0.6 < measured / bound <= 1 + 1e-9


def scaled(module, name, factor, monkeypatch):
    original = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **kwargs: factor * original(*args, **kwargs))


def part_halved(part, monkeypatch):
    def mutated(*args):
        return replace(momentum_error(*args), **{part: getattr(momentum_error(*args), part) / 2})

    monkeypatch.setattr(convergence, "momentum_error", mutated)


def low_doubled(monkeypatch):
    original = convergence.preconditioner_range
    monkeypatch.setattr(
        convergence, "preconditioner_range", lambda *args: (2 * original(*args)[0], original(*args)[1])
    )


MUTATIONS = {
    "optimisation term halved": (descent_with_half_the_gap, lambda _: None),
    "least preconditioner doubled": (descent, low_doubled),
    "energy doubled": (lambda: equal_coordinates(captured=0.5), lambda _: None),
    "curvature term halved": (overshoot, lambda mp: scaled(convergence, "_curvature_cost", 0.5, mp)),
    "step bound halved": (overshoot, lambda mp: scaled(momentum, "step_bound", 0.5, mp)),
    "heterogeneity halved, dense": (biased, lambda mp: part_halved("heterogeneity", mp)),
    "heterogeneity halved, sparse": (conflicting, lambda mp: part_halved("heterogeneity", mp)),
    "disagreement halved": (disagreeing, lambda mp: scaled(convergence, "preconditioner_disagreement", 0.5, mp)),
    "stale momentum halved": (stale, lambda mp: part_halved("stale", mp)),
    "residual factor halved": (residual, lambda mp: scaled(momentum, "residual_factor", 0.5, mp)),
    "root mean square halved": (drift, lambda mp: scaled(momentum, "_rms", 0.5, mp)),
    "strong convexity doubled": (lambda: first_round(strong_convexity=2.0), lambda _: None),
    "curvature term of a gap halved": (first_round, lambda mp: scaled(convergence, "_curvature_cost", 0.5, mp)),
    "radius halved": (lambda: flat(radius=5.0), lambda _: None),
    "linear shrinkage squared": (first_round, lambda mp: mp.setattr(convergence, "_shrink_linear", lambda gap, rate: gap * (1 - rate) ** 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_wrong_constant_is_caught(name, monkeypatch):
    case, mutate = MUTATIONS[name]
    mutate(monkeypatch)
    measured, bound = case()
    assert measured > bound * (1 + 1e-9)


def test_the_parts_of_the_momentum_error_add_up():
    error = MomentumError(stale=1.0, stale_kept=0.5, heterogeneity=2.0, drift=4.0, residual=8.0)
    assert (error.total, error.kept) == (15.0, 14.5)
