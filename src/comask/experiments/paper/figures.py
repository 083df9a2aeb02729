"""The figures of the study beyond those of any report: what a setting does, and how changes and their rankings develop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from comask.experiments.figures import Style
from comask.experiments.paper.changes import STREAMS, Changes
from comask.experiments.paper.measures import rounds_to
from comask.experiments.paper.records import Cell
from comask.experiments.results import Run, Target, curve

_STREAM_COLOURS = ("#0072B2", "#E69F00", "#009E73")
_STREAM_DASHES = ("-", "--", ":")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X")
_GREY = "#E6E6E6"
Series = Sequence[tuple[float, float, float]]
"""Place, mean and sample standard deviation."""


def effect(
    setting: str,
    cells_by_label: Mapping[str, Sequence[Cell]],
    looks: Mapping[str, Style],
    target: Target,
    rounds: int,
) -> Figure:
    """What a setting does: final accuracy, and rounds to a target, against its value on a logarithmic axis.

    Args:
        setting: The grid's setting.
        cells_by_label: Cells of each variant.
        looks: How each variant's line looks.
        target: What the right half counts to; a seed that does not get there leaves a mark at the top.
        rounds: Rounds of each run.
    """
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    late: dict[float, float] = {}
    for label, cells in cells_by_label.items():
        look = looks[label]
        _series(left, _over_seeds(setting, cells, lambda run: 100 * run.final_accuracy), look, label)
        _series(right, _over_seeds(setting, cells, lambda run: rounds_to(run, target.accuracy)), look, label)
        for cell in cells:
            if all(rounds_to(run, target.accuracy) is None for run in cell.group.runs):
                place = float(cell.point[setting])
                step = late[place] = late.get(place, -1) + 1
                right.plot(
                    place,
                    rounds * (1.06 + 0.05 * step),
                    look.marker,
                    color=look.colour,
                    fillstyle="none",
                    markersize=7,
                )
    left.set_ylabel(f"test accuracy after {rounds} rounds (%)")
    right.set_ylabel(f"rounds to {100 * target.accuracy:.1f} %")
    right.axhline(rounds, color="#888888", linewidth=1, linestyle=(0, (1, 2)), zorder=0)
    right.annotate(
        "hollow: not reached by any seed",
        (0.01, rounds),
        xycoords=("axes fraction", "data"),
        fontsize=8,
        color="#666666",
        va="top",
        xytext=(0, -3),
        textcoords="offset points",
    )
    right.set_ylim(0, rounds * (1.12 + 0.05 * max(late.values(), default=0)))
    places = sorted({float(cell.point[setting]) for cells in cells_by_label.values() for cell in cells})
    for axes in (left, right):
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(FixedLocator(places))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(f"{setting.replace('_', ' ')} (log axis)")
        _plain(axes)
    figure.legend(
        *left.get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=9
    )
    return figure


def effect_courses(setting: str, cells_by_label: Mapping[str, Sequence[Cell]]) -> Figure:
    """Test accuracy against rounds, one panel a variant, one line a value of the setting.

    Args:
        setting: The grid's setting.
        cells_by_label: Cells of each variant.
    """
    figure = Figure(figsize=(4.2 * len(cells_by_label) + 1, 4.2), layout="constrained")
    panels = figure.subplots(1, len(cells_by_label), sharey=True, squeeze=False)[0]
    values = sorted({float(cell.point[setting]) for cells in cells_by_label.values() for cell in cells})
    looks = {
        value: (
            mpl.colormaps["viridis"](0.9 * place / max(1, len(values) - 1)),
            _MARKERS[place % len(_MARKERS)],
        )
        for place, value in enumerate(values)
    }
    for axes, (label, cells) in zip(panels, cells_by_label.items(), strict=True):
        for cell in sorted(cells, key=lambda cell: float(cell.point[setting])):
            value = float(cell.point[setting])
            colour, marker = looks[value]
            course = curve(cell.group)
            mean, spread = 100 * course.accuracy, 100 * course.spread
            axes.plot(
                course.rounds,
                mean,
                color=colour,
                marker=marker,
                markersize=4,
                linewidth=1.5,
                label=f"{value:g}",
            )
            axes.fill_between(
                course.rounds, mean - spread, mean + spread, color=colour, alpha=0.15, linewidth=0
            )
        axes.set_title(label, fontsize=10)
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
    panels[0].set_ylabel("test accuracy (%)")
    named = dict(
        pair for axes in panels for pair in zip(*reversed(axes.get_legend_handles_labels()), strict=True)
    )
    figure.legend(
        [named[f"{value:g}"] for value in values],
        [f"{value:g}" for value in values],
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        title=setting.replace("_", " "),
        title_fontsize=9,
    )
    return figure


def changes(runs: Sequence[Sequence[Changes]], density: float) -> Figure:
    """Mean size of the changes, overlap of the three rankings, and what the mask keeps, by round.

    Args:
        runs: The measurements of each seed, by round.
        density: Fraction kept by the rankings: what two random ones have in common.
    """
    figure = Figure(figsize=(13, 4.2), layout="constrained")
    size, overlap, kept = figure.subplots(1, 3)
    for index, name in enumerate(STREAMS):
        _course(size, runs, name, index=index, label=f"|d{name.upper()}|")
        _course(kept, runs, f"kept_{name}", index=index, label=f"d{name.upper()}", scale=100)
    for index, (first, second) in enumerate((("w", "m"), ("w", "v"), ("m", "v"))):
        label = f"|d{first.upper()}| and |d{second.upper()}|"
        _course(overlap, runs, f"{first}_{second}", index=index, label=label, scale=100)
    size.set_yscale("log")
    size.set_ylabel("mean over positions and clients (log axis)")
    overlap.set_ylabel(f"in common of the top {100 * density:g} % (%)")
    overlap.axhline(100 * density, color="#888888", linewidth=1, linestyle=(0, (1, 2)), label="by chance")
    kept.set_ylabel("squared length at the top of |dW| (%)")
    for axes in (overlap, kept):
        axes.set_ylim(0, 100)
    for axes in (size, overlap, kept):
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _plain(axes)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2 if axes is overlap else 3,
            frameon=False,
            fontsize=9,
            columnspacing=1.2,
        )
    return figure


def _course(
    axes: Axes, runs: Sequence[Sequence[Changes]], name: str, *, index: int, label: str, scale: float = 1.0
) -> None:
    length = min(map(len, runs))
    values = scale * np.array(
        [[getattr(row, name) for row in run[:length]] for run in runs]
    )  # (seeds, rounds)
    places = np.arange(1, length + 1)
    mean = values.mean(axis=0)
    axes.plot(
        places,
        mean,
        color=_STREAM_COLOURS[index],
        linestyle=_STREAM_DASHES[index],
        linewidth=1.8,
        label=label,
    )
    if len(values) > 1:
        spread = values.std(axis=0, ddof=1)
        axes.fill_between(
            places, mean - spread, mean + spread, color=_STREAM_COLOURS[index], alpha=0.15, linewidth=0
        )


def _series(axes: Axes, series: Series, look: Style, label: str) -> None:
    if not series:
        return
    place, mean, spread = np.array(series).T
    axes.errorbar(
        place,
        mean,
        yerr=spread,
        color=look.colour,
        linestyle=look.dashes,
        marker=look.marker,
        markersize=5.5,
        linewidth=1.6,
        capsize=3,
        label=label,
    )


def _over_seeds(setting: str, cells: Sequence[Cell], measure: Callable[[Run], float | None]) -> Series:
    series = []
    for cell in sorted(cells, key=lambda cell: float(cell.point[setting])):
        known = [value for run in cell.group.runs if (value := measure(run)) is not None]
        if known:
            spread = float(np.std(known, ddof=1)) if len(known) > 1 else 0.0
            series.append((float(cell.point[setting]), float(np.mean(known)), spread))
    return series


def _plain(axes: Axes) -> None:
    axes.grid(visible=True, color=_GREY, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
