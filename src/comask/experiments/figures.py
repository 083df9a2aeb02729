"""The report's figures. Each function draws one and returns it; `save` writes it as PNG and SVG.

Up to eight algorithms differ by colour (Okabe and Ito's palette, safe for colour-blind readers), and all of them also by
line style and marker, so that a print in grey still tells them apart. An algorithm looks the same in every report.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from comask.experiments.results import Curve, Group, Target, curve
from comask.experiments.table import MEGABYTE

_COLOURS = ("#000000", "#E69F00", "#0072B2", "#56B4E9", "#CC79A7", "#D55E00", "#009E73", "#8C6D31")
_DASHES = ("-", "--", "-", "-.", ":", "--", "-.", ":")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "*", "<", ">", "h")
_PARTS = (
    ("mask_bytes", "mask", "#0072B2"),
    ("value_bytes", "values", "#E69F00"),
    ("buffer_bytes", "buffers", "#009E73"),
    ("overhead_bytes", "header, checksum", "#CC79A7"),
)
_MARKS_A_LINE = 9


@dataclass(frozen=True, slots=True)
class Style:
    """How one group's line looks."""

    colour: str
    dashes: str
    marker: str


def styles(groups: Sequence[Group], order: Sequence[str]) -> list[Style]:
    """Give each group a look of its own.

    Args:
        groups: What is drawn.
        order: All algorithms there are. The place in it decides how an algorithm's first group looks, unless its colour is
            taken while others are free; further groups of the same algorithm take places after the end.
    """
    places: list[int] = []
    colours: list[int] = []
    for group in groups:
        place = order.index(group.algorithm) if group.algorithm in order else len(order)
        while place in places:
            place = max(place, len(order) - 1) + 1
        places.append(place)
        nearest = [(place + step) % len(_COLOURS) for step in range(len(_COLOURS))]
        colours.append(min(nearest, key=colours.count))  # the first of those that are used least
    return [
        Style(
            _COLOURS[colour],
            _DASHES[(place + place // len(_COLOURS)) % len(_DASHES)],
            _MARKERS[place % len(_MARKERS)],
        )
        for place, colour in zip(places, colours, strict=True)
    ]


def accuracy_by_uplink(groups: Sequence[Group], looks: Sequence[Style], target: Target) -> Figure:
    """Test accuracy against megabytes sent by all clients together, on a logarithmic axis."""
    figure, axes = _canvas()
    for group, look, course in _courses(groups, looks):
        _line(axes, course.uplink / MEGABYTE, course, group, look)
    _log_axis(axes)
    axes.set_xlabel("uplink of all clients together (MB, log axis)")
    _finish(figure, axes, target)
    return figure


def accuracy_by_round(groups: Sequence[Group], looks: Sequence[Style], target: Target) -> Figure:
    """Test accuracy against rounds."""
    figure, axes = _canvas()
    for group, look, course in _courses(groups, looks):
        _line(axes, course.rounds, course, group, look)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("round")
    _finish(figure, axes, target)
    return figure


def bytes_by_part(groups: Sequence[Group]) -> Figure:
    """Mean uplink a round, in total on a logarithmic axis, and what it is made of in percent."""
    labels = [group.label for group in groups]
    places = np.arange(len(groups))
    parts = np.array(
        [[np.mean([run.mean(name) for run in group.runs]) for name, _, _ in _PARTS] for group in groups]
    )
    paper = np.array([np.mean([run.mean("paper_bits") for run in group.runs]) / 8 for group in groups])
    totals = parts.sum(axis=1)  # (groups,)
    figure = Figure(figsize=(10, 1.9 + 0.42 * len(groups)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(1, 1))
    # Dots, not bars: on a logarithmic axis the length of a bar means nothing.
    left.hlines(places, 0, 1, transform=left.get_yaxis_transform(), color="#E6E6E6", linewidth=0.8, zorder=0)
    left.plot(totals / MEGABYTE, places, "o", color="#1C2430", markersize=8, label="measured")
    left.plot(
        paper / MEGABYTE,
        places,
        "|",
        color="#D55E00",
        markersize=17,
        markeredgewidth=2,
        label="the paper's formula",
    )
    for place, total, formula in zip(places, totals, paper, strict=True):
        text = f"{total / MEGABYTE:.3g} MB"
        left.annotate(
            text,
            (max(total, formula) / MEGABYTE, place),
            (9, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )
    low, high = left.get_xlim()
    left.set_xlim(low / 1.5, high * 4)  # room for the numbers
    _log_axis(left)
    left.set_xlabel("uplink a round, all clients (MB, log axis)")
    left.set_yticks(places, labels)
    left.invert_yaxis()
    shares = 100 * parts / np.maximum(totals, 1)[:, None]
    start = np.zeros(len(groups))
    for column, (_, name, colour) in enumerate(_PARTS):
        right.barh(places, shares[:, column], left=start, color=colour, height=0.62, label=name)
        start += shares[:, column]
    right.set_xlim(0, 100)
    right.set_xlabel("share of these bytes (%)")
    for axes, columns in ((left, 2), (right, 4)):
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=columns,
            frameon=False,
            fontsize=9,
            columnspacing=1.2,
        )
    return figure


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write a figure as `name.png` (200 dots an inch) and `name.svg`; return the path of the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=200, metadata={"Software": None})
    vector = folder / f"{name}.svg"
    with mpl.rc_context({"svg.hashsalt": "comask"}):  # or element names would be other ones in every run
        figure.savefig(vector, metadata={"Date": None, "Creator": None})
    return vector


def _canvas() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(9, 4.8), layout="constrained")
    return figure, figure.subplots()


def _courses(groups: Sequence[Group], looks: Sequence[Style]) -> list[tuple[Group, Style, Curve]]:
    return [(group, look, curve(group)) for group, look in zip(groups, looks, strict=True)]


def _line(axes: Axes, x: Any, course: Curve, group: Group, look: Style) -> None:
    accuracy, spread = 100 * course.accuracy, 100 * course.spread
    axes.plot(
        x,
        accuracy,
        color=look.colour,
        linestyle=look.dashes,
        marker=look.marker,
        markevery=max(1, len(accuracy) // _MARKS_A_LINE),
        markersize=5,
        linewidth=1.6,
        label=f"{group.label}  {100 * group.final_accuracy:.1f} %",
    )
    if len(group.runs) > 1:
        axes.fill_between(x, accuracy - spread, accuracy + spread, color=look.colour, alpha=0.13, linewidth=0)


def _log_axis(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with plain numbers: 1, 10, 100; also 2 and 5 where it spans little."""
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 100 * low else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _finish(figure: Figure, axes: Axes, target: Target) -> None:
    axes.axhline(100 * target.accuracy, color="#888888", linewidth=1, linestyle=(0, (1, 2)), zorder=0)
    axes.annotate(
        f"target {100 * target.accuracy:.1f} %",
        (0, 100 * target.accuracy),
        (6, 3),
        xycoords=axes.get_yaxis_transform(),
        textcoords="offset points",
        fontsize=8,
        color="#666666",
    )
    axes.set_ylabel("test accuracy (%)")
    axes.grid(visible=True, color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    named = [line for line in axes.get_lines() if not str(line.get_label()).startswith("_")]
    # Best first, so that the legend reads like a ranking and stands in the order of the lines' ends.
    figure.legend(
        handles=sorted(named, key=lambda line: -float(np.asarray(line.get_ydata())[-1])),
        loc="outside right upper",
        frameon=False,
        fontsize=9,
        handlelength=3.6,
        title="final accuracy",
        title_fontsize=9,
        alignment="left",
    )
