"""A federation as a table for the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from comask.data.dataset import Federation
from comask.data.partition import class_table
from comask.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.table import Table

_MAX_COLUMNS = 20
"""With more labels than this, a row shows their number instead of one column each."""


def partition_table(federation: Federation, *, max_clients: int | None = None) -> Table:
    """Return a rich table with one row a client: its samples, and how many it has of each label.

    Args:
        federation: What to show. With more than 20 labels (speakers of a text), the columns give the number of labels a
            client has and the share of its most frequent one instead.
        max_clients: Show only so many clients, the first ones; None shows all. The totals are of all clients.

    Raises:
        MissingExtraError: If rich is not installed.
    """
    try:
        from rich.table import Table  # noqa: PLC0415  # an optional extra, and only needed here
    except ImportError as error:
        raise MissingExtraError("rich", "train") from error
    counts = class_table(federation)
    sizes = counts.sum(axis=1)
    dataset = federation.dataset
    table = Table(
        title=f"{dataset.name}, {federation.partition}: {federation.num_clients} clients, {sizes.sum():,} samples",
        caption=dataset.note or None,
        show_footer=True,
    )
    wide = counts.shape[1] > _MAX_COLUMNS
    table.add_column("client", "all", justify="right")
    table.add_column("samples", f"{sizes.sum():,}", justify="right")
    if wide:
        table.add_column("labels", str(np.count_nonzero(counts.sum(axis=0))), justify="right")
        table.add_column("top share", justify="right")
    else:
        for label, total in enumerate(counts.sum(axis=0)):
            table.add_column(str(label), f"{total:,}", justify="right")
    shown = federation.num_clients if max_clients is None else min(max_clients, federation.num_clients)
    for client in range(shown):
        row, size = counts[client], sizes[client]
        cells = (
            [str(np.count_nonzero(row)), f"{row.max() / size:.0%}"]
            if wide
            else [f"{n:,}" if n else "·" for n in row]
        )
        table.add_row(str(client), f"{size:,}", *cells)
    if shown < federation.num_clients:
        table.add_row("…", *[""] * (len(table.columns) - 1))
    return table
