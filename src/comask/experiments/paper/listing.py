"""The state of each part of the study, as data and as lines for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from comask.experiments.paper.records import Progress, progress
from comask.experiments.paper.running import obstacle
from comask.experiments.paper.study import Paper, Study
from comask.experiments.paper.tuning import plan


def states(paper: Paper, studies: Sequence[Study]) -> Sequence[Mapping[str, Any]]:
    """Return one row a part: its name, title, state in words, and the counts of `Progress`."""
    rows = []
    for study in studies:
        found = progress(plan(paper, study), study, paper.runs)
        rows.append(
            {"name": study.name, "title": study.title, "state": _state(study, found), **asdict(found)}
        )
    return rows


def _state(study: Study, found: Progress) -> str:
    if found.complete:
        return "finished"
    if reason := obstacle(study):
        return f"cannot run here: {reason}"
    if found.waiting == found.runs:
        return "waits for learning rates"
    return "not begun" if found.rounds_done == 0 else "begun"
