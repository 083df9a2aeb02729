"""Selectors that also round: sign with scale, ternary, and top-k in chunks.

They put the values on the lattice that the method prescribes, so that the coding which writes them (one bit a value and
a scale) has nothing left to lose. What rounding drops is the business of error feedback.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError
from comask.masks import mask_rule, num_kept, select
from comask.wire.update import Block, ParamLayout

Norm = Literal["l1", "l2"]
"""The scale of a sign: `l1` is the mean magnitude, which leaves the least squared error; `l2` the root mean square."""

_NORMS: tuple[Norm, ...] = ("l1", "l2")


def scaled_sign(values: NDArray[np.float32], norm: Norm = "l1") -> NDArray[np.float32]:
    """Return `scale * sign(values)`, where the sign of zero is +1, in the shape of `values`.

    Args:
        values: Any shape, finite.
        norm: `l1`: scale = ||x||_1 / d. `l2`: scale = ||x||_2 / sqrt(d). Zero if there are no values.
    """
    wide = values.astype(np.float64)
    power = np.abs(wide) if norm == "l1" else wide**2
    mean = power.mean() if wide.size else 0.0
    scale = np.float32(mean if norm == "l1" else np.sqrt(mean))
    return np.where(values < 0, -scale, scale).astype(np.float32)


@dataclass(frozen=True, slots=True)
class ScaledSign:
    """A selector: every position, by its sign and one scale for the whole stream.

    Attributes:
        norm: How the scale is made.
    """

    norm: Norm = "l1"

    def __post_init__(self) -> None:
        if self.norm not in _NORMS:
            raise ConfigError(f"norm must be one of {', '.join(_NORMS)}, got {self.norm!r}.")

    def __call__(self, delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:  # noqa: ARG002 -- a Selector
        """Return one dense block."""
        return (Block(None, np.stack([scaled_sign(row, self.norm) for row in delta])),)


@dataclass(frozen=True, slots=True)
class Ternary:
    """A selector: the top-k of |x| over the whole vector, each as `mu * sign(x)` with mu the mean of the k magnitudes.

    Attributes:
        density: Fraction kept, in [0, 1].
    """

    density: float

    def __post_init__(self) -> None:
        num_kept(self.density, 1)  # raises if the density is not allowed

    def __call__(self, delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:  # noqa: ARG002 -- a Selector
        """Return one block a stream."""
        blocks = []
        for row in delta:
            indices = select(mask_rule("w"), row[None], self.density)
            blocks.append(Block(indices, scaled_sign(row[indices], "l1")[None]))
        return tuple(blocks)


@dataclass(frozen=True, slots=True)
class ChunkTopK:
    """A selector: the top-k of |x| within each run of `chunk` positions, so that no part of the vector starves.

    Attributes:
        density: Fraction kept of each chunk, in [0, 1].
        chunk: Positions a chunk, at least 1; the last chunk may be shorter.
    """

    density: float
    chunk: int = 4096

    def __post_init__(self) -> None:
        num_kept(self.density, 1)  # raises if the density is not allowed
        if self.chunk < 1:
            raise ConfigError(f"chunk must be at least 1, got {self.chunk!r}.")

    def __call__(self, delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:
        """Return one block of all streams; the first stream's magnitudes decide."""
        indices = select(mask_rule("w"), delta, self.density, _chunks(layout.dim, self.chunk))
        return (Block(indices, delta[:, indices]),)


@lru_cache(maxsize=4)
def _chunks(dim: int, chunk: int) -> ParamLayout:
    sizes = [min(chunk, dim - begin) for begin in range(0, dim, chunk)]
    return ParamLayout(tuple(map(str, range(len(sizes)))), tuple((size,) for size in sizes))
