"""Student's t intervals over a handful of seeds, with the quantile computed and not looked up."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval.

    Attributes:
        mean: Of the values.
        low: Lower end; minus infinity with a single value, which says nothing about spread.
        high: Upper end, likewise.
    """

    mean: float
    low: float
    high: float

    def exp(self) -> Interval:
        """Return the interval of the geometric mean, if this one is of logarithms."""
        return Interval(
            *(math.inf if x == math.inf else math.exp(x) for x in (self.mean, self.low, self.high))
        )


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the mean of independent normal values with its two-sided interval, `mean ± t s / sqrt(n)`.

    Args:
        values: At least one.
        confidence: Probability of the interval, in (0, 1).
    """
    mean = float(np.mean(values))
    if len(values) == 1:
        return Interval(mean, -math.inf, math.inf)
    half = (
        t_quantile(0.5 + confidence / 2, len(values) - 1)
        * float(np.std(values, ddof=1))
        / math.sqrt(len(values))
    )
    return Interval(mean, mean - half, mean + half)


def t_quantile(probability: float, degrees: int) -> float:
    """Return the t for which Student's distribution gives `P(T <= t) = probability`, by bisection.

    Args:
        probability: In [0.5, 1).
        degrees: Degrees of freedom, at least 1.
    """
    low, high = 0.0, 1.0
    while t_cdf(high, degrees) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if t_cdf(middle, degrees) < probability else (low, middle)
    return (low + high) / 2


def t_cdf(t: float, degrees: int) -> float:
    """Return `P(T <= t)` for `t >= 0` and whole degrees of freedom.

    The finite sums of Abramowitz and Stegun, 26.7.3 and 26.7.4, in `theta = atan(t / sqrt(degrees))`.
    """
    theta = math.atan(t / math.sqrt(degrees))
    cosine, sine = math.cos(theta), math.sin(theta)
    if degrees % 2:
        term = total = cosine if degrees > 1 else 0.0
        for j in range(3, degrees - 1, 2):
            term *= (j - 1) / j * cosine**2
            total += term
        return 0.5 + (theta + sine * total) / math.pi
    term = total = 1.0
    for j in range(2, degrees - 1, 2):
        term *= (j - 1) / j * cosine**2
        total += term
    return 0.5 + sine * total / 2
