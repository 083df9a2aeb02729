"""Small pieces of Markdown: tables, and numbers with their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from comask.experiments.paper.intervals import Interval

MISSING = "—"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers, aligned to the right."""
    lines = [headings, ("---", *["---:"] * (len(headings) - 1)), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def mean_and_spread(values: Sequence[float], unit: str = "") -> str:
    """Return the mean, with the sample standard deviation where there is more than one value."""
    spread = f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else ""
    return f"{np.mean(values):.2f}{spread}{unit}"


def mean_of_reached(values: Sequence[float | None], digits: int = 3) -> str:
    """Return the mean of what is known, and how much of it that is where some are missing."""
    known = [value for value in values if value is not None]
    if not known:
        return MISSING
    some = f" ({len(known)} of {len(values)})" if len(known) < len(values) else ""
    return f"{number(float(np.mean(known)), digits)}{some}"


def number(value: float, digits: int = 3) -> str:
    """Return a number with some digits that count, without an exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:,.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def signed(interval: Interval) -> str:
    """Return a difference with its interval: +0.9 [-0.2, +2.0]; without one if there is a single seed."""
    if not math.isfinite(interval.low):
        return f"{interval.mean:+.2f}"
    return f"{interval.mean:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def ratio(interval: Interval) -> str:
    """Return a ratio with its interval: 1.12 [0.98, 1.28]; without one if there is a single seed."""
    if not math.isfinite(interval.high):
        return f"{interval.mean:.2f}"
    return f"{interval.mean:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
