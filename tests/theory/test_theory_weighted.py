"""Theorem 9: instances that attain the data-dependent bound, and proof that they would catch a wrong one."""

from dataclasses import fields, replace

import fedsim
import numpy as np
import pytest
from test_theory_convergence import conflict
from test_theory_tight import LINEAR, bowl, line

from comask.errors import ConfigError
from comask.theory import AdamSetting, RoundMeasures, measure_round, weighted_convergence_bound


def case(problem, adam, *, rounds, num_kept, start):
    """Run, and return the measured gradient, the measures and what else the bound needs."""
    run = fedsim.simulate(problem, adam, start[None], rounds=rounds, num_kept=num_kept)
    values = problem.value(run.weights[[0, -1]].transpose(1, 0, 2))[0]
    known = {"smoothness": float(problem.smoothness[0]), "gap": max(0.0, float(values[0] - values[1]))}
    return run.measures_of(0, adam), adam, known


def descent():
    return case(line([1.0]), LINEAR, rounds=20, num_kept=1, start=np.zeros(1))


def equal_coordinates():
    return case(line(np.ones(8)), LINEAR, rounds=20, num_kept=2, start=np.zeros(8))


def overshoot():
    return case(bowl(1.0), AdamSetting(20.0, 0.0, 0.99, 100.0), rounds=50, num_kept=1, start=np.ones(1))


def conflicting():
    return case(conflict(100, 1, eps=100.0)[0], LINEAR, rounds=10, num_kept=1, start=np.zeros(100))


def biased():
    # The device's gradient is wrong by exactly what cancels the true one: nothing moves.
    one = measure_round([[0.0]], [[2.0]], [[True]], gradient=[0.5], shares=[1.0], adam=LINEAR)
    return [one], LINEAR, {"smoothness": 0.0, "gap": 0.0}


def held_back():
    # The kept position is right; the dropped one, where the gradient is, moves by half of what it should.
    measured = measure_round(
        [[-0.5 * LINEAR.lr, -0.5 * LINEAR.lr]],
        [[1.0, 1.0]],
        [[True, False]],
        gradient=[0.5, 1.0],
        shares=[1.0],
        adam=LINEAR,
    )
    return [measured], LINEAR, {"smoothness": 0.0, "gap": 0.25 * LINEAR.lr}


def ratio(measured, adam, known, **factors):
    """Return measured / bound with some measures scaled before the bound sees them."""
    scaled = [
        replace(one, **{name: factor * getattr(one, name) for name, factor in factors.items()})
        for one in measured
    ]
    actual = np.sqrt(np.mean([one.gradient for one in measured]))
    return actual / weighted_convergence_bound(scaled, adam, **known)


@pytest.mark.parametrize("instance", [descent, equal_coordinates, overshoot, conflicting, biased, held_back])
def test_instances_come_close_to_the_bound(instance):
    measured = ratio(*instance())
    fedsim.report(f"{instance.__name__}: measured / bound of (45)", round(measured, 4))
    assert 0.85 < measured <= 1 + 1e-9


@pytest.mark.parametrize(
    ("instance", "factors"),
    [
        (overshoot, {"moved": 0.5}),
        (biased, {"error": 0.5}),
        (conflicting, {"error_kept": 0.25}),
        (held_back, {"error": 0.5}),
        (equal_coordinates, {"energy_kept": 2.0}),
        (equal_coordinates, {"energy": 0.5}),
    ],
    ids=lambda value: value.__name__ if callable(value) else "-".join(value),
)
def test_a_measure_that_is_wrong_is_caught(instance, factors):
    assert ratio(*instance(), **factors) > 1 + 1e-6


def test_half_the_gap_is_caught():
    measured, adam, known = descent()
    assert ratio(measured, adam, known | {"gap": known["gap"] / 2}) > 1.2


def test_measures_by_hand():
    adam = AdamSetting(0.1, local_steps=2)  # so u = -5 dW
    one = measure_round(
        [[-0.2, 0.4], [0.0, -0.6]],
        [[2.0, 4.0], [1.0, 2.0]],
        [[True, False], [True, True]],
        gradient=[1.0, 0.5],
        shares=[0.25, 0.75],
        adam=adam,
    )
    # u = (1, -2), (0, 3); E = u / q - x = (-0.5, -1), (-1, 1)
    assert one.gradient == pytest.approx(0.25 * (2 + 1) + 0.75 * (1 + 0.5))
    assert one.error == pytest.approx(0.25 * (0.5 + 4) + 0.75 * (1 + 2))
    assert one.error_kept == pytest.approx(0.25 * 0.5 + 0.75 * (1 + 2))
    assert one.energy == pytest.approx(0.25 * (0.5 + 1) + 0.75 * 4.5)
    assert one.energy_kept == pytest.approx(0.25 * 0.5 + 0.75 * 4.5)
    assert one.moved == pytest.approx((0.25 * 0.2) ** 2 + (0.75 * 0.6) ** 2)


def test_masks_that_keep_nothing_bound_nothing():
    one = RoundMeasures(gradient=1.0, error=1.0, error_kept=0.0, energy=2.0, energy_kept=0.0, moved=0.0)
    assert weighted_convergence_bound([one], LINEAR, smoothness=1.0, gap=1.0) == np.inf


def test_positions_that_did_not_move_may_be_dropped_but_their_error_counts():
    zero = {field.name: 0.0 for field in fields(RoundMeasures)}
    one = RoundMeasures(**zero | {"gradient": 4.0, "error": 4.0})
    assert weighted_convergence_bound([one], LINEAR, smoothness=1.0, gap=0.0) == 2.0


def test_wrong_arguments_are_named():
    with pytest.raises(ConfigError, match="rounds must hold the measures of at least one round, got none"):
        weighted_convergence_bound([], LINEAR, smoothness=1.0, gap=1.0)
    one = RoundMeasures(1, 1, 1, 1, 1, 1)
    with pytest.raises(ConfigError, match=r"smoothness must be a finite number that is not negative, got -1"):
        weighted_convergence_bound([one], LINEAR, smoothness=-1, gap=1.0)
    with pytest.raises(
        ConfigError,
        match=r"gradient \(d,\) and shares \(N,\), got \(1, 2\), \(1, 2\), \(1, 2\), \(3,\) and \(1,\)",
    ):
        measure_round([[1, 2]], [[1, 2]], [[1, 1]], gradient=[1, 2, 3], shares=[1], adam=LINEAR)
