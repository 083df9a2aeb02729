"""Running the study: in one order, skipping what is done, continuing what was cut short.

Records are kept; checkpoints are large and are removed when a run is done. An unfinished run whose checkpoint is not there, because its
records came from another machine, starts over.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from comask.errors import DataNotFoundError
from comask.experiments.config import RunConfig
from comask.experiments.folder import RunFolder
from comask.experiments.paper.changes import collect, forget, probing
from comask.experiments.paper.expansion import Planned
from comask.experiments.paper.records import is_done
from comask.experiments.paper.study import Paper, Study
from comask.experiments.paper.tuning import plan
from comask.experiments.resuming import require_same
from comask.experiments.runner import Observer, resume, start

Watching = Callable[[str], AbstractContextManager[Observer]]
"""From what is about to run, in words, to who watches it."""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Why a part of the study was left out."""

    study: str
    reason: str


def obstacle(study: Study) -> str:
    """Return why a part cannot run on this machine; empty if it can."""
    if study.base.device == "cuda":
        import torch  # noqa: PLC0415

        if not torch.cuda.is_available():
            return "it asks for a CUDA device and there is none"
    return ""


def run_studies(
    paper: Paper,
    studies: Sequence[Study],
    *,
    command: Sequence[str],
    watching: Watching,
    finished: Callable[[Planned, RunFolder], None],
) -> list[Skipped]:
    """Do every run of some parts that is not done yet.

    Args:
        paper: The study.
        studies: Which parts.
        command: The command line, for the summaries.
        watching: Opened around each run.
        finished: Told after each run that was not done before.

    Returns:
        The parts that this machine cannot run, for want of a device or of data.

    Raises:
        ComaskError: Whatever the data, the algorithm or the simulation refuses.
    """
    skipped = {study.name: reason for study in studies if (reason := obstacle(study))}
    wanted = {study.name for study in studies}
    for name, core_only in paper.order:
        if name not in wanted - set(skipped):
            continue
        try:
            # what tuning found may ask for more of it, at most every rate
            for _ in range(_passes(paper.studies[name])):
                for planned in plan(paper, paper.studies[name]):
                    if core_only and not planned.variant.core:
                        continue
                    if planned.config is not None and not is_done(planned, paper.runs):
                        folder = _do(planned, planned.config, paper.runs, command, watching)
                        finished(planned, folder)
        except DataNotFoundError as error:  # the other parts can do without these data
            skipped[name] = str(error).split(". ")[0]
    return [Skipped(name, reason) for name, reason in skipped.items()]


def _passes(study: Study) -> int:
    return max(len(variant.rates) for variant in study.variants) if study.kind == "tuning" else 1


def _do(
    planned: Planned, config: RunConfig, runs: Path, command: Sequence[str], watching: Watching
) -> RunFolder:
    folder = RunFolder(runs / str(planned.path))
    continued = folder.config.exists() and folder.checkpoint.exists()
    if not continued:
        folder.path.mkdir(parents=True, exist_ok=True)
        forget(folder)
    adapt = probing(folder, config.density) if planned.variant.probe and config.density else None
    how = {} if adapt is None else {"adapt": adapt}
    with watching(f"{planned.study}: {planned.label}") as observer:
        if continued:
            recorded = RunConfig.load(folder.config, {})
            require_same(recorded, config, folder)
            longer = replace(recorded, rounds=config.rounds)
            resume(longer, folder, command=command, observer=observer, **how)
        else:
            overwrite = folder.config.exists()
            start(config, folder, overwrite=overwrite, command=command, observer=observer, **how)
    if adapt is not None:
        collect(folder)
    shutil.rmtree(folder.checkpoint, ignore_errors=True)
    return folder
