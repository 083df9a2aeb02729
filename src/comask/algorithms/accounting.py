"""Uplink bits of one device in one round by the paper's accounting: formulas, reported beside measured bytes.

q is the width of a number, 32 bits; an index costs ceil(log2 d) bits; a mask costs whichever is smaller of a list of
indices and a bitmap. Headers, checksums and buffers are outside these formulas.
"""

from __future__ import annotations

from comask.masks import num_kept

NUMBER_BITS = 32


def index_bits(dim: int) -> int:
    """Bits of one index into `dim` positions: ceil(log2 d)."""
    return (dim - 1).bit_length()


def dense_bits(dim: int, num_streams: int) -> int:
    """`s d q`: FedSGD with s = 1, FedAdam with s = 3."""
    return num_streams * dim * NUMBER_BITS


def separate_mask_bits(dim: int, density: float, num_streams: int = 3) -> int:
    """`min{s k (q + log2 d), s k q + s d}`: FedAdam-Top, with s = 3 masks of k = num_kept(density, d) positions."""
    k = num_kept(density, dim)
    return num_streams * k * NUMBER_BITS + num_streams * min(k * index_bits(dim), dim)


def shared_mask_bits(dim: int, density: float, num_streams: int = 3) -> int:
    """`min{k (s q + log2 d), s k q + d}`: FedAdam-SSM, with one mask of k = num_kept(density, d) for s = 3 streams."""
    k = num_kept(density, dim)
    return num_streams * k * NUMBER_BITS + min(k * index_bits(dim), dim)
