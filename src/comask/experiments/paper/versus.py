"""FedAdam-SSM against each other variant: the lead at equal rounds and at equal uplink bytes, in words and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from comask.experiments.paper.claims import SUBJECT, Basis, Finding, lead, pairs
from comask.experiments.results import Group

Outcome = Literal["wins", "loses", "not told apart", "one seed"]


@dataclass(frozen=True, slots=True)
class Versus:
    """One rival.

    Attributes:
        rival: Its label.
        rounds: The lead at equal rounds, in points of a percent.
        uplink: The lead at equal uplink bytes.
        budget: The mean of those bytes; NaN where no seed says anything.
        seeds: How many seeds both have.
    """

    rival: str
    rounds: Finding
    uplink: Finding
    budget: float
    seeds: int


def against_all(groups: Sequence[Group]) -> list[Versus]:
    """Compare the subject with every other group; nothing while it has no finished run."""
    subject = next((group for group in groups if group.label == SUBJECT), None)
    if subject is None:
        return []
    found = []
    for rival in groups:
        seeds = len(list(pairs(subject, rival)))
        if rival is not subject and seeds:
            uplink, budget = lead(subject, rival, "uplink")
            found.append(Versus(rival.label, lead(subject, rival, "rounds")[0], uplink, budget, seeds))
    return found


def outcome(finding: Finding) -> Outcome:
    """Return what the interval says: the subject wins if all of it is above zero, loses if all is below.

    One seed has no interval and says nothing.
    """
    if finding.seeds == 1:
        return "one seed"
    if finding.estimate is not None and finding.estimate.low > 0 and finding.bound in ("", "at least"):
        return "wins"
    if finding.estimate is not None and finding.estimate.high < 0 and finding.bound in ("", "at most"):
        return "loses"
    return "not told apart"


def sentences(found: Sequence[Versus], basis: Basis) -> list[str]:
    """Return where the subject wins, loses and neither, one sentence each, naming every rival that can be compared."""
    names: dict[Outcome, list[str]] = {"wins": [], "not told apart": [], "loses": [], "one seed": []}
    for versus in found:
        finding = versus.rounds if basis == "rounds" else versus.uplink
        if finding.estimate is not None:
            names[outcome(finding)].append(versus.rival)
    where = "equal rounds" if basis == "rounds" else "equal uplink bytes"
    starts: dict[Outcome, str] = {
        "wins": f"At {where}, {SUBJECT} wins against",
        "not told apart": f"At {where}, the seeds do not tell {SUBJECT} apart from",
        "loses": f"At {where}, {SUBJECT} loses to",
        "one seed": f"At {where}, one seed is too little to tell {SUBJECT} from",
    }
    return [f"{starts[kind]} {_listed(rivals)}." for kind, rivals in names.items() if rivals]


def _listed(names: Sequence[str]) -> str:
    quoted = [f"`{name}`" for name in names]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
