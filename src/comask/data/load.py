"""`load_dataset`: a data set by name, from the first place that has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from comask.data import cifar10, fashion_mnist, shakespeare, svhn
from comask.data.dataset import Dataset
from comask.data.places import VARIABLE, Download, Place, cache_folder, fetch, places
from comask.errors import DataNotFoundError, MissingExtraError, UnknownNameError


@dataclass(frozen=True, slots=True)
class Source:
    """How one data set is found and read.

    Attributes:
        read: Reads it from a folder; returns None when the folder lacks its files and raises `DamagedDataError` when
            they are there and wrong.
        files: The files that would do, in words, for the error message.
        subfolders: Folders, below the given ones, that the files usually come in.
        system: Absolute folders in which distributions install it.
        downloads: What to fetch when it is nowhere, all files.
        hint: One more way to get it, or an empty string.
    """

    read: Callable[[Path], Dataset | None]
    files: str
    subfolders: tuple[str, ...] = ()
    system: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    hint: str = ""


SOURCES: Mapping[str, Source] = MappingProxyType(
    {
        "fashion-mnist": Source(
            read=fashion_mnist.read_fashion_mnist,
            files="the four IDX files (train-images-idx3-ubyte, ... with or without .gz)",
            subfolders=("FashionMNIST/raw",),
            system=("/usr/share/datasets/fashion-mnist", "/usr/local/share/datasets/fashion-mnist"),
            downloads=fashion_mnist.DOWNLOADS,
            hint="On Debian and Ubuntu: apt-get install dataset-fashion-mnist.",
        ),
        "cifar10": Source(
            read=cifar10.read_cifar10,
            files=f"the six .bin files, {cifar10.ARCHIVE} or cifar10_train.npz with cifar10_test.npz",
            subfolders=(cifar10.ARCHIVE_FOLDER,),
            downloads=cifar10.DOWNLOADS,
        ),
        "svhn": Source(
            read=svhn.read_svhn,
            files=f"train_32x32.mat with test_32x32.mat, or {svhn.HEAD_FILE}",
            downloads=svhn.DOWNLOADS,
        ),
        "shakespeare": Source(
            read=shakespeare.read_shakespeare,
            files=f"{shakespeare.TEXT_FILE} or {shakespeare.SPEAKERS_FILE}",
            downloads=shakespeare.DOWNLOADS,
        ),
    }
)

DATASETS: tuple[str, ...] = ("fashion-mnist-mini", *SOURCES)
"""Every name that `load_dataset` knows."""


def load_dataset(name: str, *, root: str | Path | None = None, download: bool = True) -> Dataset:
    """Load a data set.

    `fashion-mnist-mini` is inside the package. The others are looked for in `root`, in the folder that the environment
    variable `COMASK_DATA` names, in the usual system folders and in the cache (`$XDG_CACHE_HOME/comask`, by default
    `~/.cache/comask`); then they are downloaded into the cache. Whatever is read is checked against known sums.

    Args:
        name: One of `DATASETS`.
        root: A folder to look in first.
        download: Whether the network may be used when no folder has the data.

    Raises:
        UnknownNameError: If there is no data set of that name.
        DataNotFoundError: If it is in none of the places; the message lists each of them and what to do.
        DamagedDataError: If a file was found that is not what it should be.
    """
    if name not in DATASETS:
        raise UnknownNameError("data set", name, DATASETS)
    if name == "fashion-mnist-mini":
        return fashion_mnist.read_fashion_mnist_mini()
    source = SOURCES[name]
    tried = places(name, root, subfolders=source.subfolders, system=source.system)
    for place in tried:
        dataset = source.read(place.folder)
        if dataset is not None:
            return dataset
    problem = _download(name, source) if download else "not tried: download=False"
    dataset = None if problem else source.read(cache_folder() / name)
    if dataset is None:
        raise DataNotFoundError(_not_found(name, source, tried, problem))
    return dataset


def _download(name: str, source: Source) -> str:
    """Fetch every file into the cache; return what went wrong, or an empty string."""
    for item in source.downloads:
        try:
            fetch(item, cache_folder() / name)
        except (OSError, ValueError, MissingExtraError) as error:
            return f"{item.url}: {error}"
    return ""


def _not_found(name: str, source: Source, tried: tuple[Place, ...], problem: str) -> str:
    lines = [f"Data set {name!r} was not found. Looked for {source.files} in:"]
    lines += [f"  {place.origin}: {place.folder}" for place in tried]
    lines += [f"  download: {problem}"]
    lines += [
        f"Put the files into one of these folders, or set {VARIABLE} to the folder that holds them. {source.hint}"
    ]
    return "\n".join(lines).rstrip()
