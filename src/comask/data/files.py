"""Reading data files that come from anywhere: bounded, checked against known sums, and never through pickle."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from comask.errors import DamagedDataError

_CHUNK = 1 << 20


def check_file(
    path: Path, *, size: int | None = None, sha256: str | None = None, md5: str | None = None
) -> None:
    """Check a file's size and sum before anything in it is parsed.

    Args:
        path: The file.
        size: Bytes it must have.
        sha256: Its sum in hexadecimal.
        md5: Likewise; for the files whose publishers give nothing better.

    Raises:
        DamagedDataError: If the file differs; the message names it, what was found and what it must be.
    """
    found_size = path.stat().st_size
    if size is not None and found_size != size:
        raise DamagedDataError(
            f"{path} has {found_size} bytes; it must have {size}. Delete it and fetch it again."
        )
    for algorithm, expected in (("sha256", sha256), ("md5", md5)):
        if expected is None:
            continue
        digest = hashlib.new(algorithm, usedforsecurity=False)
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != expected:
            raise DamagedDataError(
                f"{path} has {algorithm} {digest.hexdigest()}; it must be {expected}. Delete it and fetch it again."
            )


def check_array(
    what: str, array: NDArray[np.uint8], *, shape: tuple[int, ...], sha256: str | None = None
) -> None:
    """Check an array's shape, type and, where it is known, the sum of its bytes in C order.

    Raises:
        DamagedDataError: If it differs.
    """
    if array.shape != shape or array.dtype != np.uint8:
        raise DamagedDataError(f"{what} is {array.dtype} {array.shape}; it must be uint8 {shape}.")
    if sha256 is not None:
        found = hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
        if found != sha256:
            raise DamagedDataError(f"{what} has sha256 {found}; it must be {sha256}.")


def read_idx(path: Path, *, shape: tuple[int, ...], sha256: str) -> NDArray[np.uint8]:
    """Read one IDX file of bytes (the format of MNIST and its relatives), as it is or gzipped.

    At most one byte more than the expected length is ever unpacked, so a gzip bomb costs nothing.

    Args:
        path: The file; gzipped when its name ends in `.gz`.
        shape: The shape its header must give.
        sha256: The sum of the whole unpacked file. The sum of the `.gz` says little: packagers rewrite its header.

    Returns:
        An array of that shape.

    Raises:
        DamagedDataError: If the file is not that array.
    """
    header = bytes((0, 0, 8, len(shape))) + np.array(shape, ">u4").tobytes()
    size = len(header) + int(np.prod(shape))
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            data = file.read(size + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DamagedDataError(
            f"{path} is not a whole gzip file ({error}). Delete it and fetch it again."
        ) from error
    if not data.startswith(header) or len(data) != size:
        raise DamagedDataError(f"{path} is not an IDX file of {size} bytes that holds uint8 {shape}.")
    found = hashlib.sha256(data).hexdigest()
    if found != sha256:
        raise DamagedDataError(
            f"{path} has sha256 {found} unpacked; it must be {sha256}. Delete it and fetch it again."
        )
    return (
        np.frombuffer(data, np.uint8, offset=len(header)).reshape(shape).copy()
    )  # torch warns of read-only arrays


def read_npz(file: Path | IO[bytes], names: tuple[str, ...]) -> tuple[NDArray[Any], ...]:
    """Read named arrays of one `.npz`, pickle refused. Check the file's sum first when it is not the package's own."""
    with np.load(file, allow_pickle=False) as arrays:
        return tuple(arrays[name] for name in names)


def channel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel of pixels scaled to 0..1.

    Sums are taken in whole numbers, so the result does not depend on the order of addition.

    Args:
        images: Shape `(n, channels, height, width)`.
    """
    num_channels = images.shape[1]
    totals = np.zeros(num_channels, np.uint64)
    squares = np.zeros(num_channels, np.uint64)
    for start in range(0, len(images), 1000):
        block = images[start : start + 1000].astype(np.uint32)
        totals += block.sum(axis=(0, 2, 3), dtype=np.uint64)
        squares += (block * block).sum(axis=(0, 2, 3), dtype=np.uint64)
    count = images.size // num_channels
    mean = totals / count
    variance = squares / count - mean**2
    return tuple((mean / 255).tolist()), tuple((np.sqrt(variance) / 255).tolist())
