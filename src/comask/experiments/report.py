"""One report about any number of runs: figures, tables, and a page that holds them all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from comask.experiments.environment import require_packages
from comask.experiments.folder import write_atomic
from comask.experiments.page import render
from comask.experiments.results import choose_target, find_runs, group_runs
from comask.experiments.table import describe_target, make_rows, to_csv, to_markdown

_BAND = "Lines are means over seeds, bands one sample standard deviation to either side."
_PARTS_CAPTION = (
    "Mean over rounds and seeds. Left: the sum of all uploads' lengths, beside the paper's formula for the same uploads "
    "(32 bits a number). Right: how the measured bytes divide."
)


def write_report(
    folders: Sequence[Path], out: Path, *, target: float | None = None, title: str = "comask report"
) -> tuple[Path, list[str]]:
    """Write `report.html`, the table as `table.md` and `table.csv`, and each figure as PNG and SVG.

    Args:
        folders: Folders of runs or of comparisons, searched through.
        out: Where to write; made if needed.
        target: Test accuracy in 0..1 to count bytes and rounds to; None for the rule of `choose_target`.
        title: The page's heading.

    Returns:
        The path of the page, and the sentences on it about runs that are not finished or left out.

    Raises:
        ConfigError: If a folder does not exist, holds no run, or the same run twice, or the target is out of range.
        CheckpointError: If a run's records are damaged.
        MissingExtraError: If matplotlib is not installed.
    """
    require_packages(("matplotlib",), "train")
    from comask.algorithms import ALGORITHMS  # noqa: PLC0415  # after the check above, which is quicker to fail
    from comask.experiments import figures  # noqa: PLC0415

    order = tuple(ALGORITHMS)
    runs, notes = find_runs(folders)
    groups = group_runs(runs, order)
    chosen = choose_target(groups, target)
    looks = figures.styles(groups, order)
    drawn = (
        (
            "Test accuracy against uplink",
            "accuracy-by-uplink",
            f"Left is cheaper, up is better. {_BAND}",
            figures.accuracy_by_uplink(groups, looks, chosen),
        ),
        (
            "Test accuracy against rounds",
            "accuracy-by-round",
            _BAND,
            figures.accuracy_by_round(groups, looks, chosen),
        ),
        (
            "What a round's uplink is made of",
            "bytes-by-part",
            _PARTS_CAPTION,
            figures.bytes_by_part(groups),
        ),
    )
    rows = make_rows(groups, chosen)
    pictures = [
        (heading, caption, figures.save(figure, out, name)) for heading, name, caption, figure in drawn
    ]
    page = render(title=title, groups=groups, rows=rows, target=chosen, notes=notes, figures=pictures)
    write_atomic(out / "table.md", f"{to_markdown(rows)}\n{describe_target(chosen)}\n")
    write_atomic(out / "table.csv", to_csv(rows))
    write_atomic(out / "report.html", page)
    return out / "report.html", notes
