"""Checkpoints: one after every round, atomic, without pickle, and safe against a kill at any moment.

A folder holds arrays in `.npz` files that are written once and never changed, and `manifest.json`, which names the ones
that count. A new round writes new files, then replaces the manifest in one step, then deletes what no manifest names. So
whenever the process dies, the manifest that stands names whole files of one round.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.base import Memory, ServerState
from comask.errors import CheckpointError
from comask.files import UNREADABLE, read_arrays, write_arrays, write_whole
from comask.simulation.records import RoundRecord
from comask.state import ModelState

MANIFEST = "manifest.json"
_FORMAT = 1


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """Everything that continuing needs.

    Attributes:
        state: The server's state.
        memories: Each client's memory, by client.
        record: The record of the last completed round.
        identity: What the run is; a run with another identity must not continue from here.
        precision: The precision that the run settled on.
    """

    state: ServerState
    memories: Mapping[int, Memory]
    record: RoundRecord
    identity: Mapping[str, Any]
    precision: str


class CheckpointFolder:
    """Reads and writes the checkpoints of one run.

    Args:
        path: The folder; made on the first save.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._files: dict[int, str] = {}

    def exists(self) -> bool:
        """Tell whether a complete checkpoint is there."""
        return (self.path / MANIFEST).is_file()

    def save(self, checkpoint: Checkpoint, changed: Mapping[int, Memory]) -> None:
        """Write a checkpoint; of the clients' memories, only those in `changed` are written anew.

        Raises:
            CheckpointError: If the folder cannot be written.
        """
        round_number = checkpoint.state.round
        try:
            state_file = f"state-{round_number:06d}.npz"
            write_arrays(self.path / state_file, _pack_state(checkpoint.state), sync_folder=False)
            for client, memory in changed.items():
                self._files.pop(client, None)
                if memory:
                    self._files[client] = f"client-{client:06d}-{round_number:06d}.npz"
                    write_arrays(self.path / self._files[client], memory, sync_folder=False)
            manifest = {
                "format": _FORMAT,
                "round": round_number,
                "state": state_file,
                "clients": {str(client): name for client, name in sorted(self._files.items())},
                "record": checkpoint.record.to_json(),
                "identity": checkpoint.identity,
                "precision": checkpoint.precision,
            }
            content = json.dumps(manifest, indent=1).encode()
            write_whole(self.path / MANIFEST, lambda file: file.write(content))
            self._remove_stale({MANIFEST, state_file, *self._files.values()})
        except OSError as error:
            raise CheckpointError(f"The checkpoint folder {self.path} cannot be written: {error}") from error

    def load(self) -> Checkpoint:
        """Read the checkpoint that stands.

        Raises:
            CheckpointError: If it is missing, damaged or of another format version.
        """
        try:
            manifest = json.loads((self.path / MANIFEST).read_bytes())
            if manifest["format"] != _FORMAT:
                raise CheckpointError(
                    f"{self.path} has checkpoint format {manifest['format']!r}; this version reads {_FORMAT}."
                )
            files = {int(client): _plain_name(name) for client, name in manifest["clients"].items()}
            checkpoint = Checkpoint(
                state=_unpack_state(
                    self._read_arrays(_plain_name(manifest["state"])), int(manifest["round"])
                ),
                memories={client: self._read_arrays(name) for client, name in files.items()},
                record=RoundRecord.from_json(manifest["record"]),
                identity=manifest["identity"],
                precision=str(manifest["precision"]),
            )
        except (*UNREADABLE, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"The checkpoint in {self.path} is damaged: {type(error).__name__}: {error}"
            ) from error
        self._files = files
        return checkpoint

    def _read_arrays(self, name: str) -> dict[str, NDArray[np.float32]]:
        arrays = read_arrays(self.path / name)
        for key, array in arrays.items():
            if array.dtype != np.float32:
                raise CheckpointError(
                    f"{self.path / name}: array {key!r} must be float32, got {array.dtype}."
                )
        return arrays

    def _remove_stale(self, current: set[str]) -> None:
        for file in self.path.iterdir():
            if file.name not in current and file.name.endswith((".npz", ".tmp")):
                file.unlink()


def _pack_state(state: ServerState) -> dict[str, NDArray[np.float32]]:
    return {
        "streams": state.model.streams,
        "buffers": state.model.buffers,
        **{f"memory.{name}": array for name, array in state.memory.items()},
    }


def _unpack_state(arrays: Mapping[str, NDArray[np.float32]], round_number: int) -> ServerState:
    prefix = "memory."
    memory = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return ServerState(ModelState(arrays["streams"], arrays["buffers"]), round_number, memory)


def _plain_name(name: str) -> str:
    """Refuse names that would lead out of the folder: a checkpoint may come from somebody else."""
    if name != Path(name).name:
        raise CheckpointError(f"The manifest names the file {name!r}; it must be a plain file name.")
    return name


def describe(value: Any) -> Any:
    """Turn a value made of dataclasses, functions and plain data into plain data that is equal exactly when it is.

    `repr` would do, were it not for the memory addresses it gives functions.
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {"": type(value).__qualname__} | {
            f.name: describe(getattr(value, f.name)) for f in fields(value)
        }
    if isinstance(value, partial):
        return {"": describe(value.func), "args": describe(value.args), **describe(value.keywords)}
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [describe(item) for item in value]
    if callable(value):
        return f"{value.__module__}.{value.__qualname__}"
    return value
