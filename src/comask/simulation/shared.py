"""Memory that several processes map, and that nobody has to clean up."""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Callable
from multiprocessing import reduction
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray


class SharedBuffer:
    """Anonymous shared memory that can grow.

    It has a file descriptor and no name: when the last process that holds it ends, by whatever signal, it is gone. (Named
    segments survive a kill -9, and /dev/shm is often too small for a data set.) It travels to a spawned process as an
    argument; each process maps it for itself.

    Args:
        size: Bytes at first.
    """

    def __init__(self, size: int = 0) -> None:
        self._fd = _anonymous_file()
        self._map: mmap.mmap | None = None
        self.view(size)

    def view(self, size: int) -> memoryview:
        """Return the first `size` bytes, growing the buffer for all processes if needed."""
        if size == 0:
            return memoryview(b"")
        if self._map is None or len(self._map) < size:
            if os.fstat(self._fd).st_size < size:
                os.ftruncate(self._fd, size)
            # The old mapping lives on until its last view is dropped.
            self._map = mmap.mmap(self._fd, os.fstat(self._fd).st_size)
        return memoryview(self._map)[:size]

    def write(self, data: bytes) -> int:
        """Overwrite the first bytes and return how many."""
        if data:
            self.view(len(data))[:] = data
        return len(data)

    def close(self) -> None:
        """Give up this process's descriptor; views stay valid until they are dropped."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self._map = None

    def __reduce__(self) -> tuple[Callable[..., SharedBuffer], tuple[Any, ...]]:
        return _attach, (cast("Any", reduction).DupFd(self._fd),)


def _attach(descriptor: Any) -> SharedBuffer:
    buffer = SharedBuffer.__new__(SharedBuffer)
    buffer._fd = descriptor.detach()  # noqa: SLF001 -- the class's own second constructor
    buffer._map = None  # noqa: SLF001
    return buffer


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("comask")
    with tempfile.TemporaryFile() as file:  # already without a name on the other Unixes
        return os.dup(file.fileno())


class SharedArray:
    """A read-only numpy array in a `SharedBuffer`.

    Args:
        array: Copied once, into memory that every worker maps.
    """

    def __init__(self, array: NDArray[Any]) -> None:
        self._dtype, self._shape, self._size = array.dtype.str, array.shape, array.nbytes
        self._buffer = SharedBuffer(array.nbytes)
        if array.nbytes:
            np.frombuffer(self._buffer.view(array.nbytes), array.dtype).reshape(array.shape)[...] = array

    def array(self) -> NDArray[Any]:
        """Map the array in this process: no copy."""
        return np.frombuffer(self._buffer.view(self._size), self._dtype).reshape(self._shape)

    def close(self) -> None:
        """Give up this process's descriptor."""
        self._buffer.close()
