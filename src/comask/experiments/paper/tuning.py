"""Which learning rate each variant runs with: read from the records of the part that tunes, never copied by hand.

The score of a rate is the mean test accuracy over the last `WINDOW` evaluations and over the tuning seeds: under a skewed
partition accuracy swings from round to round, and one evaluation would choose by luck. The seeds are none of those that are compared
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


@dataclass(frozen=True, slots=True)
class Tuned:
    """What tuning found for one variant.

    Attributes:
        variant: Its label.
        scores: Score by learning rate, of those that are done.
        rate: The best; None until all are done.
        at_edge: Whether the best is the lowest or the highest that was tried: a better one may lie outside.
    """

    variant: str
    scores: Mapping[float, float]
    rate: float | None
    at_edge: bool


def score(runs: Sequence[Run]) -> float:
    """Return the mean test accuracy over the last evaluations of runs that differ by their seed."""
    return float(np.mean([np.mean([accuracy for _, accuracy in run.evaluated[-WINDOW:]]) for run in runs]))


def choose(variant: str, tried: Sequence[float], scores: Mapping[float, float]) -> Tuned:
    """Choose the rate with the best score, the lower one of two that are equal.

    Args:
        variant: Its label.
        tried: All rates of the grid.
        scores: Those that are known.
    """
    rate = None if set(tried) - set(scores) else max(sorted(scores), key=lambda rate: scores[rate])
    return Tuned(
        variant, scores, rate, rate is not None and len(tried) > 1 and rate in (min(tried), max(tried))
    )


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
    """List a part's runs, with the learning rates that are known now."""
    return expand(study, rates(paper, study))


def _none(_: Variant) -> None:
    return None
