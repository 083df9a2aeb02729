"""The two claims of arXiv 2405.17932, as checks on the records of a comparison.

Its abstract says of FedAdam-SSM that it is "over 1.1x faster" than the sparse FedAdam baselines and that its test accuracy is
"over 14.5 %" ahead of the quantised ones. Neither says at what accuracy, after how many rounds or at how many bytes, so both are asked
at equal rounds and at equal uplink bytes, and the first at several targets. Differences are taken seed by seed, since a seed is a
partition and an initial model that all variants share, and the interval is Student's over those differences.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from comask.experiments.paper.intervals import Interval, t_interval
from comask.experiments.paper.measures import (
    accuracy_at_uplink,
    first_uplink,
    rounds_to,
    total_uplink,
    uplink_to,
)
from comask.experiments.results import Group, Run

SUBJECT = "fedadam-ssm"
REFERENCE = "fedadam"
FASTER, AHEAD = 1.1, 14.5
TARGETS = (0.9, 0.95, 0.98)
"""Targets of the first claim, as shares of the mean final accuracy of dense FedAdam."""

Verdict = Literal["reproduced", "not reproduced", "undecided"]
Basis = Literal["rounds", "uplink"]
BASES: tuple[Basis, ...] = get_args(Basis)
Bound = Literal["", "at least", "at most", "neither"]
Claim = Literal["faster", "ahead"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What one comparison of two variants says about a claim.

    Attributes:
        rival: The other variant's label.
        estimate: Speed ratio (rival over subject; above 1 the subject is faster) or lead in points of a percent. None when no
            seed says anything.
        bound: `at least` or `at most` when the records give no more than a bound, else empty. `neither`: some seeds give one and some
            the other.
        seeds: How many seeds the estimate is from.
        verdict: `reproduced` if the whole interval is above what is claimed, `not reproduced` if it is below, else `undecided`.
    """

    rival: str
    estimate: Interval | None
    bound: Bound
    seeds: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Check:
    """One claim in one reading.

    Attributes:
        claim: `faster` or `ahead`.
        basis: Counted in rounds or in uplink bytes.
        at: Target accuracy of `faster`, in 0..1; round or mean bytes at which `ahead` compares with the best rival; NaN if there
            is none.
        findings: One for each rival about which anything is known, the best rival's first: that one is what the claim is about.
    """

    claim: Claim
    basis: Basis
    at: float
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """What the best rival says; without one, nothing is decided."""
        return self.findings[0].verdict if self.findings else "undecided"


def check_claims(groups: Sequence[Group], sparse: Sequence[str], quantised: Sequence[str]) -> list[Check]:
    """Check both claims in all readings.

    Args:
        groups: The finished runs of a comparison, by variant.
        sparse: Labels of the rivals of the first claim.
        quantised: Labels of the rivals of the second.

    Returns:
        Nothing while the subject has no finished run; nothing about the first claim while dense FedAdam, which sets the
        targets, has none.
    """
    by_label = {group.label: group for group in groups}
    subject = by_label.get(SUBJECT)
    if subject is None:
        return []
    checks: list[Check] = []
    if REFERENCE in by_label:
        final = by_label[REFERENCE].final_accuracy
        rivals = [by_label[label] for label in sparse if label in by_label]
        checks += [_faster(subject, rivals, share * final, basis) for basis in BASES for share in TARGETS]
    rivals = [by_label[label] for label in quantised if label in by_label]
    checks += [_ahead(subject, rivals, basis) for basis in BASES]
    return checks


def speed_ratio(subject: Group, rival: Group, target: float, basis: Basis) -> Finding:
    """Compare how soon two variants reach a target.

    A seed in which only one of them arrives counts with everything the other spent, which makes the estimate a bound; one in which
    neither does says nothing.
    """
    logs: list[float] = []
    bounds: set[Bound] = set()
    for mine, other in pairs(subject, rival):
        ours, theirs = _cost(mine, target, basis), _cost(other, target, basis)
        if ours is None and theirs is None:
            continue
        if theirs is None:
            bounds.add("at least")
        if ours is None:
            bounds.add("at most")
        spent_by_us = _spent(mine, basis) if ours is None else ours
        spent_by_them = _spent(other, basis) if theirs is None else theirs
        logs.append(math.log(spent_by_them / spent_by_us))
    if not logs:
        return Finding(rival.label, None, "", 0, "undecided")
    return _finding(rival.label, t_interval(logs).exp(), bounds, len(logs), FASTER)


