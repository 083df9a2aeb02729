"""How much of a vector a mask keeps, and what error feedback then carries: section 6 of `docs/theory.md`."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from comask.errors import ConfigError
from comask.theory.constants import require_density


def top_k_energy(dim: int, num_kept: int) -> float:
    """Return the least share of `||x||^2` that the `num_kept` largest of `dim` entries hold: `k / d`, equation (26).

    Attained when all entries have the same size.
    """
    if not 1 <= num_kept <= dim:
        raise ConfigError(f"num_kept must be in 1..{dim}, got {num_kept}.")
    return num_kept / dim


def captured_energy(values: ArrayLike, num_kept: int) -> float:
    """Return the share of `||x||^2` that the largest entries of this vector do hold: the measured form of (26).

    Args:
        values: Shape `(d,)`, finite.
        num_kept: How many entries are kept, in 1..d.

    Returns:
        A number in `[k / d, 1]`; 1 for the zero vector, of which nothing is lost.
    """
    energy = np.square(np.ravel(np.asarray(values, np.float64)))
    top_k_energy(energy.size, num_kept)
    total = float(energy.sum())
    if total == 0:
        return 1.0
    return float(np.partition(energy, energy.size - num_kept)[-num_kept:].sum()) / total


def fair_energy(dim: int, num_kept: int) -> float:
    """Return the share of `||dW||^2` that the `fair` mask is sure to keep: `ceil(k / 3) / d`, equation (27).

    Its turns give every ranking, and so that of |dW|, at least a third of the k positions, rounded up for |dW|, which
    has the first turn.
    """
    return top_k_energy(dim, math.ceil(num_kept / 3))


def residual_factor(energy: float) -> float:
    """Return `sqrt(1 - c) / (1 - sqrt(1 - c))`: the residual is at most this many updates long. Lemma 5, equation (28).

    Args:
        energy: The share `c` of the energy that the mask keeps, in (0, 1].

    Returns:
        A number of at most `2 / c`; 0 when everything is kept.
    """
    require_density("energy", energy)
    dropped = math.sqrt(1 - energy)
    return dropped / (1 - dropped)
