"""The report of the study: figures, and one Markdown file that can also be put between the marks of another file.

It is made from whatever is finished; what is not is named.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from comask.algorithms import ALGORITHMS
from comask.errors import ConfigError
from comask.experiments import figures as shared
from comask.experiments.folder import write_atomic
from comask.experiments.paper import figures
from comask.experiments.paper.changes import has_changes, read_changes
from comask.experiments.paper.claims import REFERENCE, SUBJECT
from comask.experiments.paper.listing import states
from comask.experiments.paper.markdown import table
from comask.experiments.paper.provenance import provenance
from comask.experiments.paper.records import Cell, cells, progress
from comask.experiments.paper.sections import (
    changes_section,
    checks_of,
    claims_section,
    comparison_section,
    effect_section,
    target_of,
    tuning_section,
)
from comask.experiments.paper.study import Paper, Study
from comask.experiments.paper.tuning import plan, tune
from comask.experiments.results import Group, Target

REPORT = "report.md"
BEGIN, END = "<!-- study: made by `comask paper report` -->", "<!-- end of study -->"


@dataclass(frozen=True, slots=True)
class Picture:
    """A figure and where it goes.

    Attributes:
        name: File name without ending.
        alt: What it shows, for those who cannot see it.
        figure: The figure.
    """

    name: str
    alt: str
    figure: Figure


def write_report(paper: Paper, out: Path) -> Path:
    """Write the figures and `report.md`; return the latter's path.

    Raises:
        CheckpointError: If records are damaged.
        ConfigError: If a run's folder holds another run than its name says.
    """
    out.mkdir(parents=True, exist_ok=True)
    text = "\n".join(_sections(paper, out, ""))
    write_atomic(out / REPORT, text)
    return out / REPORT


def insert_report(paper: Paper, out: Path, file: Path) -> None:
    """Write the figures, and the report between the two marks of a file, its links relative to that file.

    Raises:
        ConfigError: If the file does not hold both marks, in order.
    """
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ConfigError(f"{file} must hold the lines {BEGIN!r} and {END!r}, in that order.")
    out.mkdir(parents=True, exist_ok=True)
    links = f"{Path(os.path.relpath(out.resolve(), file.resolve().parent)).as_posix()}/"
    body = "\n".join(_sections(paper, out, links))
    write_atomic(file, f"{before}{BEGIN}\n\n{body}\n{END}{after}")


def _sections(paper: Paper, out: Path, links: str) -> Iterator[str]:
    """Yield a section for each part of which anything is finished, and a list of what is still to run."""
    found = {study.name: cells(plan(paper, study), paper.runs) for study in paper.studies.values()}
    for study in paper.studies.values():
        if not found[study.name]:
            continue
        yield f"### {study.title}\n"
        yield f"`{study.name}.toml`: {_task(study)}. {study.note}".rstrip() + "\n"
        yield provenance([run for cell in found[study.name] for run in cell.group.runs]) + "\n"
        counts = progress(plan(paper, study), study, paper.runs)
        if not counts.complete:
            yield f"**{counts.finished} of {counts.runs} runs are done**; `comask paper run {study.name}` does the others.\n"
        body, pictures = _body(paper, study, found)
        for picture in pictures:
            shared.save(picture.figure, out, picture.name)
            yield f"![{picture.alt}]({links}{picture.name}.png)\n"
        yield body
    yield from _still_to_run(paper)


def _still_to_run(paper: Paper) -> Iterator[str]:
    rows = [row for row in states(paper, list(paper.studies.values())) if row["state"] != "finished"]
    if rows:
        yield "### Still to run\n"
        yield table(
            ("Part", "Runs done", "of", "State", "What it is"),
            [
                (row["name"], str(row["finished"]), str(row["runs"]), row["state"], row["title"])
                for row in rows
            ],
        )


def _body(paper: Paper, study: Study, found: dict[str, list[Cell]]) -> tuple[str, list[Picture]]:
    mine = found[study.name]
    if study.kind == "tuning":
        return tuning_section(study, tune(study, paper.runs)), []
    if study.kind == "effect":
        return _effect(study, mine, _effect_target(paper, study, found))
    claims = claims_section("The paper's claims on these runs:", checks_of(paper, mine))
    changed = list(_changes(study, mine))
    body = "\n".join(
        [comparison_section([cell.group for cell in mine]), claims, *(text for text, _ in changed)]
    )
    return body, [*_courses(study, mine), *(picture for _, picture in changed)]


def _effect(study: Study, mine: Sequence[Cell], target: Target) -> tuple[str, list[Picture]]:
    (setting,) = study.grid
    if len({cell.point[setting] for cell in mine}) == 1:  # shared with another part: nothing varies yet
        return effect_section(study, mine, target), []
    labels = list(dict.fromkeys(cell.variant.label for cell in mine))
    by_label = {label: [cell for cell in mine if cell.variant.label == label] for label in labels}
    firsts = [by_label[label][0].group for label in labels]
    looks = dict(zip(labels, shared.styles(firsts, tuple(ALGORITHMS)), strict=True))
    figure = figures.effect(setting, by_label, looks, target, study.base.rounds)
    alt = f"Accuracy and rounds to target against {setting.replace('_', ' ')}"
    courses = figures.effect_courses(setting, by_label)
    pictures = [
        Picture(study.name, alt, figure),
        Picture(f"{study.name}-by-round", f"Accuracy against rounds by {setting.replace('_', ' ')}", courses),
    ]
    return effect_section(study, mine, target), pictures


def _effect_target(paper: Paper, study: Study, found: dict[str, list[Cell]]) -> Target:
    """Return 0.9 of what dense FedAdam reaches in a comparison on the same task: these runs are shorter than that one's."""
    for other in paper.studies.values():
        same = (other.base.dataset, other.base.model, other.base.partition) == (
            study.base.dataset,
            study.base.model,
            study.base.partition,
        )
        reference = [cell.group for cell in found[other.name] if cell.variant.label == REFERENCE]
        if other.kind == "comparison" and same and reference:
            share = 0.9
            return Target(
                share * reference[0].final_accuracy,
                f"{share} of the mean final accuracy of {REFERENCE} in `{other.name}`",
            )
    return target_of([cell.group for cell in found[study.name]])


