"""Uplink bits of one device in one round by the paper's accounting: formulas, reported beside measured bytes.

q is the width of a number, 32 bits; an index costs ceil(log2 d) bits; a mask costs whichever is smaller of a list of
indices and a bitmap. Headers, checksums and buffers are outside these formulas. Each formula is a value that is called
with d, so that algorithms which hold one can be compared and sent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from comask.masks import num_kept
from comask.wire.values import VALUE_CODINGS

NUMBER_BITS = 32


def index_bits(dim: int) -> int:
    """Bits of one index into `dim` positions: ceil(log2 d)."""
    return (dim - 1).bit_length()


def golomb_bits(density: float) -> float:
    """Mean bits of one gap between kept positions, in the Golomb code of Sattler et al. (arXiv 1903.02891, equation 17).

    `b + 1 / (1 - (1 - p)^(2^b))` with `b = 1 + floor(log2(log(phi - 1) / log(1 - p)))`, phi the golden ratio; 0 at p = 0 and 1.
    """
    if not 0.0 < density < 1.0:
        return 0.0
    base = 1 + math.floor(math.log2(math.log((math.sqrt(5.0) - 1.0) / 2.0) / math.log1p(-density)))
    base = max(0, base)
    return base + 1.0 / (1.0 - math.pow(1.0 - density, 2**base))


@dataclass(frozen=True, slots=True)
class DenseBits:
    """`s d q`: FedSGD with s = 1 stream, FedAdam with s = 3."""

    num_streams: int

    def __call__(self, dim: int, round_number: int = 1) -> int:  # noqa: ARG002 -- the same in every round
        """Bits for a model of `dim` parameters."""
        return self.num_streams * dim * NUMBER_BITS


@dataclass(frozen=True, slots=True)
class SeparateMaskBits:
    """`min{s k (q + log2 d), s k q + s d}` with k = num_kept(density, d): FedAdam-Top, with s = 3 masks."""

    density: float
    num_streams: int = 3

    def __call__(self, dim: int, round_number: int = 1) -> int:  # noqa: ARG002 -- the same in every round
        """Bits for a model of `dim` parameters."""
        k = num_kept(self.density, dim)
        return self.num_streams * (k * NUMBER_BITS + min(k * index_bits(dim), dim))


@dataclass(frozen=True, slots=True)
class SharedMaskBits:
    """`min{k (s q + log2 d), s k q + d}` with k = num_kept(density, d): FedAdam-SSM, one mask for s = 3 streams."""

    density: float
    num_streams: int = 3

    def __call__(self, dim: int, round_number: int = 1) -> int:  # noqa: ARG002 -- the same in every round
        """Bits for a model of `dim` parameters."""
        k = num_kept(self.density, dim)
        return self.num_streams * k * NUMBER_BITS + min(k * index_bits(dim), dim)


@dataclass(frozen=True, slots=True)
class SignBits:
    """`d + n q`, and the scales: one bit a parameter, n numbers beside it, and what the `sign` coding takes for its scales.

    Papers count one scale, of q bits; the wire's coding keeps one for each block of values, 6 % more.
    """

    numbers: int = 0

    def __call__(self, dim: int, round_number: int = 1) -> int:  # noqa: ARG002 -- the same in every round
        """Bits for a model of `dim` parameters."""
        return 8 * VALUE_CODINGS["sign"].bounds(dim)[1] + self.numbers * NUMBER_BITS


@dataclass(frozen=True, slots=True)
class TernaryBits:
    """`k (1 + Golomb bits) + q` with k = num_kept(density, d): STC, positions by gaps, a sign each, and one magnitude."""

    density: float

    def __call__(self, dim: int, round_number: int = 1) -> int:  # noqa: ARG002 -- the same in every round
        """Bits for a model of `dim` parameters."""
        k = num_kept(self.density, dim)
        return math.ceil(k * (1.0 + golomb_bits(self.density))) + NUMBER_BITS


@dataclass(frozen=True, slots=True)
class CodedBits:
    """`k i` plus what the value codings take for k values of each stream, k = num_kept(density, d).

    Attributes:
        values: A value coding for each stream.
        density: Fraction kept.
        position_bits: Bits of one kept position, i; None: the Golomb code's.
    """

    values: tuple[str, ...]
    density: float = 1.0
    position_bits: int | None = None

    def __call__(self, dim: int, round_number: int = 1) -> int:  # noqa: ARG002 -- the same in every round
        """Bits for a model of `dim` parameters."""
        k = num_kept(self.density, dim)
        each = golomb_bits(self.density) if self.position_bits is None else self.position_bits
        return math.ceil(k * each) + sum(8 * VALUE_CODINGS[name].bounds(k)[1] for name in self.values)
