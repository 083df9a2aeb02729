"""The commands. Each turns its flags into a configuration, calls the code that does the work, and prints what came out."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from comask.errors import ConfigError
from comask.experiments.config import COMPARE_SETTINGS, SETTINGS, CompareConfig, RunConfig
from comask.experiments.exits import INTERRUPTED
from comask.experiments.flags import ConfigFile, with_settings
from comask.experiments.paper.commands import paper_app
from comask.experiments.plan_config import PLAN_SETTINGS, PlanConfig

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Federated Adam with one shared sparse mask, counted in real bytes.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 data not found, 4 bad payload, 5 bad checkpoint, 130 interrupted.",
)

app.add_typer(paper_app, name="paper")

_FIGURE_SUFFIXES = (".png", ".svg", ".pdf")
_DATA_KEYS = ("dataset", "data_root", "partition", "clients", "min_samples", "seed")

Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder to write; by default one under runs/.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace what an earlier run wrote to the folder.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output, and nothing else there.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration as TOML and stop.")]
TargetAccuracy = Annotated[
    float | None,
    typer.Option(
        "--target",
        help="Test accuracy in 0..1 to count bytes and rounds to.",
        show_default="0.98 of the best dense",
    ),
]


def _version(wanted: bool) -> None:
    if wanted:
        from comask.experiments.environment import describe_environment  # noqa: PLC0415

        typer.echo(f"comask {describe_environment()['comask']}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    pass


@app.command()
@with_settings(SETTINGS)
def run(
    given: dict[str, Any],
    *,
    context: typer.Context,
    config: ConfigFile = None,
    out: Out = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="DIR", help="Continue the run in this folder.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Train with one algorithm and one seed, into a folder."""
    from comask.experiments import console, runner  # noqa: PLC0415  # what follows is not needed for --help
    from comask.experiments.folder import RunFolder  # noqa: PLC0415
    from comask.experiments.resolve import resolve  # noqa: PLC0415
    from comask.experiments.resuming import recorded_config  # noqa: PLC0415

    _refuse_with_resume(resume, config=config, out=out, overwrite=overwrite)
    folder = None if resume is None else RunFolder(resume)
    wanted = RunConfig.load(config, given) if folder is None else recorded_config(folder, given)
    if dry_run:
        typer.echo(resolve(wanted).to_toml(), nl=False)
        return
    default = Path("runs") / f"{wanted.algorithm}-{wanted.dataset}-seed-{wanted.seed}"
    target = folder or RunFolder(out or default)
    with _resumable("run", target.path), console.watching(as_json=as_json) as observer:
        if folder is None:
            runner.start(wanted, target, overwrite=overwrite, command=_command(context), observer=observer)
        else:
            runner.resume(wanted, target, command=_command(context), observer=observer)
    if not as_json:
        typer.echo(f"{console.outcome(target.read_summary())}, in {target.path}")


@app.command()
@with_settings(COMPARE_SETTINGS)
def compare(
    given: dict[str, Any],
    *,
    context: typer.Context,
    config: ConfigFile = None,
    out: Out = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="DIR", help="Continue the comparison in this folder.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    dry_run: DryRun = False,
    target: TargetAccuracy = None,
) -> None:
    """Train with several algorithms and seeds, and print a table of them."""
    from comask.experiments import compare as comparing  # noqa: PLC0415
    from comask.experiments import console, show  # noqa: PLC0415
    from comask.experiments.folder import RunFolder  # noqa: PLC0415

    _refuse_with_resume(resume, config=config, out=out, overwrite=overwrite)
    if target is not None and not 0 < target <= 1:
        raise ConfigError(f"--target must be a number with 0 < value <= 1, got {target!r}.")
    if resume is None:
        wanted = CompareConfig.load(config, given)
        folder = out or Path("runs") / f"compare-{wanted.base.dataset}"
    else:
        wanted, folder = comparing.recorded_comparison(resume, given), resume
    if dry_run:
        typer.echo(wanted.to_toml(), nl=False)
        return
    runs = comparing.prepare(wanted, folder, overwrite=overwrite, resume=resume is not None)

    def finished(run: RunConfig, where: RunFolder) -> None:
        if not as_json:
            typer.echo(f"{run.algorithm}, seed {run.seed}: {console.outcome(where.read_summary())}")

    if not as_json:
        typer.echo(f"{len(runs)} runs of {runs[0].rounds} rounds: {console.describe_task(runs[0])}")
    with _resumable("compare", folder):
        comparing.run_all(
            runs,
            folder,
            command=_command(context),
            watching=lambda label: console.watching(as_json=as_json, label=label),
            finished=finished,
        )
    rows, chosen = comparing.write_table(runs, folder, target)
    if not as_json:
        show.show_rows(rows, chosen)
        typer.echo(f"Written to {folder}. Draw it with: comask report {folder}")


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of runs or of comparisons.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Folder to write. Default: report/ in the first DIR."),
    ] = None,
    target: TargetAccuracy = None,
    title: Annotated[str, typer.Option("--title", help="Heading of the report.")] = "comask report",
) -> None:
    """Draw figures and write one HTML file about runs that are done."""
    from comask.experiments.report import write_report  # noqa: PLC0415

    page, notes = write_report(folders, out or folders[0] / "report", target=target, title=title)
    for note in notes:
        typer.echo(note, err=True)
    typer.echo(f"Written: {page}")