def _courses(study: Study, mine: Sequence[Cell]) -> Iterator[Picture]:
    """Yield accuracy by uplink and by round: of the core variants, then of the others beside the two that all are measured by."""
    core = [cell.group for cell in mine if cell.variant.core]
    rest = [cell.group for cell in mine if not cell.variant.core]
    both = [cell.group for cell in mine if cell.variant.label in (REFERENCE, SUBJECT)]
    target = target_of([cell.group for cell in mine])
    for groups, ending, words in (
        (core, "", "core variants"),
        (both + rest if rest else [], "-others", "the others"),
    ):
        if groups:
            yield from _two(study, groups, target, ending, words)


def _two(study: Study, groups: Sequence[Group], target: Target, ending: str, words: str) -> Iterator[Picture]:
    looks = shared.styles(groups, tuple(ALGORITHMS))
    by_uplink = shared.accuracy_by_uplink(groups, looks, target)
    yield Picture(
        f"{study.name}-by-uplink{ending}", f"{study.title}: accuracy against uplink, {words}", by_uplink
    )
    by_round = shared.accuracy_by_round(groups, looks, target)
    yield Picture(
        f"{study.name}-by-round{ending}", f"{study.title}: accuracy against rounds, {words}", by_round
    )


def _changes(study: Study, mine: Sequence[Cell]) -> Iterator[tuple[str, Picture]]:
    """Yield the table and the figure of each variant whose changes were measured."""
    for cell in mine:
        probed = [run for run in cell.group.runs if has_changes(run.folder)]
        density = probed[0].config.density if probed else None
        if density is not None:
            label = cell.group.label
            measured = [read_changes(run.folder)[: run.config.rounds] for run in probed]
            alt = f"{study.title}: size of dW, dM, dV and overlap of their rankings, {label}"
            figure = figures.changes(measured, density)
            picture = Picture(f"{study.name}-changes-{_plain(label)}", alt, figure)
            yield changes_section(label, measured, density), picture


def _plain(label: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in label).split())


def _task(study: Study) -> str:
    base = study.base
    seeds = "one seed" if study.seeds == 1 else f"{study.seeds} seeds"
    steps, density = _setting(study, "local_steps"), _setting(study, "density")
    return (
        f"{base.model} on {base.dataset}, {base.partition}, {base.clients} clients, {base.rounds} rounds of {steps} local steps on "
        f"batches of {base.batch_size}, density {density}, {seeds}"
    )


def _setting(study: Study, name: str) -> str:
    """Return a setting's value, or the ends of those that the part tries."""
    values = study.grid.get(name, (getattr(study.base, name),))
    if values == (None,):
        return "as published"
    return " to ".join(f"{value:g}" for value in dict.fromkeys((min(values), max(values))))
