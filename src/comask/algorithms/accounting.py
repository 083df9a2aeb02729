"""Uplink bits of one device in one round by the paper's accounting: formulas, reported beside measured bytes.

q is the width of a number, 32 bits; an index costs ceil(log2 d) bits; a mask costs whichever is smaller of a list of
indices and a bitmap. Headers, checksums and buffers are outside these formulas. Each formula is a value that is called
with d, so that algorithms which hold one can be compared and sent.
"""

from __future__ import annotations

from dataclasses import dataclass

from comask.masks import num_kept

NUMBER_BITS = 32


def index_bits(dim: int) -> int:
    """Bits of one index into `dim` positions: ceil(log2 d)."""
    return (dim - 1).bit_length()


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
