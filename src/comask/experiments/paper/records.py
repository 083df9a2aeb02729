"""The records of planned runs: how far each is, and its rounds once they are all done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from comask.experiments.folder import RunFolder, read_rounds
from comask.experiments.paper.changes import has_changes
from comask.experiments.paper.expansion import Planned
from comask.experiments.paper.study import Study, Variant
from comask.experiments.results import Group, Run, read_run
from comask.experiments.resuming import require_same
from comask.experiments.settings import Scalar


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a part is.

    Attributes:
        runs: How many it asks for.
        finished: How many of those are done.
        rounds: How many rounds it asks for, those of runs that wait for a learning rate included.
        rounds_done: How many of those are recorded.
        waiting: Runs whose learning rate is not chosen yet.
    """

    runs: int
    finished: int
    rounds: int
    rounds_done: int
    waiting: int

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.finished == self.runs


@dataclass(frozen=True, slots=True, eq=False)
class Cell:
    """The finished runs of one variant at one point of the grid.

    Attributes:
        variant: The variant.
        point: The grid's settings and their values; empty where nothing is varied.
        group: Its runs, in the order of their seeds.
    """

    variant: Variant
    point: Mapping[str, Scalar]
    group: Group


def rounds_done(planned: Planned, runs: Path) -> int:
    """Return how many of a run's rounds are recorded, at most those that are asked for; more may be on disk for another part."""
    if planned.config is None or planned.path is None:
        return 0
    return min(planned.config.rounds, len(read_rounds(RunFolder(runs / planned.path).rounds)))


def is_done(planned: Planned, runs: Path) -> bool:
    """Tell whether all rounds that a part asks for are recorded, and measured where the variant is to be."""
    if planned.config is None or rounds_done(planned, runs) < planned.config.rounds:
        return False
    return not _is_probed(planned) or has_changes(runs / str(planned.path))


def _is_probed(planned: Planned) -> bool:
    return planned.variant.probe and planned.config is not None and planned.config.density is not None


def finished_run(planned: Planned, runs: Path) -> Run | None:
    """Return the rounds that a part asks for, or None before all of them are done.

    Raises:
        ConfigError: If the folder holds a run with other settings than its name says.
        CheckpointError: If its records are damaged.
    """
    if planned.config is None or planned.path is None or not is_done(planned, runs):
        return None
    folder = RunFolder(runs / planned.path)
    run = read_run(folder.path)
    require_same(
        replace(run.config, rounds=len(run.records)), replace(planned.config, rounds=len(run.records)), folder
    )
    records = run.records[: planned.config.rounds]
    return replace(run, config=replace(run.config, rounds=planned.config.rounds), records=records)


def progress(planned: Sequence[Planned], study: Study, runs: Path) -> Progress:
    """Count what is there."""
    done = [rounds_done(run, runs) for run in planned]
    return Progress(
        runs=len(planned),
        finished=sum(is_done(run, runs) for run in planned),
        rounds=len(planned) * study.base.rounds,
        rounds_done=sum(done),
        waiting=sum(run.config is None for run in planned),
    )


def cells(planned: Sequence[Planned], runs: Path) -> list[Cell]:
    """Return what is finished, variant by variant and point by point, in the order of the plan."""
    found: dict[str, tuple[Planned, list[Run]]] = {}
    for run in planned:
        done = finished_run(run, runs)
        if done is not None:
            found.setdefault(run.label, (run, []))[1].append(done)
    return [
        Cell(first.variant, first.point, Group(label, tuple(same))) for label, (first, same) in found.items()
    ]
