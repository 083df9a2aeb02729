"""What the commands that only look print: algorithms, a payload, a partition, a comparison's table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from comask.experiments.results import Target
from comask.experiments.table import HEADINGS, Row, cells, describe_target, to_markdown
from comask.wire import PayloadInfo


def show_rows(rows: Sequence[Row], target: Target) -> None:
    """Print a comparison's table: drawn on a terminal, Markdown elsewhere."""
    console = Console(highlight=False)
    if not console.is_terminal:
        print(to_markdown(rows))  # noqa: T201  # this is the output
        print(describe_target(target))  # noqa: T201
        return
    table = Table(*HEADINGS, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*map(escape, cells(row)))
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
    console = Console(highlight=False, soft_wrap=not Console().is_terminal)
    for fact in facts:
        console.print(f"[bold]{escape(fact['name'])}[/bold]  {escape(fact['summary'])}")
        options = ", ".join(f"{name}={value}" for name, value in fact["options"].items())
        console.print(f"    options: {escape(options)}", style="dim")
        console.print(f"    {escape(fact['source'].splitlines()[0])}\n", style="dim")


def payload_facts(info: PayloadInfo) -> dict[str, Any]:
    """Return a payload's description as plain data."""
    facts = asdict(info)
    facts["fingerprint"] = None if info.fingerprint is None else info.fingerprint.hex()
    return facts


def show_payload(info: PayloadInfo) -> None:
    """Print a payload's header, codings and bytes per section."""
    console = Console(highlight=False)
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


def show_partition(counts: Sequence[Sequence[int]], title: str) -> None:
    """Print how many samples of each class each client holds.

    Args:
        counts: One row a client, one column a class.
        title: What is shown.
    """
    console = Console(highlight=False)
    console.print(title, markup=False)
    width = max(len(str(max(map(sum, counts), default=0))), 5)
    head = ["client", *map(str, range(len(counts[0]))), "all"]
    lines = [
        [str(client), *(str(count) if count else "." for count in row), str(sum(row))]
        for client, row in enumerate(counts)
    ]
    sums = [sum(column) for column in zip(*counts, strict=True)]
    for line in (head, *lines, ["all", *map(str, sums), str(sum(sums))]):
        print("".join([f"{line[0]:>7}", *(f"{cell:>{width + 1}}" for cell in line[1:])]))  # noqa: T201  # a plain grid
