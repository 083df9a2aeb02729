"""Stateless seeds: the same client in the same round draws the same numbers anywhere.

A generator that is advanced from call to call makes results depend on the order of the calls, and so on the number of
workers, on who dropped out and on whether a run was resumed. Here every random stream has a name instead (a path such as
`("batches", round, client)`), and its seed is a hash of the run's root seed and that path.
"""

from __future__ import annotations

import hashlib

import numpy as np

_SEED_BYTES = 8


def derive_seed(root: int, *path: str | int) -> int:
    """Derive the seed of one named random stream.

    Args:
        root: The run's seed, any integer.
        *path: The stream's name, for example `"batches", 3, 17`. Strings and integers are told apart: `1` and `"1"`
            name different streams.

    Returns:
        An integer in `[0, 2**63)`: what both `numpy.random.default_rng` and `torch.Generator.manual_seed` accept.
    """
    digest = hashlib.blake2b(digest_size=_SEED_BYTES, person=b"comask.seed")
    for part in (root, *path):
        text = f"i{part}" if isinstance(part, int) else f"s{part}"
        encoded = text.encode()
        digest.update(len(encoded).to_bytes(4, "little"))
        digest.update(encoded)
    return int.from_bytes(digest.digest(), "little") >> 1


def derive_rng(root: int, *path: str | int) -> np.random.Generator:
    """Return a numpy generator seeded by `derive_seed(root, *path)`."""
    return np.random.default_rng(derive_seed(root, *path))
