"""Which learning rate each variant runs with: read from the records of the part that tunes, never copied by hand.

The search begins with the `FIRST` rates in the middle of a variant's grid and goes outwards, a rate at a time, while the best of those that
were tried is at their end: so the best lies between two that are worse, or at the end of the whole grid.

The score of a rate is the mean test accuracy over the last `WINDOW` evaluations and over the tuning seeds: under a skewed
partition accuracy swings from round to round, and one evaluation would choose by luck. Scores within `TIE` of the best count as
equal to it, and of equals the rate nearest to the grid's middle is used. The seeds are none of those that are compared
(another partition, another initial model); the test set is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from comask.experiments.paper.expansion import Planned, Rates, expand
from comask.experiments.paper.records import finished_run
from comask.experiments.paper.study import Paper, Study, Variant
from comask.experiments.results import Run

WINDOW = 3
FIRST = 3
TIE = 0.005


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found for one variant.

    Attributes:
        variant: Its label.
        wanted: The rates that the search has reached, ascending: those to try now, and those that were tried.
        scores: Score by learning rate, of those of them that are done.
        rate: The one to use; None until the search has ended.
        at_edge: Whether that is the lowest or the highest of the whole grid: a better one may lie outside.
    """

    variant: str
    wanted: tuple[float, ...]
    scores: Mapping[float, float]
    rate: float | None
    at_edge: bool


def score(runs: Sequence[Run]) -> float:
    """Return the mean test accuracy over the last evaluations of runs that differ by their seed."""
    return float(np.mean([np.mean([accuracy for _, accuracy in run.evaluated[-WINDOW:]]) for run in runs]))


def choose(variant: str, grid: Sequence[float], known: Mapping[float, float]) -> Tuned:
    """Search one variant's grid as far as the scores allow.

    Args:
        variant: Its label.
        grid: Its learning rates, ascending, at least one.
        known: Score by learning rate; those that the search does not reach are left out of account.
    """
    low = max((len(grid) - FIRST) // 2, 0)
    high = min(low + FIRST, len(grid)) - 1
    while True:
        wanted = tuple(grid[low : high + 1])
        scores = {rate: known[rate] for rate in wanted if rate in known}
        if len(scores) < len(wanted):
            return Tuned(variant, wanted, scores, None, at_edge=False)
        best = _best(grid, scores)
        if best == low > 0:
            low -= 1
        elif best == high < len(grid) - 1:
            high += 1
        else:
            at_edge = len(grid) > 1 and best in (0, len(grid) - 1)
            return Tuned(variant, wanted, scores, grid[best], at_edge)


def _best(grid: Sequence[float], scores: Mapping[float, float]) -> int:
    """Return the place in the grid of the rate to use: of those that tie with the best the one nearest to the middle, then the lower."""
    least = max(scores.values()) - TIE
    tied = [place for place, rate in enumerate(grid) if scores.get(rate, -1.0) >= least]
    return min(tied, key=lambda place: abs(2 * place - (len(grid) - 1)))


def tune(study: Study, runs: Path) -> dict[str, Tuned]:
    """Return what a part's records say, for each of its variants by label."""
    planned = sorted(expand(study, _none), key=lambda run: (run.variant.label, float(run.point["lr"])))
    found: dict[str, dict[float, float]] = {variant.label: {} for variant in study.variants}
    for (label, rate), same in groupby(planned, key=lambda run: (run.variant.label, float(run.point["lr"]))):
        done = [finished_run(run, runs) for run in same]
        if None not in done:
            found[label][rate] = score([run for run in done if run is not None])
    return {
        variant.label: choose(variant.label, variant.rates, found[variant.label])
        for variant in study.variants
    }


def rates(paper: Paper, study: Study) -> Rates:
    """Return how to look up the learning rates of a part, as far as they are known now."""
    if not study.tuning:
        return _none
    tuned = tune(paper.studies[study.tuning], paper.runs)

    def rate(variant: Variant) -> float | None:
        return tuned[variant.label].rate if variant.label in tuned else None

    return rate


def plan(paper: Paper, study: Study) -> list[Planned]:
    """List a part's runs, with the learning rates that are known now; of one that tunes, those that its search has reached."""
    planned = expand(study, rates(paper, study))
    if study.kind != "tuning":
        return planned
    tuned = tune(study, paper.runs)
    return [run for run in planned if run.point["lr"] in tuned[run.variant.label].wanted]


def _none(_: Variant) -> None:
    return None
