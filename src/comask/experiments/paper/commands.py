"""The commands of the study: `comask paper list`, `run`, `report` and `claims`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comask.experiments.exits import INTERRUPTED

if TYPE_CHECKING:
    from comask.experiments.paper.study import Paper

paper_app = typer.Typer(
    no_args_is_help=True, help="The study: rerun it, report it, check the paper's claims."
)

Folder = Annotated[
    Path,
    typer.Option(
        "--study", metavar="DIR", help="Folder of the study's files; records are in runs/ below it."
    ),
]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Parts; all if none is named.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")
]
Smoke = Annotated[
    Path | None,
    typer.Option(
        "--smoke", metavar="DIR", help="A tiny version of it in less than a minute, everything in DIR."
    ),
]
DEFAULT_FOLDER = Path("experiments/paper")


@paper_app.command()
def run(
    names: Names = None, *, context: typer.Context, study: Folder = DEFAULT_FOLDER, smoke: Smoke = None
) -> None:
    """Do every run that is not done, in the study's order."""
    from comask.experiments import console  # noqa: PLC0415  # what follows is not needed for --help
    from comask.experiments.folder import RunFolder  # noqa: PLC0415
    from comask.experiments.paper.expansion import Planned  # noqa: PLC0415
    from comask.experiments.paper.running import run_studies  # noqa: PLC0415

    paper = _load(study, smoke)

    def finished(planned: Planned, folder: RunFolder) -> None:
        outcome = console.outcome(folder.read_summary())
        typer.echo(f"{planned.study}: {planned.label}, seed {planned.seed}: {outcome}")

    with _interruptible():
        skipped = run_studies(
            paper,
            paper.chosen(names or ()),
            command=_command(context),
            watching=lambda label: console.watching(as_json=False, label=label),
            finished=finished,
        )
    for part in skipped:
        typer.echo(f"{part.study} was left out: {part.reason}.", err=True)


@paper_app.command(name="list")
def list_parts(
    names: Names = None, *, study: Folder = DEFAULT_FOLDER, smoke: Smoke = None, as_json: AsJson = False
) -> None:
    """Show each part of the study and how far it is."""
    from comask.experiments.paper.listing import states  # noqa: PLC0415

    paper = _load(study, smoke)
    rows = states(paper, paper.chosen(names or ()))
    if as_json:
        typer.echo(json.dumps(rows))
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        done = f"{row['finished']:>4} of {row['runs']:>3} runs, {row['rounds_done']:>5} of {row['rounds']:>5} rounds"
        typer.echo(f"{row['name']:<{width}}  {done}  {row['state']}. {row['title']}")


@paper_app.command()
def report(
    *,
    study: Folder = DEFAULT_FOLDER,
    smoke: Smoke = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder to write. Default: report/ in the study's."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", metavar="FILE", help="Also put the text between the two marks of this Markdown file."
        ),
    ] = None,
) -> None:
    """Draw the figures and write the tables, from what is finished."""
    from comask.experiments.environment import require_packages  # noqa: PLC0415

    require_packages(("matplotlib",), "train")
    from comask.experiments.paper.report import insert_report, write_report  # noqa: PLC0415

    paper = _load(study, smoke)
    target = out or (smoke or study) / "report"
    typer.echo(f"Written: {write_report(paper, target)}")
    if into is not None:
        insert_report(paper, target, into)
        typer.echo(f"Written: {into}")


@paper_app.command()
def claims(
    names: Names = None, *, study: Folder = DEFAULT_FOLDER, smoke: Smoke = None, as_json: AsJson = False
) -> None:
    """Check the paper's two claims on each comparison, against every rival."""
    from comask.experiments.paper.claims_show import claim_facts, claim_lines  # noqa: PLC0415

    paper = _load(study, smoke)
    studies = [part for part in paper.chosen(names or ()) if part.kind == "comparison"]
    if as_json:
        typer.echo(json.dumps([claim_facts(paper, part) for part in studies], allow_nan=False))
        return
    for part in studies:
        for line in claim_lines(paper, part):
            typer.echo(line)


def _load(folder: Path, smoke: Path | None) -> Paper:
    from comask.experiments.paper.smoke import shrink  # noqa: PLC0415
    from comask.experiments.paper.study import RUNS, load_paper  # noqa: PLC0415

    paper = load_paper(folder)
    return paper if smoke is None else shrink(paper, smoke / RUNS)


def _command(context: typer.Context) -> Sequence[str]:
    return ["comask", *(context.find_root().obj or sys.argv[1:])]


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. The same command continues.", err=True)
        raise typer.Exit(INTERRUPTED) from None
