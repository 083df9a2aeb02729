"""What one party sends to another: pure data, free of torch."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError

MAX_DIM = 2**32
"""The wire format numbers positions with at most 32 bits per update in version 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The values of `s` streams at the same `k` positions.

    Attributes:
        indices: Shape `(k,)`, strictly increasing, below the update's dimension; `None` means every position.
        values: Shape `(s, k)`, one row a stream.
    """

    indices: NDArray[np.uint32] | None
    values: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.values.dtype != np.float32:
            raise ConfigError(
                f"Block.values must be a (streams, k) float32 array, got shape {self.values.shape} {self.values.dtype}."
            )
        if self.indices is not None and (
            self.indices.dtype != np.uint32 or self.indices.shape != self.values.shape[1:]
        ):
            raise ConfigError(
                f"Block.indices must be uint32 of shape ({self.values.shape[1]},) to match values {self.values.shape}, "
                f"got {self.indices.dtype} of shape {self.indices.shape}."
            )

    @property
    def num_streams(self) -> int:
        """How many streams share the positions."""
        return int(self.values.shape[0])

    @property
    def num_kept(self) -> int:
        """How many positions are kept, `k`."""
        return int(self.values.shape[1])


def _no_buffers() -> NDArray[np.float32]:
    return np.empty(0, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Update:
    """What one party sends: sparse or dense streams over one flat vector, and the buffers that are not trained.

    A shared mask is one block of three streams; three separate masks are three blocks of one stream each; a dense
    message is one block whose indices are `None`.

    Attributes:
        dim: Length of the flat vector that the blocks' positions refer to.
        blocks: The blocks, in the order of their streams.
        buffers: Shape `(b,)`, dense: statistics that are sent but not trained, such as batch norm's running mean.
        round: The round the update belongs to, counted from 1; 0 where there is none.
    """

    dim: int
    blocks: tuple[Block, ...]
    buffers: NDArray[np.float32] = field(default_factory=_no_buffers)
    round: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.dim <= MAX_DIM:
            raise ConfigError(f"Update.dim must be in 1..{MAX_DIM}, got {self.dim}.")
        if self.buffers.ndim != 1 or self.buffers.dtype != np.float32:
            raise ConfigError(
                f"Update.buffers must be a 1-D float32 array, got shape {self.buffers.shape} {self.buffers.dtype}."
            )
        for position, block in enumerate(self.blocks):
            if block.indices is None and block.num_kept != self.dim:
                raise ConfigError(
                    f"Block {position} is dense and must hold {self.dim} values a stream, got {block.num_kept}."
                )
            if block.num_kept > self.dim:
                raise ConfigError(
                    f"Block {position} keeps {block.num_kept} positions of a vector of {self.dim}."
                )

    @property
    def num_streams(self) -> int:
        """How many streams the blocks carry together."""
        return sum(block.num_streams for block in self.blocks)


@dataclass(frozen=True, slots=True)
class ParamLayout:
    """Where each named tensor lies in the flat vector: in order, without gaps.

    Attributes:
        names: The tensors' names, unique.
        shapes: Their shapes; `()` is a scalar.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.shapes) or len(set(self.names)) != len(self.names):
            raise ConfigError(
                f"ParamLayout needs one shape for each of its unique names, got {len(self.names)} names and {len(self.shapes)} shapes."
            )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of entries of each tensor."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def offsets(self) -> tuple[int, ...]:
        """First position of each tensor, and the end of the last: one longer than `names`."""
        offsets = [0]
        for size in self.sizes:
            offsets.append(offsets[-1] + size)
        return tuple(offsets)

    @property
    def dim(self) -> int:
        """Length of the flat vector."""
        return sum(self.sizes)

    @property
    def fingerprint(self) -> bytes:
        """Eight bytes that differ, for all practical purposes, whenever two layouts differ."""
        digest = hashlib.blake2b(digest_size=8, person=b"comask.layout")
        for name, shape in zip(self.names, self.shapes, strict=True):
            text = f"{name}\x00{','.join(map(str, shape))}\x01"
            digest.update(text.encode())
        return digest.digest()
