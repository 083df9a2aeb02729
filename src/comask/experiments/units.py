"""Sizes and rates as people write them: 11.2M, 100kB, 1Mbit/s. Read strictly, without rounding; written with three digits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from comask.experiments.settings import Rule

_POWERS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}

COUNT: Mapping[str, int] = MappingProxyType(_POWERS)
"""Units of numbers of parameters."""

BYTES: Mapping[str, int] = MappingProxyType(
    {f"{power}B": factor for power, factor in _POWERS.items()}
    | {f"{power}B": 1024**place for place, power in enumerate(("Ki", "Mi", "Gi"), start=1)}
)
"""Units of sizes, in bytes."""

RATE: Mapping[str, int] = MappingProxyType(
    {f"{power}bit/s": factor for power, factor in _POWERS.items()}
    | {f"{power}B/s": 8 * factor for power, factor in _POWERS.items()}
)
"""Units of rates, in bits a second."""

_AMOUNT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z/]*)")


def parse(text: str, units: Mapping[str, int]) -> Fraction | None:
    """Return the amount that a text such as `"1.5 MB"` stands for, exactly; None if it is none in these units."""
    match = _AMOUNT.fullmatch(text)
    if match is None or match[2] not in units:
        return None
    return Fraction(match[1]) * units[match[2]]


def amount_of(what: str, units: Mapping[str, int], *, whole: bool = False) -> Rule:
    """Return the rule of a flag whose text `parse` must understand, as an amount above 0.

    Args:
        what: What is allowed, with an example; the units are named after it.
        units: The units that are allowed.
        whole: Whether the amount must be an integer, in the smallest unit.
    """

    def test(text: str) -> bool:
        value = parse(text, units)
        return value is not None and value > 0 and not (whole and value.denominator > 1)

    return Rule(str, f"{what} (units: {', '.join(filter(None, units))})", test)


def show_bytes(count: float) -> str:
    """Return bytes in the unit that leaves one to three digits before the point."""
    return _show(count, "B")


def show_prefix(value: float) -> str:
    """Return a number likewise, without a unit: 1.5M."""
    return _show(value, "").replace(" ", "")


def show_seconds(seconds: float) -> str:
    """Return a time with three digits that count, in milliseconds or microseconds below a second."""
    if seconds >= 0.9995:
        return f"{_three_digits(seconds)} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 0.9995e-3 else f"{1e6 * seconds:.3g} µs"


def _show(value: float, unit: str) -> str:
    # 999.5 is where three digits would round up to the next unit.
    power = next((name for name in ("G", "M", "k") if value >= 0.9995 * _POWERS[name]), "")
    return f"{_three_digits(value / _POWERS[power])} {power}{unit}"


def _three_digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 99.95 else f"{value:.3g}"
