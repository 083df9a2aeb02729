"""CIFAR-10: 60,000 colour images of 32x32 in ten classes.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", technical report, University of Toronto, 2009.
The authors state no licence; they ask for that citation.

Read from the publisher's *binary* version (the Python version is a pickle), unpacked or not, or from a reassembled copy
whose pixels are stored as differences (`cifar10_train.npz`, `cifar10_test.npz`) and of which 93 images are approximate.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from comask.data.dataset import Dataset
from comask.data.files import channel_statistics, check_array, check_file, read_npz
from comask.data.places import Download

TRAIN_FILES = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST_FILES = ("test_batch.bin",)
ROWS = 10_000
"""Images in each of the six files: one byte of label and 3,072 of pixels each, channel by channel, row by row."""

ARCHIVE = "cifar-10-binary.tar.gz"
ARCHIVE_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
ARCHIVE_FOLDER = "cifar-10-batches-bin"
DOWNLOADS = (Download(f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}", ARCHIVE, f"md5:{ARCHIVE_MD5}"),)

# Part: sha256 of its labels in the published order. There is no published sum of the single binary files.
LABELS_SHA256 = {
    "train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}

# Part of the reassembled copy: file, bytes, sha256.
REASSEMBLED = {
    "train": (
        "cifar10_train.npz",
        101952190,
        "f7e14ed4c565b90a96ac2a7a0a662e33d46b4e8aa3c2457a7f13322c8f724c75",
    ),
    "test": (
        "cifar10_test.npz",
        20392127,
        "f2223d14f50bc9ab2fc549591b3b5d0909767a25fe8103ff69af83cf7b95f74f",
    ),
}
REASSEMBLED_NOTE = "CIFAR-10 (reassembled; 93 of 60,000 images JPEG-approximate)"

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def read_cifar10(folder: Path) -> Dataset | None:
    """Read the first of these that the folder has: the binary files, their archive, the reassembled copy; else None.

    Raises:
        DamagedDataError: If a file is there and is not the published one.
    """
    if all((folder / name).is_file() for name in (*TRAIN_FILES, *TEST_FILES)):
        return _from_batches(lambda name: _read_file(folder / name))
    if (folder / ARCHIVE).is_file():
        return _from_archive(folder / ARCHIVE)
    if all((folder / name).is_file() for name, _, _ in REASSEMBLED.values()):
        return _as_dataset(
            _undo_differences(folder, "train"), _undo_differences(folder, "test"), REASSEMBLED_NOTE
        )
    return None


def _read_file(path: Path) -> bytes:
    check_file(path, size=ROWS * 3073)
    return path.read_bytes()


def _from_archive(path: Path) -> Dataset:
    check_file(path, md5=ARCHIVE_MD5)
    with tarfile.open(path, "r:gz") as archive:

        def read(name: str) -> bytes:
            member = archive.extractfile(f"{ARCHIVE_FOLDER}/{name}")
            assert member is not None  # the archive's sum was checked, so it holds these files
            return member.read(ROWS * 3073)

        return _from_batches(read)


def _from_batches(read: Callable[[str], bytes]) -> Dataset:
    parts: dict[str, Part] = {}
    for part, names in (("train", TRAIN_FILES), ("test", TEST_FILES)):
        records = np.frombuffer(b"".join(map(read, names)), np.uint8).reshape(-1, 3073)
        labels = records[:, 0].copy()
        check_array(
            f"The labels of CIFAR-10's {part} files",
            labels,
            shape=(len(names) * ROWS,),
            sha256=LABELS_SHA256[part],
        )
        parts[part] = (records[:, 1:].copy().reshape(-1, 3, 32, 32), labels)
    return _as_dataset(parts["train"], parts["test"])


def _undo_differences(folder: Path, part: str) -> Part:
    name, size, sha256 = REASSEMBLED[part]
    check_file(folder / name, size=size, sha256=sha256)
    deltas, labels = read_npz(folder / name, ("delta", "labels"))
    # Each pixel is stored less its left neighbour, and red and blue less green, all modulo 256.
    images = np.cumsum(deltas, axis=-1, dtype=np.uint8)
    images[:, 0] += images[:, 1]
    images[:, 2] += images[:, 1]
    return images, labels


def _as_dataset(train: Part, test: Part, note: str = "") -> Dataset:
    mean, std = channel_statistics(train[0])
    return Dataset(
        name="cifar10",
        task="image",
        train_inputs=train[0],
        train_targets=train[1],
        test_inputs=test[0],
        test_targets=test[1],
        num_classes=10,
        mean=mean,
        std=std,
        note=note,
    )
