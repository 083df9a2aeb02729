"""Where data sets are looked for, and how they are downloaded."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from comask.errors import MissingExtraError

VARIABLE = "COMASK_DATA"
"""Environment variable that names a folder of data sets."""


@dataclass(frozen=True, slots=True)
class Place:
    """One folder to look in.

    Attributes:
        origin: Who named it, for the error message: `"root"`, `"COMASK_DATA"`, `"system"` or `"cache"`.
        folder: The folder; it need not exist.
    """

    origin: str
    folder: Path


@dataclass(frozen=True, slots=True)
class Download:
    """One file on the network.

    Attributes:
        url: Where it is.
        file_name: What it is called in the cache.
        known_hash: Its published sum, `"md5:..."` or `"sha256:..."`.
    """

    url: str
    file_name: str
    known_hash: str


def cache_folder() -> Path:
    """Return the folder of downloads: `$XDG_CACHE_HOME/comask`, by default `~/.cache/comask`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "comask"


def places(
    name: str, root: str | Path | None, *, subfolders: tuple[str, ...], system: tuple[str, ...]
) -> tuple[Place, ...]:
    """List the folders in which a data set is looked for, in order, each once.

    Args:
        name: The data set's name; a folder of that name is looked into as well.
        root: The caller's folder, or None.
        subfolders: Further folders that the files usually come in, such as `"cifar-10-batches-bin"`.
        system: Absolute folders in which distributions install it.
    """
    bases = []
    if root is not None:
        bases.append(("root", Path(root).expanduser()))
    if os.environ.get(VARIABLE):
        bases.append((VARIABLE, Path(os.environ[VARIABLE]).expanduser()))
    found = [Place(origin, base / below) for origin, base in bases for below in ("", name, *subfolders)]
    found += [Place("system", Path(folder)) for folder in system]
    found += [Place("cache", cache_folder() / name)]
    return tuple({place.folder: place for place in reversed(found)}.values())[::-1]


def fetch(download: Download, folder: Path) -> None:
    """Download one file into a folder unless it is there; it appears whole and checked, or not at all.

    Raises:
        MissingExtraError: If pooch is not installed.
        OSError: If the network or the disk fails.
        ValueError: If what arrived does not have the known hash.
    """
    try:
        import pooch  # noqa: PLC0415  # an optional extra, and only needed here
    except ImportError as error:
        raise MissingExtraError("pooch", "train") from error
    pooch.retrieve(download.url, known_hash=download.known_hash, fname=download.file_name, path=folder)
