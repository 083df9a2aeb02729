"""What a client keeps between rounds, in files of its own: its memory (residuals) and the last broadcast.

Flower's `Context.state` is not used for either: in a deployment a large one is lost without a word, and a change to it
survives or not depending on how the round ends.

A memory is written under the number of the round that made it, beside the one before. Which of the two counts is the
server's to say: an order names the last round whose upload it added. So a residual takes effect only once its upload has
been acknowledged, and a server that fell back to its checkpoint finds its clients where the checkpoint left them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.base import Memory
from comask.errors import FleetError
from comask.files import UNREADABLE, read_arrays, write_arrays

_RUN = re.compile(r"[0-9a-f]{32}")
_MODEL = "model"


def default_folder() -> Path:
    """Return where clients keep their files unless told otherwise: `$XDG_STATE_HOME/comask`, or `~/.local/state/comask`."""
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "comask"


class ClientStore:
    """The files of one client in one run.

    Args:
        folder: Where all clients of this machine keep theirs.
        run: The run's token.
        client: The client's number.

    Raises:
        FleetError: If the token is not one: it names a folder, and comes from the network.
    """

    def __init__(self, folder: Path, run: str, client: int) -> None:
        if not _RUN.fullmatch(run):
            raise FleetError(f"A run's token must be 32 hexadecimal digits, got {run!r:.100}.")
        self.path = folder / run / f"client-{client:06d}"

    def memory(self, accepted: int) -> tuple[Memory, bool]:
        """Return the memory that counts, and whether it was lost.

        Args:
            accepted: The last round whose upload the server added; 0: none. Memories of other rounds are deleted: their
                uploads were not added, or have been followed by one that was.
        """
        current = self._file("memory", accepted)
        for file in self.path.glob("memory-*.npz"):
            if file != current:
                file.unlink(missing_ok=True)
        if not accepted:
            return {}, False
        try:
            arrays = read_arrays(current)
        except UNREADABLE:
            return {}, True
        if any(array.dtype != np.float32 for array in arrays.values()):
            return {}, True
        return arrays, False

    def save_memory(self, round_number: int, memory: Memory) -> None:
        """Keep the memory of a round whose upload is about to be sent; one without arrays is kept too."""
        write_arrays(self._file("memory", round_number), memory)

    def model(self, round_number: int) -> NDArray[np.float32] | None:
        """Return the kept broadcast of that round, shape `(s, d)`, or None if it is not there or damaged."""
        try:
            streams = read_arrays(self._file(_MODEL, round_number))["streams"]
        except UNREADABLE:
            return None
        return streams if streams.ndim == 2 and streams.dtype == np.float32 else None

    def save_model(self, round_number: int, streams: NDArray[np.float32]) -> None:
        """Keep a broadcast in place of any other."""
        kept = self._file(_MODEL, round_number)
        write_arrays(kept, {"streams": streams})
        for file in self.path.glob(f"{_MODEL}-*.npz"):
            if file != kept:
                file.unlink(missing_ok=True)

    def _file(self, kind: str, round_number: int) -> Path:
        return self.path / f"{kind}-{round_number:06d}.npz"
