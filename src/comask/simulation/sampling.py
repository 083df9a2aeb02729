"""Who drops out of a round, and which samples each step sees: functions of the seed and of names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from comask.seeding import derive_rng


def drops_out(client: int, probability: float, *, seed: int, round_number: int) -> bool:
    """Tell whether a client of the cohort never answers in this round."""
    return bool(derive_rng(seed, "dropout", round_number, client).random() < probability)


def batch_indices(
    samples: NDArray[np.int64], *, batch_size: int, steps: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return the samples of every local step: passes over the client's data, reshuffled each time.

    A client with fewer samples than the batch size uses all of them in every step.

    Args:
        samples: The client's positions in the training set, at least one.
        batch_size: Samples a step.
        steps: How many steps.
        rng: The client's generator of this round.

    Returns:
        Shape `(steps, min(batch_size, len(samples)))`. Every sample is used once before any is used twice.
    """
    size = min(batch_size, len(samples))
    passes = -(-steps * size // len(samples))
    stream = np.concatenate([rng.permutation(samples) for _ in range(passes)])
    return stream[: steps * size].reshape(steps, size)
