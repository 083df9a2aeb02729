"""The claims as lines for people and as data for programs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from comask.experiments.paper.claims import AHEAD, FASTER, Check, Finding
from comask.experiments.paper.markdown import number
from comask.experiments.paper.records import cells, progress
from comask.experiments.paper.sections import checks_of, estimate
from comask.experiments.paper.study import Paper, Study
from comask.experiments.paper.tuning import plan
from comask.experiments.table import MEGABYTE


def claim_lines(paper: Paper, study: Study) -> Iterator[str]:
    """Yield what to print about one comparison."""
    planned = plan(paper, study)
    counts = progress(planned, study, paper.runs)
    checks = checks_of(paper, cells(planned, paper.runs))
    yield f"{study.title} ({study.name}): {study.base.model} on {study.base.dataset}, {study.base.partition}"
    if counts.finished < counts.runs:
        yield f"  {counts.finished} of {counts.runs} runs are done; `comask paper run {study.name}` does the others."
    if not checks:
        yield "  No finished run of fedadam-ssm: nothing can be said."
    for check in checks:
        yield f"  {_headline(check)}: {check.verdict.upper()}"
        for place, finding in enumerate(check.findings):
            best = "best rival" if place == 0 else "          "
            seeds = "one seed" if finding.seeds == 1 else f"{finding.seeds} seeds"
            yield f"    {best}  {finding.rival:<26} {estimate(check, finding):<34} {seeds}, {finding.verdict}"
    yield ""


def claim_facts(paper: Paper, study: Study) -> dict[str, Any]:
    """Return the same as plain data; what is not known or not finite is null."""
    planned = plan(paper, study)
    counts = progress(planned, study, paper.runs)
    checks = checks_of(paper, cells(planned, paper.runs))
    return {
        "study": study.name,
        "dataset": study.base.dataset,
        "model": study.base.model,
        "partition": study.base.partition,
        "finished_runs": counts.finished,
        "runs": counts.runs,
        "checks": [
            {
                "claim": check.claim,
                "basis": check.basis,
                "at": _finite(check.at),
                "verdict": check.verdict,
                "rivals": [_facts(finding) for finding in check.findings],
            }
            for check in checks
        ],
    }


def _facts(finding: Finding) -> dict[str, Any]:
    found = finding.estimate
    return {
        "rival": finding.rival,
        "mean": None if found is None else _finite(found.mean),
        "low": None if found is None else _finite(found.low),
        "high": None if found is None else _finite(found.high),
        "bound": finding.bound,
        "seeds": finding.seeds,
        "verdict": finding.verdict,
    }


def _headline(check: Check) -> str:
    if check.claim == "faster":
        return (
            f"Over {FASTER} times as fast as other sparse FedAdam, in {check.basis} to {100 * check.at:.2f} %"
        )
    if math.isnan(check.at):
        return f"Over {AHEAD} points ahead of quantised FedAdam, at equal {check.basis}"
    where = (
        f"at round {check.at:.0f}"
        if check.basis == "rounds"
        else f"at {number(check.at / MEGABYTE)} MB of uplink"
    )
    return f"Over {AHEAD} points ahead of quantised FedAdam, {where}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
