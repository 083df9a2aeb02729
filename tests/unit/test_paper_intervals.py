import math

import numpy as np
import pytest

from comask.experiments.paper.intervals import t_cdf, t_interval, t_quantile

# Two-sided 95 % points of Student's t, from printed tables.
TABLE = {
    1: 12.7062,
    2: 4.30265,
    3: 3.18245,
    4: 2.77645,
    5: 2.57058,
    7: 2.36462,
    10: 2.22814,
    29: 2.04523,
    120: 1.97993,
}


@pytest.mark.parametrize(("degrees", "expected"), TABLE.items())
def test_quantiles_are_those_of_printed_tables(degrees, expected):
    assert t_quantile(0.975, degrees) == pytest.approx(expected, rel=3e-6)


@pytest.mark.parametrize("degrees", [1, 2, 3, 6, 9])
def test_the_distribution_is_the_integral_of_its_density(degrees):
    constant = math.gamma((degrees + 1) / 2) / math.sqrt(degrees * math.pi) / math.gamma(degrees / 2)
    t = np.linspace(0.0, 2.5, 200_001)
    density = constant * (1 + t**2 / degrees) ** (-(degrees + 1) / 2)
    area = float(np.sum((density[1:] + density[:-1]) / 2) * (t[1] - t[0]))
    assert t_cdf(2.5, degrees) == pytest.approx(0.5 + area, abs=1e-9)


def test_an_interval_worked_out_by_hand():
    # Mean 4, sample standard deviation 2, n = 3: 4.302653 * 2 / sqrt(3) = 4.968276.
    found = t_interval([2.0, 4.0, 6.0])
    assert (found.mean, found.low, found.high) == pytest.approx((4.0, -0.968276, 8.968276), abs=1e-5)


def test_one_value_says_nothing_about_spread():
    found = t_interval([3.0])
    assert (found.mean, found.low, found.high) == (3.0, -math.inf, math.inf)
    assert found.exp().low == 0.0
    assert found.exp().high == math.inf


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(5)
    trials = rng.normal(7.0, 2.0, (4000, 3))
    covered = [found.low <= 7.0 <= found.high for found in map(t_interval, trials)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)  # three and a half standard errors
