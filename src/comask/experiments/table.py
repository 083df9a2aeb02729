"""The table of a comparison: computed once, shown on the terminal, in Markdown, CSV and HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np

from comask.experiments.results import Group, Target

MEGABYTE = 1_000_000
NOT_REACHED = "not reached"


@dataclass(frozen=True, slots=True)
class Row:
    """One group of runs. Means are over rounds and seeds; megabytes are of all clients together.

    Attributes:
        algorithm: The group's label.
        seeds: Number of runs.
        rounds: Rounds done, the least of all seeds.
        final_accuracy: In 0..1, mean over seeds.
        final_accuracy_std: Sample standard deviation over seeds; None with one seed.
        uplink_mb_per_round: Measured.
        paper_mb_per_round: The same uploads by the formula of the paper (q = 32 bits a number).
        mask_share: Fraction of the uplink that says which positions are kept.
        downlink_mb_per_round: Measured.
        reached: Seeds that reach the target.
        rounds_to_target: Mean over those seeds; None if there are none.
        uplink_mb_to_target: Likewise.
        seconds_per_round: Wall-clock time, evaluation included.
    """

    algorithm: str
    seeds: int
    rounds: int
    final_accuracy: float
    final_accuracy_std: float | None
    uplink_mb_per_round: float
    paper_mb_per_round: float
    mask_share: float
    downlink_mb_per_round: float
    reached: int
    rounds_to_target: float | None
    uplink_mb_to_target: float | None
    seconds_per_round: float


HEADINGS = (
    "Algorithm",
    "Seeds",
    "Final accuracy",
    "Uplink a round",
    "Paper's formula",
    "Mask's share",
    "Downlink a round",
    "Rounds to target",
    "Uplink to target",
    "Time a round",
)
"""Column heads for people, in the order of `cells`."""


def make_rows(groups: Sequence[Group], target: Target) -> list[Row]:
    """Compute the table."""
    return [_row(group, target.accuracy) for group in groups]


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as people read it, with units."""
    spread = "" if row.final_accuracy_std is None else f" ± {100 * row.final_accuracy_std:.2f}"
    some = f" ({row.reached} of {row.seeds})" if row.reached < row.seeds else ""
    reached = row.rounds_to_target is not None and row.uplink_mb_to_target is not None
    return (
        row.algorithm,
        str(row.seeds),
        f"{100 * row.final_accuracy:.2f}{spread} %",
        f"{row.uplink_mb_per_round:.4g} MB",
        f"{row.paper_mb_per_round:.4g} MB",
        f"{100 * row.mask_share:.1f} %",
        f"{row.downlink_mb_per_round:.4g} MB",
        f"{row.rounds_to_target:.4g}{some}" if reached else NOT_REACHED,
        f"{row.uplink_mb_to_target:.4g} MB{some}" if reached else NOT_REACHED,
        f"{row.seconds_per_round:.2f} s",
    )


def to_markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, numbers aligned to the right."""
    lines = [HEADINGS, ("---", *["---:"] * (len(HEADINGS) - 1)), *map(cells, rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def to_csv(rows: Sequence[Row]) -> str:
    """Return the table as CSV: bare numbers, columns named as the attributes of `Row`, empty where there is no value."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [item.name for item in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def describe_target(target: Target) -> str:
    """Return the sentences that must stand under the table."""
    return (
        f"Target: test accuracy {100 * target.accuracy:.2f} % ({target.rule}); a seed reaches it in the first evaluated round "
        'at or above it; "(1 of 3)" means that only 1 of 3 seeds does. Final accuracy: after the last evaluated round, mean ± sample standard deviation over seeds. '
        "MB: 1,000,000 bytes, of all clients together; the paper's formula counts 32 bits a number."
    )


def _row(group: Group, target: float) -> Row:
    runs = group.runs
    finals = [run.final_accuracy for run in runs]
    hits = [(run.round_reaching(target), run) for run in runs]
    rounds_to = [number for number, _ in hits if number is not None]
    megabytes_to = [run.uplink_until(number) / MEGABYTE for number, run in hits if number is not None]
    uplink = _mean(group, "uplink_bytes")
    return Row(
        algorithm=group.label,
        seeds=len(runs),
        rounds=min(len(run.records) for run in runs),
        final_accuracy=group.final_accuracy,
        final_accuracy_std=float(np.std(finals, ddof=1)) if len(finals) > 1 else None,
        uplink_mb_per_round=uplink / MEGABYTE,
        paper_mb_per_round=_mean(group, "paper_bits") / 8 / MEGABYTE,
        mask_share=_mean(group, "mask_bytes") / uplink if uplink else 0.0,
        downlink_mb_per_round=_mean(group, "downlink_bytes") / MEGABYTE,
        reached=len(rounds_to),
        rounds_to_target=float(np.mean(rounds_to)) if rounds_to else None,
        uplink_mb_to_target=float(np.mean(megabytes_to)) if megabytes_to else None,
        seconds_per_round=float(
            np.mean([record.seconds.get("wall", 0.0) for run in runs for record in run.records])
        ),
    )


def _mean(group: Group, quantity: str) -> float:
    return float(np.mean([run.mean(quantity) for run in group.runs]))
