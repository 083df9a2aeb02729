"""From a part of the study to its runs: every variant, at every point of the grid, with every seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from comask.experiments.config import RunConfig
from comask.experiments.paper.places import run_path
from comask.experiments.paper.study import Study, Variant
from comask.experiments.resolve import with_algorithm_options
from comask.experiments.settings import Scalar

Rates = Callable[[Variant], float | None]
"""The learning rate that tuning chose for a variant; None while that is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """One run that a part asks for.

    Attributes:
        study: The part's name.
        variant: What runs.
        point: The grid's settings and their values.
        seed: Its seed.
        config: Everything, as the run's folder will record it; None while its learning rate is not chosen yet.
    """

    study: str
    variant: Variant
    point: Mapping[str, Scalar]
    seed: int
    config: RunConfig | None

    @property
    def path(self) -> Path | None:
        """Where its records are, relative to the folder of all runs."""
        return None if self.config is None else run_path(self.config)

    @property
    def label(self) -> str:
        """The variant, and where in the grid it is."""
        at = ", ".join(f"{name} {value:g}" for name, value in self.point.items())
        return f"{self.variant.label} ({at})" if at else self.variant.label


def points(study: Study, variant: Variant) -> Iterator[dict[str, Scalar]]:
    """Yield every combination of the grid's values; a part that tunes varies the variant's learning rate."""
    grid: Mapping[str, tuple[Scalar, ...]] = {"lr": variant.rates} if study.kind == "tuning" else study.grid
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def expand(study: Study, rates: Rates) -> list[Planned]:
    """List a part's runs: seed by seed, so that a study that was cut short has the same seeds of everything.

    Args:
        study: The part.
        rates: Asked where the part refers to tuning and the grid does not set the learning rate.

    Raises:
        UnknownNameError: If an option is none of the algorithm's.
        ConfigError: If a value is not allowed.
    """
    first = study.base.seed
    return [
        Planned(study.name, variant, point, seed, _config(study, variant, point, seed, rates))
        for seed in range(first, first + study.seeds)
        for variant in study.variants
        for point in points(study, variant)
    ]


def _config(
    study: Study, variant: Variant, point: Mapping[str, Scalar], seed: int, rates: Rates
) -> RunConfig | None:
    from comask.algorithms import algorithm_options  # noqa: PLC0415

    own = {} if variant.density is None else {"density": variant.density}
    given: dict[str, Any] = {"algorithm": variant.algorithm, "seed": seed, **own, **point}
    if study.tuning and "lr" not in point:
        given["lr"] = rates(variant)
        if given["lr"] is None:
            return None
    config = replace(study.base, options={**study.base.options, **variant.options}, **given)
    if "density" not in algorithm_options(variant.algorithm):
        config = replace(config, density=None)  # it is given to those that have one
    return with_algorithm_options(config)
