"""What the commands that only look print: algorithms, a payload, a partition, a comparison's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from comask.data import Federation, partition_table
from comask.experiments.results import Target
from comask.experiments.table import HEADINGS, Row, cells, describe_target, to_markdown
from comask.wire import PayloadInfo

_SHORT = (
    "Algorithm",
    "Final accuracy",
    "Uplink a round",
    "Rounds to target",
    "Uplink to target",
    "Time a round",
)
"""Columns that fit on a terminal of 80 characters; the files have all of them."""

_WIDE = 500
"""Characters a line where nobody looks at it in a window."""


def show_rows(rows: Sequence[Row], target: Target) -> None:
    """Print a comparison's table: the main columns on a terminal, all of them as Markdown elsewhere."""
    console = make_console()
    if not console.is_terminal:
        print(to_markdown(rows))  # noqa: T201  # this is the output
        print(describe_target(target))  # noqa: T201
        return
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), header_style="bold")
    for name in _SHORT:
        table.add_column(name, no_wrap=name == _SHORT[0], justify="left" if name == _SHORT[0] else "right")
    for row in rows:
        by_name = dict(zip(HEADINGS, cells(row), strict=True))
        table.add_row(*(escape(by_name[name]) for name in _SHORT))
    console.print(table)
    console.print(describe_target(target), style="dim", markup=False)


def algorithm_facts() -> list[dict[str, Any]]:
    """Return each algorithm's name, summary, source and options with their defaults."""
    from comask.algorithms import ALGORITHMS, algorithm_options, source, summary  # noqa: PLC0415  # not for --help

    return [
        {
            "name": name,
            "summary": summary(name),
            "source": source(name),
            "options": dict(algorithm_options(name)),
        }
        for name in ALGORITHMS
    ]


def show_algorithms(facts: Sequence[dict[str, Any]]) -> None:
    """Print the algorithms: what each sends, the formula of its bits, its options, its paper."""
    console = make_console()
    for fact in facts:
        options = ", ".join(f"{name}={value}" for name, value in fact["options"].items())
        paper = fact["source"].partition("\n\n")[0].replace("\n", " ")
        console.print(fact["name"], style="bold", markup=False)
        for line in (fact["summary"], f"Options: {options}", paper):
            console.print(Padding(Text(line), (0, 0, 0, 4), expand=False))
        console.print()


def payload_facts(info: PayloadInfo) -> dict[str, Any]:
    """Return a payload's description as plain data."""
    facts = asdict(info)
    facts["fingerprint"] = None if info.fingerprint is None else info.fingerprint.hex()
    return facts


def show_payload(info: PayloadInfo) -> None:
    """Print a payload's header, codings and bytes per section."""
    console = make_console()
    fingerprint = "none" if info.fingerprint is None else info.fingerprint.hex()
    console.print(
        f"round {info.round}, {info.dim:,} parameters, layout {fingerprint}, {info.total_bytes:,} bytes"
    )
    table = Table("Section", "Coding", "Kept", "Bytes", "Bits a position", "Share", header_style="bold")
    for column in table.columns[2:]:
        column.justify = "right"

    def add(section: str, coding: str, kept: int | None, count: int) -> None:
        each = f"{8 * count / kept:.2f}" if kept else ""
        kept_text = "" if kept is None else f"{kept:,}"
        table.add_row(
            section, coding, kept_text, f"{count:,}", each, f"{100 * count / info.total_bytes:.1f} %"
        )

    stream = 0
    for number, block in enumerate(info.blocks, start=1):
        add(f"block {number}: mask", block.indices, block.num_kept, block.mask_bytes)
        for coding, count in zip(block.values, block.value_bytes, strict=True):
            add(f"block {number}: stream {stream}", coding, block.num_kept, count)
            stream += 1
    add("buffers", "float32", None, info.buffer_bytes)
    add("header and checksum", "", None, info.overhead_bytes)
    console.print(table)


def show_partition(federation: Federation) -> None:
    """Print how many samples of each class each client holds."""
    console = make_console()
    console.print(partition_table(federation))


def make_console() -> Console:
    """Return a console that fits the terminal, or one that breaks no lines where the output goes elsewhere."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_WIDE)
