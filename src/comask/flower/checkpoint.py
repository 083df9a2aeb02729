"""The server's checkpoint: one file, replaced in one step after every round."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.base import ServerState
from comask.errors import CheckpointError
from comask.files import UNREADABLE, read_arrays, write_arrays
from comask.state import ModelState

_FORMAT = 1
_FILE = "server.npz"
_MEMORY = "memory."


@dataclass(frozen=True, slots=True, eq=False)
class ServerCheckpoint:
    """What the server needs to continue.

    Attributes:
        state: The state after the last completed round.
        run: The run's token.
        accepted: For each client, the last round in which its upload was added.
        clients: The nodes' numbers.
        identity: What the run is; a run with another identity must not continue from here.
    """

    state: ServerState
    run: str
    accepted: Mapping[int, int]
    clients: Mapping[int, int]
    identity: Mapping[str, Any]


def save(folder: Path, checkpoint: ServerCheckpoint) -> None:
    """Write the checkpoint in place of the one before.

    Raises:
        CheckpointError: If the folder cannot be written.
    """
    state = checkpoint.state
    about = {
        "format": _FORMAT,
        "round": state.round,
        "run": checkpoint.run,
        "accepted": sorted(checkpoint.accepted.items()),
        "clients": sorted(checkpoint.clients.items()),
        "identity": checkpoint.identity,
    }
    arrays: dict[str, NDArray[Any]] = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "streams": state.model.streams,
        "buffers": state.model.buffers,
        **{_MEMORY + name: array for name, array in state.memory.items()},
    }
    try:
        write_arrays(folder / _FILE, arrays)
    except OSError as error:
        raise CheckpointError(f"The checkpoint folder {folder} cannot be written: {error}") from error


def load(folder: Path, identity: Mapping[str, Any]) -> ServerCheckpoint | None:
    """Read the checkpoint; None if there is none.

    Raises:
        CheckpointError: If it is damaged, of another format version or of another run.
    """
    path = folder / _FILE
    if not path.exists():
        return None
    try:
        arrays = read_arrays(path)
        about = json.loads(arrays.pop("about").tobytes())
        if about["format"] != _FORMAT:
            raise CheckpointError(
                f"{path} has checkpoint format {about['format']!r}; this version reads {_FORMAT}."
            )
        for what, here in identity.items():
            if about["identity"].get(what) != here:
                raise CheckpointError(
                    f"{path} belongs to another run: its {what} is {about['identity'].get(what)!r}, this run's is {here!r}."
                )
        memory = {name.removeprefix(_MEMORY): a for name, a in arrays.items() if name.startswith(_MEMORY)}
        return ServerCheckpoint(
            state=ServerState(ModelState(arrays["streams"], arrays["buffers"]), int(about["round"]), memory),
            run=str(about["run"]),
            accepted={int(client): int(done) for client, done in about["accepted"]},
            clients={int(node): int(client) for node, client in about["clients"]},
            identity=about["identity"],
        )
    except (*UNREADABLE, TypeError, AttributeError) as error:
        raise CheckpointError(f"The checkpoint {path} is damaged: {type(error).__name__}: {error}") from error
