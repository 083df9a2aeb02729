"""The planner's figure: bytes and seconds of one upload against density, and its whole time against the uplink."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from comask.algorithms import ALGORITHMS
from comask.errors import MissingExtraError
from comask.experiments.coded_sizes import predicted_bytes, value_shares
from comask.experiments.planning import Line, Plan
from comask.experiments.units import RATE, parse, show_bytes, show_prefix, show_seconds

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

# Okabe and Ito's palette for the paper's comparison and Tol's for the rest, safe for colour-blind readers. A method looks the
# same in every figure.
_COLOURS = dict(
    zip(
        ("fedadam", "fedadam-top", "fedadam-ssm", "fedavg", "fairness-top", "fedsgd"),
        ("#000000", "#E69F00", "#0072B2", "#D55E00", "#009E73", "#CC79A7"),
        strict=True,
    )
)
_FURTHER = (
    "#56B4E9", "#882255", "#999933", "#332288", "#AA4499", "#44AA99", "#661100", "#DDCC77", "#6699CC", "#117733",
    "#88CCEE", "#CC6677", "#8C6D31", "#777777",
)  # fmt: skip
_DASHES: Any = (
    "-",
    (0, (5, 1.5)),
    (0, (1, 1.2)),
    (0, (6, 1.5, 1, 1.5)),
    (0, (3, 1, 1, 1, 1, 1)),
    (0, (9, 3)),
)  # Any: matplotlib's type of it is a union of dozens
_DENSITIES = 61
_LEAST_DENSITY = 1e-4
_UPLINKS = (1e4, 1e10)


def draw_plan(plan: Plan, path: Path) -> None:
    """Draw an answer and save the figure; the ending (`.png`, `.svg`, `.pdf`) decides the format.

    Colours are methods, line styles are codecs.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  # an optional extra; Figure needs no display
        from matplotlib.layout_engine import ConstrainedLayoutEngine  # noqa: PLC0415
        from matplotlib.lines import Line2D  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(12, 5), layout=ConstrainedLayoutEngine(wspace=0.05))
    left, right = figure.subplots(1, 2)
    codecs = tuple(dict.fromkeys(line.codec for line in plan.lines))
    dashes = {codec: _DASHES[place % len(_DASHES)] for place, codec in enumerate(codecs)}
    in_right = _fastest(plan)
    for line in plan.lines:
        style = {"color": colour_of(line.algorithm), "linestyle": dashes[line.codec], "linewidth": 1.6}
        _draw_bytes(left, plan, line, style)
        if line in in_right:
            _draw_time(right, line, style)
    _finish_bytes(left, plan)
    _finish_time(right, plan)
    names = tuple(dict.fromkeys(line.algorithm for line in plan.lines))
    handles = [Line2D([], [], color=colour_of(name), linewidth=2.5, label=name) for name in names]
    handles += [
        Line2D([], [], color="#555555", linestyle=dashes[codec], linewidth=1.6, label=codec)
        for codec in codecs
    ]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=8, frameon=False, fontsize=9, handlelength=3.2
    )
    figure.savefig(path, dpi=200)


def colour_of(algorithm: str) -> str:
    """Return the colour of a row of `ALGORITHMS`."""
    others = [name for name in ALGORITHMS if name not in _COLOURS]
    return _COLOURS.get(algorithm) or _FURTHER[others.index(algorithm) % len(_FURTHER)]


def _fastest(plan: Plan) -> list[Line]:
    """Return each method in the codec that is fastest at the uplink, and the baseline: more lines cannot be told apart."""
    chosen: dict[str, Line] = {}
    for line in sorted(plan.lines, key=lambda line: line.upload_seconds + line.work.total):
        chosen.setdefault(line.algorithm, line)
    return [*chosen.values(), *(line for line in plan.lines if line.break_even is None)]


def _draw_bytes(axes: Axes, plan: Plan, line: Line, style: dict[str, Any]) -> None:
    least = max(_LEAST_DENSITY, 1 / plan.dim)
    densities = np.geomspace(min(least, plan.config.density), 1, _DENSITIES)
    config = plan.config
    shares = value_shares(line.algorithm, line.codec, plan.dim, config.density, config.rounds)
    known: dict[str, Any] = {"num_buffers": plan.num_buffers, "rounds": config.rounds, "shares": shares}
    sizes = [
        predicted_bytes(line.algorithm, line.codec, plan.dim, float(density), **known)
        for density in densities
    ]
    axes.plot(densities, sizes, **style)


def _draw_time(axes: Axes, line: Line, style: dict[str, Any]) -> None:
    uplinks = np.geomspace(*_UPLINKS, _DENSITIES)
    axes.plot(uplinks, line.work.total + 8 * line.upload_bytes / uplinks, **style)


def _finish_bytes(axes: Axes, plan: Plan) -> None:
    uplink = float(parse(plan.config.uplink, RATE) or 1)
    _log_axes(axes, lambda value: f"{value:g}", show_bytes)
    _mark(axes, plan.config.density, f"density {plan.config.density:g}")
    axes.set_title(f"{plan.dim:,} parameters, masks without structure", fontsize=9)
    axes.set_xlabel("density (kept fraction of the positions)")
    axes.set_ylabel("one upload")

    def to_seconds(size: Any) -> Any:
        return 8 * size / uplink

    def to_bytes(seconds: Any) -> Any:
        return seconds * uplink / 8

    seconds = axes.secondary_yaxis("right", functions=(to_seconds, to_bytes))
    _label(seconds.yaxis, show_seconds)
    seconds.set_ylabel(f"sending it at {plan.config.uplink}")


def _finish_time(axes: Axes, plan: Plan) -> None:
    _log_axes(axes, show_prefix, show_seconds)
    _mark(axes, float(parse(plan.config.uplink, RATE) or 1), f"uplink {plan.config.uplink}")
    axes.set_xlabel("uplink (bit/s)")
    axes.set_ylabel(f"work and sending, one upload at density {plan.config.density:g}")
    axes.set_title("each method in its fastest codec; and dense float32", fontsize=9)


def _log_axes(axes: Axes, show_x: Callable[[float], str], show_y: Callable[[float], str]) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    _label(axes.xaxis, show_x)
    _label(axes.yaxis, show_y)
    axes.grid(visible=True, color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _label(axis: Axis, show: Callable[[float], str]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415  # as in draw_plan

    axis.set_major_locator(LogLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: show(value)))
    axis.set_minor_formatter(NullFormatter())


def _mark(axes: Axes, place: float, text: str) -> None:
    axes.axvline(place, color="#888888", linewidth=1, linestyle=(0, (1, 2)), zorder=0)
    axes.annotate(
        text,
        (place, 1),
        (4, -2),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        va="top",
        fontsize=8,
        color="#666666",
    )
