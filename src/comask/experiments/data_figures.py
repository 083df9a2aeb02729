"""Who holds what, drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from comask.data.dataset import Federation
from comask.data.partition import class_table
from comask.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_STACK_LABELS = 20
"""With more labels than this, colours cannot be told apart, and dots are drawn instead of stacked bars."""
_DOT_AREA = 120.0
"""Of the dot that stands for the largest number, in square points."""


def draw_partition(federation: Federation, path: str | Path) -> None:
    """Draw each client's samples by label, and save the figure.

    Up to 20 labels: one stacked bar a client, its length the number of samples. More (the speakers of a text): plain bars
    when each client has a single label, otherwise a grid of dots, their area the number of samples.

    Args:
        federation: What to draw; readable up to some 200 clients.
        path: Where to save it; the ending (`.png`, `.svg`, `.pdf`) decides the format.

    Raises:
        MissingExtraError: If matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  # an optional extra; Figure needs no display
        from matplotlib.ticker import MaxNLocator  # noqa: PLC0415
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    counts = class_table(federation)
    num_clients, num_labels = counts.shape
    if num_labels > _STACK_LABELS and np.count_nonzero(counts) == num_clients:
        # Every client has a single label, so the label adds nothing to the number of samples.
        counts = counts.sum(axis=1, keepdims=True)
    stacked = counts.shape[1] <= _STACK_LABELS
    width = float(np.clip(3.5 + 0.11 * num_clients, 7, 16))
    figure = Figure(figsize=(width, 4.2 if stacked else 6.5), layout="constrained")
    axes = figure.add_subplot()
    if stacked:
        _draw_bars(axes, counts)
    else:
        _draw_dots(axes, counts)
    noun = "client" if num_clients == 1 else "clients"
    axes.set_title(
        f"{federation.dataset.name}, {federation.partition}: {num_clients} {noun}, {counts.sum():,} samples"
    )
    axes.set_xlabel("client")
    axes.set_xlim(-0.7, num_clients - 0.3)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)


def _draw_bars(axes: Axes, counts: NDArray[np.int64]) -> None:
    from matplotlib import colormaps  # noqa: PLC0415  # as above

    num_clients, num_labels = counts.shape
    colors = colormaps["tab10" if num_labels <= 10 else "tab20"](np.arange(num_labels))
    bottom = np.zeros(num_clients, np.int64)
    for label in range(num_labels):
        axes.bar(
            np.arange(num_clients),
            counts[:, label],
            0.85,
            bottom=bottom,
            color=colors[label],
            label=str(label),
        )
        bottom += counts[:, label]
    axes.set_ylabel("samples")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    if num_labels == 1:
        return
    handles, names = axes.get_legend_handles_labels()
    # Reversed, so that the legend reads in the order in which the bars are stacked.
    axes.legend(
        handles[::-1], names[::-1], title="class", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False
    )


def _draw_dots(axes: Axes, counts: NDArray[np.int64]) -> None:
    clients, labels = np.nonzero(counts)
    amounts = counts[clients, labels]
    largest = int(amounts.max(initial=1))
    axes.scatter(clients, labels, s=_DOT_AREA * amounts / largest, color="tab:blue", alpha=0.6, linewidths=0)
    for amount in sorted({max(1, largest // 16), max(1, largest // 4), largest}):
        axes.scatter(
            [], [], s=_DOT_AREA * amount / largest, color="tab:blue", linewidths=0, label=f"{amount:,}"
        )
    axes.set_ylabel("label")
    axes.set_ylim(-1.5, counts.shape[1] + 0.5)
    axes.legend(title="samples", loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
