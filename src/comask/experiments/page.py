"""The report's HTML: one file, no script, nothing loaded from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

from comask.experiments.results import Group, Run, Target
from comask.experiments.table import HEADINGS, NOT_REACHED, Row, cells, describe_target


def render(
    *,
    title: str,
    groups: Sequence[Group],
    rows: Sequence[Row],
    target: Target,
    notes: Sequence[str],
    figures: Sequence[tuple[str, str, Path]],
) -> str:
    """Return the page.

    Args:
        title: Its heading.
        groups: What was compared, for the commands, configurations and facts about each run.
        rows: The table.
        target: What its last columns count to.
        notes: Sentences that must be seen, such as about unfinished runs.
        figures: Heading, caption and SVG file of each figure, in order.
    """
    template = resources.files("comask.experiments").joinpath("report.html").read_text(encoding="utf-8")
    runs = [run for group in groups for run in group.runs]
    return Template(template).substitute(
        title=escape(title),
        lead=escape(_lead(groups)),
        notes="".join(f'<p class="note">{escape(note)}</p>\n' for note in notes),
        data="".join(f"<p>{escape(note)}.</p>\n" for note in _data_notes(runs)),
        table=_table(rows),
        target=escape(describe_target(target)),
        figures="".join(_figure(*figure) for figure in figures),
        runs=_runs(runs),
        commands="".join(f"<pre>{escape(command)}</pre>\n" for command in _commands(runs)),
        configs="".join(_config(group) for group in groups),
    )


def _lead(groups: Sequence[Group]) -> str:
    def values(name: str) -> str:
        return ", ".join(
            dict.fromkeys(str(getattr(run.config, name)) for group in groups for run in group.runs)
        )

    return (
        f"Data: {values('dataset')}, divided by {values('partition')} among {values('clients')} clients. "
        f"Model: {values('model')}. Up to {values('rounds')} rounds of {values('local_steps')} local steps on batches of "
        f"{values('batch_size')}. Seeds: {values('seed')}. Bytes are the lengths of the payloads that were made."
    )


def _data_notes(runs: Sequence[Run]) -> list[str]:
    return list(
        dict.fromkeys(
            str(run.summary["data_note"]).rstrip(".") for run in runs if run.summary.get("data_note")
        )
    )


def _table(rows: Sequence[Row]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in HEADINGS)
    body = "".join(f"<tr>{''.join(map(_cell, cells(row)))}</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table>"


def _cell(text: str) -> str:
    return f'<td class="none">{text}</td>' if text == NOT_REACHED else f"<td>{escape(text)}</td>"


def _figure(heading: str, caption: str, vector: Path) -> str:
    # As an image and not inline: the element names inside of two figures would clash.
    data = base64.b64encode(vector.read_bytes()).decode()
    image = f'<img alt="{escape(heading)}" src="data:image/svg+xml;base64,{data}">'
    return f"<h2>{escape(heading)}</h2>\n<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>\n"


def _runs(runs: Sequence[Run]) -> str:
    head = (
        "Run",
        "Seed",
        "Rounds",
        "Device",
        "Precision",
        "Workers",
        "Refused",
        "Dropped",
        "comask",
        "torch",
        "Platform",
    )
    lines = []
    for run in runs:
        session = _last_session(run)
        environment = session.get("environment", {})
        precision = f"{run.summary.get('precision', '?')} ({run.summary.get('precision_reason', '?')})"
        facts = (
            run.config.algorithm,
            run.config.seed,
            len(run.records),
            run.summary.get("device", "?"),
            precision,
            session.get("workers", "?"),
            sum(len(record.refused) for record in run.records),
            sum(len(record.dropped) for record in run.records),
            environment.get("comask", "?"),
            environment.get("torch", "?"),
            environment.get("platform", "?"),
        )
        lines.append(f"<tr>{''.join(f'<td>{escape(str(fact))}</td>' for fact in facts)}</tr>\n")
    return f"<table class='facts'><thead><tr>{''.join(f'<th>{name}</th>' for name in head)}</tr></thead>\n<tbody>{''.join(lines)}</tbody></table>"


def _last_session(run: Run) -> Mapping[str, Any]:
    sessions = run.summary.get("sessions", ())
    return sessions[-1] if sessions else {}


def _commands(runs: Sequence[Run]) -> list[str]:
    sessions = [session for run in runs for session in run.summary.get("sessions", ())]
    return list(dict.fromkeys(str(session["command"]) for session in sessions))


def _config(group: Group) -> str:
    first = group.runs[0]
    summary = f"{group.label}, seed {first.config.seed}"
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(first.config.to_toml())}</pre></details>\n"