@app.command()
@with_settings({name: SETTINGS[name] for name in _DATA_KEYS}, options=False)
def data(
    given: dict[str, Any],
    *,
    figure: Annotated[
        Path | None,
        typer.Option("--figure", metavar="FILE", help="Draw the partition into this PNG, SVG or PDF file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show which client holds how many samples of which class."""
    from comask.data import class_table  # noqa: PLC0415
    from comask.experiments.resolve import divide  # noqa: PLC0415
    from comask.experiments.show import show_partition  # noqa: PLC0415

    _check_figure(figure)
    federation = divide(RunConfig.load(None, given))
    if as_json:
        dataset = federation.dataset
        facts = {"dataset": dataset.name, "partition": federation.partition, "note": dataset.note}
        typer.echo(json.dumps({**facts, "counts": class_table(federation).tolist()}))
    else:
        show_partition(federation)
    if figure is not None:
        from comask.experiments.data_figures import draw_partition  # noqa: PLC0415

        draw_partition(federation, figure)
        typer.echo(f"Written: {figure}", err=True)


@app.command()
@with_settings(PLAN_SETTINGS, options=False)
def plan(
    given: dict[str, Any],
    *,
    figure: Annotated[
        Path | None,
        typer.Option(
            "--figure", metavar="FILE", help="Draw bytes and seconds into this PNG, SVG or PDF file."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Predict bytes, seconds and what the bounds say, before anything is trained."""
    _check_figure(figure)
    from comask.experiments.plan_show import plan_facts, show_plan  # noqa: PLC0415
    from comask.experiments.planning import make_plan  # noqa: PLC0415

    answer = make_plan(PlanConfig(**{name: given[name] for name in PLAN_SETTINGS if name in given}))
    if as_json:
        typer.echo(json.dumps(plan_facts(answer), allow_nan=False))
    else:
        show_plan(answer)
    if figure is not None:
        from comask.experiments.plan_figure import draw_plan  # noqa: PLC0415

        draw_plan(answer, figure)
        typer.echo(f"Written: {figure}", err=True)


@app.command()
def warmup(as_json: AsJson = False) -> None:
    """Compile what clients and servers call, once for this machine."""
    from comask.experiments.warmup import warm_up  # noqa: PLC0415

    result = warm_up()
    if as_json:
        typer.echo(json.dumps(asdict(result)))
    else:
        typer.echo(result.describe())


@app.command()
def inspect(
    payload: Annotated[Path, typer.Argument(metavar="PAYLOAD", help="A file that holds one payload.")],
    as_json: AsJson = False,
) -> None:
    """Show what the bytes of an upload are made of."""
    from comask import wire  # noqa: PLC0415
    from comask.experiments.show import payload_facts, show_payload  # noqa: PLC0415

    if not payload.is_file():
        raise ConfigError(f"PAYLOAD {payload} is not a file.")
    info = wire.inspect(payload.read_bytes())
    if as_json:
        typer.echo(json.dumps(payload_facts(info)))
    else:
        show_payload(info)


@app.command()
def algorithms(as_json: AsJson = False) -> None:
    """List the algorithms: what each uploads, its options, its paper."""
    from comask.experiments.show import algorithm_facts, show_algorithms  # noqa: PLC0415

    facts = algorithm_facts()
    if as_json:
        typer.echo(json.dumps(facts))
    else:
        show_algorithms(facts)


def _command(context: typer.Context) -> Sequence[str]:
    return ["comask", *(context.find_root().obj or sys.argv[1:])]


def _check_figure(path: Path | None) -> None:
    if path is None:
        return
    if path.suffix not in _FIGURE_SUFFIXES:
        raise ConfigError(f"--figure must end in {', '.join(_FIGURE_SUFFIXES)}, got {str(path)!r}.")
    if not path.parent.is_dir():
        raise ConfigError(f"--figure must be in a folder that exists, got {str(path)!r}.")


def _refuse_with_resume(resume: Path | None, **others: object) -> None:
    for name, value in others.items():
        if resume is not None and value:
            raise ConfigError(
                f"--{name} cannot be given together with --resume: the folder {resume} says it already."
            )


@contextmanager
def _resumable(command: str, folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        # Before the folder is there, there is nothing to continue.
        hint = f" Continue with: comask {command} --resume {folder}" if folder.exists() else ""
        typer.echo(f"\nInterrupted.{hint}", err=True)
        raise typer.Exit(INTERRUPTED) from None
