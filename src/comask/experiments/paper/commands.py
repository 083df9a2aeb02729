"""The commands of the study: `comask paper list`, `run`, `report` and `claims`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from comask.experiments.exits import INTERRUPTED

paper_app = typer.Typer(no_args_is_help=True, help="The study: rerun it, report it, check the paper's claims.")

Folder = Annotated[
    Path, typer.Option("--study", metavar="DIR", help="Folder of the study's files; records are in runs/ below it.")
]
Names = Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Parts; all if none is named.")]
DEFAULT_FOLDER = Path("experiments/paper")


@paper_app.command()
def run(names: Names = None, *, context: typer.Context, study: Folder = DEFAULT_FOLDER) -> None:
    """Do every run that is not done, in the study's order."""
    from comask.experiments import console  # noqa: PLC0415  # what follows is not needed for --help
    from comask.experiments.folder import RunFolder  # noqa: PLC0415
    from comask.experiments.paper.expansion import Planned  # noqa: PLC0415
    from comask.experiments.paper.running import run_studies  # noqa: PLC0415
    from comask.experiments.paper.study import load_paper  # noqa: PLC0415

    paper = load_paper(study)

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


def _command(context: typer.Context) -> Sequence[str]:
    import sys  # noqa: PLC0415

    return ["comask", *(context.find_root().obj or sys.argv[1:])]


@contextmanager
def _interruptible() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nInterrupted. The same command continues.", err=True)
        raise typer.Exit(INTERRUPTED) from None