def lead(subject: Group, rival: Group, basis: Basis) -> tuple[Finding, float]:
    """Compare the accuracy of two variants after the same number of rounds, or of uplink bytes.

    Equal rounds are all of them. Equal bytes are what the one that sent less has sent in the end. Where the other has sent more than
    that before it is evaluated for the first time, its first evaluation counts, and what it is better by is a bound: `at least` if
    the rival was given more bytes, `at most` if the subject was.

    Returns:
        The finding, and the mean number of rounds or bytes at which it compares; NaN where no seed says anything.
    """
    leads, places = [], []
    bounds: set[Bound] = set()
    for mine, other in pairs(subject, rival):
        if basis == "rounds":
            place = float(min(mine.evaluated[-1][0], other.evaluated[-1][0]))
            ours, theirs = (dict(run.evaluated).get(int(place)) for run in (mine, other))
        else:
            place = min(total_uplink(mine), total_uplink(other))
            ours, theirs = (accuracy_at_uplink(run, max(place, first_uplink(run))) for run in (mine, other))
            if first_uplink(other) > place:
                bounds.add("at least")
            if first_uplink(mine) > place:
                bounds.add("at most")
        if ours is not None and theirs is not None:
            leads.append(100 * (ours - theirs))
            places.append(place)
    if not leads:
        return Finding(rival.label, None, "", 0, "undecided"), math.nan
    estimate = t_interval(leads)
    return _finding(rival.label, estimate, bounds, len(leads), AHEAD), float(np.mean(places))


def pairs(subject: Group, rival: Group) -> Iterator[tuple[Run, Run]]:
    """Yield the runs of two variants that have the same seed."""
    others = {run.config.seed: run for run in rival.runs}
    for run in subject.runs:
        if run.config.seed in others:
            yield run, others[run.config.seed]


def _faster(subject: Group, rivals: Sequence[Group], target: float, basis: Basis) -> Check:
    findings = [speed_ratio(subject, rival, target, basis) for rival in rivals]
    return replace(_check("faster", basis, [(finding, target) for finding in findings]), at=target)


def _ahead(subject: Group, rivals: Sequence[Group], basis: Basis) -> Check:
    return _check("ahead", basis, [lead(subject, rival, basis) for rival in rivals])


def _check(claim: Claim, basis: Basis, found: Sequence[tuple[Finding, float]]) -> Check:
    """Put the findings in order. The best rival is the one over which the subject's advantage is least."""
    known = sorted(
        ((finding.estimate.mean, finding, at) for finding, at in found if finding.estimate is not None),
        key=lambda item: item[0],
    )
    findings = tuple(finding for _, finding, _ in known)
    return Check(claim, basis, known[0][2] if known else math.nan, findings)


def _finding(rival: str, estimate: Interval, bounds: set[Bound], seeds: int, claimed: float) -> Finding:
    """Judge an estimate. What is a bound from below cannot show that the truth falls short, and the other way round."""
    verdict: Verdict = "undecided"
    if estimate.low > claimed and "at most" not in bounds:
        verdict = "reproduced"
    elif estimate.high < claimed and "at least" not in bounds:
        verdict = "not reproduced"
    bound: Bound = "neither" if len(bounds) > 1 else next(iter(bounds), "")
    return Finding(rival, estimate, bound, seeds, verdict)


def _cost(run: Run, target: float, basis: Basis) -> float | None:
    return rounds_to(run, target) if basis == "rounds" else uplink_to(run, target)


def _spent(run: Run, basis: Basis) -> float:
    return float(run.evaluated[-1][0]) if basis == "rounds" else total_uplink(run)
