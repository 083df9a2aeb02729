"""Files that are whole or not there: written aside, flushed, renamed. Arrays are never pickled."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading a missing, damaged or hostile `.npz` file may raise."""


def write_whole(path: Path, fill: Callable[[BinaryIO], object], *, sync_folder: bool = True) -> None:
    """Write a file in one step: whenever the process dies, the old file or the new one stands.

    Args:
        path: The file; its folder is made if needed.
        fill: Writes the content.
        sync_folder: Wait until the file's new name is on the disk, too. One file that others depend on may do this for
            all that were written before it.

    Raises:
        OSError: If it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync_folder:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself must reach the disk
        finally:
            os.close(folder)


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], *, sync_folder: bool = True) -> None:
    """Write an `.npz` file as `write_whole` does.

    Raises:
        OSError: If it cannot be written.
    """
    write_whole(path, lambda file: np.savez(file, **arrays), sync_folder=sync_folder)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read an `.npz` file.

    Raises:
        OSError: Or another of `UNREADABLE`, if it is missing or damaged.
    """
    # Opened here: numpy leaves a file that turns out not to be an archive open.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        return {key: archive[key] for key in archive.files}
