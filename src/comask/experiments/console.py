"""What a person, or a program, sees while rounds go by.

Results go to standard output; progress and messages go to standard error, so that output can be piped.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from comask.experiments.config import RunConfig
from comask.experiments.folder import record_facts
from comask.experiments.runner import Observer, Session
from comask.experiments.table import MEGABYTE
from comask.simulation.records import RoundRecord


@contextmanager
def watching(*, as_json: bool, label: str = "") -> Iterator[Observer]:
    """Give the observer that fits where the output goes: JSON if asked for, a bar on a terminal, a headline otherwise."""
    if as_json:
        yield JsonLines()
    elif sys.stderr.isatty():
        bar = ProgressBar(label)
        try:
            yield bar
        finally:
            bar.close()
    else:
        yield Headlines(label)


class JsonLines:
    """One JSON object a round on standard output, and nothing else there."""

    def __init__(self) -> None:
        self._run: Mapping[str, Any] = {}

    def started(self, session: Session) -> None:
        """See `Observer`."""
        self._run = {"algorithm": session.config.algorithm, "seed": session.config.seed}

    def recorded(self, record: RoundRecord) -> None:
        """See `Observer`."""
        print(json.dumps({**self._run, **record_facts(record)}), flush=True)  # noqa: T201  # this is the output


class Headlines:
    """Where nobody watches: what runs, and nothing a round."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)

    def started(self, session: Session) -> None:
        """See `Observer`."""
        self._console.print(headline(session, self._label), markup=False)

    def recorded(self, record: RoundRecord) -> None:
        """See `Observer`."""


class ProgressBar:
    """A bar with rounds, accuracy, bytes so far and time left, on standard error."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._bytes = 0
        self._accuracy: float | None = None
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[seen]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,  # what a run has reached is printed where it stood
        )
        self._task: TaskID | None = None

    def started(self, session: Session) -> None:
        """See `Observer`."""
        self._console.print(headline(session, self._label), markup=False)
        self._progress.start()
        self._task = self._progress.add_task(
            "", total=session.config.rounds, completed=len(session.done), seen=""
        )
        for record in session.done:
            self._see(record)
        self._show(advance=0)

    def recorded(self, record: RoundRecord) -> None:
        """See `Observer`."""
        self._see(record)
        self._show(advance=1)

    def close(self) -> None:
        """Leave the bar as it stands and give the terminal back."""
        self._progress.stop()

    def _see(self, record: RoundRecord) -> None:
        self._bytes += record.uplink_bytes
        if record.test_accuracy is not None:
            self._accuracy = record.test_accuracy

    def _show(self, advance: int) -> None:
        if self._task is not None:
            seen = f"accuracy {percent(self._accuracy)}, {megabytes(self._bytes)} up"
            self._progress.update(self._task, advance=advance, seen=seen)


def headline(session: Session, label: str) -> str:
    """Return one line that says what runs, and on what.

    Args:
        session: What was decided.
        label: The run's place in a comparison, such as `"2/6"`; the task is left out then, since all runs share it. Empty
            for a single run.
    """
    config = session.config
    what = f"{label} {config.algorithm}, seed {config.seed}".lstrip()
    workers = f"{session.workers} workers" if session.workers else "in process"
    where = f"{config.device}, {workers}, {config.precision} ({session.precision_reason})"
    return (
        f"{what}: {where}"
        if label
        else f"{what}: {describe_task(config)}, {session.parameters:,} parameters; {where}"
    )


def describe_task(config: RunConfig) -> str:
    """Return what is trained on what, in a few words."""
    model = config.model or "default model"
    return f"{model} on {config.dataset}, {config.clients} clients, {config.partition}"


def outcome(summary: Mapping[str, Any]) -> str:
    """Return one line that says what a run has reached."""
    refused = sum(summary["refused"].values())
    return (
        f"{summary['rounds']} rounds, accuracy {percent(summary['test_accuracy'])}, {megabytes(summary['uplink_bytes'])} up, "
        f"{megabytes(summary['downlink_bytes'])} down, {summary['seconds']:.1f} s"
        + (f", {refused} uploads refused" if refused else "")
    )


def percent(share: float | None) -> str:
    """Return a fraction in percent, or a dash."""
    return "-" if share is None else f"{100 * share:.2f} %"


def megabytes(count: float) -> str:
    """Return bytes in units of a million, with three digits that count."""
    value = count / MEGABYTE
    return f"{value:,.0f} MB" if value >= 100 else f"{value:.3g} MB"
