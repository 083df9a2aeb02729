"""Several algorithms and seeds on one task, each in a folder of its own, and the table of them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import repeat
from pathlib import Path
from typing import Any

from comask.errors import ConfigError
from comask.experiments.config import CompareConfig, RunConfig
from comask.experiments.folder import CONFIG, RunFolder, require_vacant, write_atomic
from comask.experiments.resolve import resolve_all
from comask.experiments.results import Target, choose_target, find_runs, group_runs
from comask.experiments.resuming import AUTO, is_finished, require_same, settle
from comask.experiments.runner import Observer, resume, start
from comask.experiments.table import Row, describe_target, make_rows, to_csv, to_markdown

COMPARISON, TABLE_MARKDOWN, TABLE_CSV = "compare.toml", "table.md", "table.csv"

Watching = Callable[[str], AbstractContextManager[Observer]]
"""From the label of a run, such as `"2/6"`, to who watches it."""


def run_all(
    runs: Sequence[RunConfig],
    out: Path,
    *,
    command: Sequence[str],
    watching: Watching,
    finished: Callable[[RunConfig, RunFolder], None],
) -> None:
    """Do every run that is not finished: continue those that have begun, start the others.

    Args:
        runs: Resolved configurations.
        out: The comparison's folder; a run's is `ALGORITHM/seed-N` below it.
        command: The command line, for the summaries.
        watching: Opened around each run.
        finished: Told after each run, also after one that was finished before.

    Raises:
        ComaskError: As `start` and `resume`.
    """
    # What the first run settles on holds for all: precisions must not differ because a probe came out otherwise.
    begun = [recorded for recorded in map(_recorded, runs, repeat(out)) if recorded is not None]
    settled = next((recorded for recorded in begun if recorded.precision != AUTO), None)
    for number, wanted in enumerate(runs, start=1):
        folder = folder_of(wanted, out)
        run = wanted if settled is None else settle(wanted, settled)
        if not is_finished(run, folder):
            with watching(f"{number}/{len(runs)}") as observer:
                if folder.config.exists():
                    resume(run, folder, command=command, observer=observer)
                else:
                    start(run, folder, overwrite=False, command=command, observer=observer)
        settled = settled or _recorded(wanted, out)
        finished(run, folder)


def _recorded(run: RunConfig, out: Path) -> RunConfig | None:
    """Return the configuration in a run's folder, or None before there is one."""
    file = folder_of(run, out).config
    return RunConfig.load(file, {}) if file.exists() else None


def prepare(config: CompareConfig, out: Path, *, overwrite: bool, resume: bool) -> list[RunConfig]:
    """Check a comparison, make its folder if it is new, write its configuration, and return its runs, resolved.

    Args:
        config: What to compare.
        out: The comparison's folder.
        overwrite: Replace a comparison that is already there.
        resume: Keep the runs that are already there.

    Raises:
        ConfigError: If a setting is not allowed, or the folder of a new comparison holds anything, unless that is a
            comparison and `overwrite` is set.
        DataNotFoundError: If the data set is in none of the places looked at.
    """
    runs = resolve_all(config)
    if not resume:
        require_vacant(out, overwrite=overwrite, marker=COMPARISON)
        for old in sorted(out.rglob(CONFIG)):
            RunFolder(old.parent).clear()
        out.mkdir(parents=True, exist_ok=True)
    for run in runs:  # before the first of them runs, not hours later
        if (recorded := _recorded(run, out)) is not None:
            require_same(recorded, run, folder_of(run, out))
    write_atomic(out / COMPARISON, config.to_toml())
    return runs


def recorded_comparison(out: Path, flags: Mapping[str, Any]) -> CompareConfig:
    """Return an existing comparison with flags applied. Algorithms, seeds and rounds may be added.

    Raises:
        ConfigError: If the folder holds no comparison, or a flag is not allowed.
    """
    file = out / COMPARISON
    if not file.exists():
        raise ConfigError(f"{out} holds no {COMPARISON}: it is not the folder of a comparison.")
    return CompareConfig.load(file, flags)


def write_table(runs: Sequence[RunConfig], out: Path, target: float | None) -> tuple[list[Row], Target]:
    """Compute the table from the runs' records and write it as Markdown and CSV.

    Raises:
        ConfigError: If no run has an evaluated round, or the target is not allowed.
    """
    found, _ = find_runs(folder_of(run, out).path for run in runs)
    groups = group_runs(found, dict.fromkeys(run.algorithm for run in runs))
    chosen = choose_target(groups, target)
    rows = make_rows(groups, chosen)
    write_atomic(out / TABLE_MARKDOWN, f"{to_markdown(rows)}\n{describe_target(chosen)}\n")
    write_atomic(out / TABLE_CSV, to_csv(rows))
    return rows, chosen


def folder_of(run: RunConfig, out: Path) -> RunFolder:
    """Return a run's folder within its comparison's."""
    return RunFolder(out / run.algorithm / f"seed-{run.seed}")
