"""What a mask must cost, whoever codes it: section 9 of `docs/theory.md`."""

from __future__ import annotations

import math

from comask.errors import ConfigError


def _check(dim: int, num_kept: int) -> None:
    if dim < 1 or not 0 <= num_kept <= dim:
        raise ConfigError(
            f"num_kept must be in 0..dim and dim at least 1, got num_kept={num_kept}, dim={dim}."
        )


def binary_entropy(probability: float) -> float:
    """Return `H(p)` in bits: equation (43)."""
    if not 0 <= probability <= 1:
        raise ConfigError(f"probability must be in [0, 1], got {probability}.")
    rest = 1 - probability
    return -sum(p * math.log2(p) for p in (probability, rest) if p > 0)


def mask_entropy_bits(dim: int, num_kept: int) -> float:
    """Return `d H(k / d)`, the entropy of d independent positions: an upper bound on (42), by (43)."""
    _check(dim, num_kept)
    return dim * binary_entropy(num_kept / dim)


def mask_floor_bits(dim: int, num_kept: int) -> float:
    """Return `log2 C(d, k)`: no code that serves all masks alike needs less on average. Equation (42)."""
    _check(dim, num_kept)
    nats = math.lgamma(dim + 1) - math.lgamma(num_kept + 1) - math.lgamma(dim - num_kept + 1)
    return max(0.0, nats / math.log(2))


def payload_floor_bits(
    dim: int, num_kept: int, *, streams: int = 3, value_bits: float = 32, shared_mask: bool = True
) -> float:
    """Return the bits of `streams` sparse streams whose masks are uniform and whose values are not modelled: (43').

    Args:
        dim: Number of weights.
        num_kept: Positions kept in each stream.
        streams: How many streams are sent.
        value_bits: Bits a kept value.
        shared_mask: Whether one mask serves all streams (FedAdam-SSM) or each has its own (FedAdam-Top).
    """
    masks = 1 if shared_mask else streams
    return masks * mask_floor_bits(dim, num_kept) + streams * num_kept * value_bits
