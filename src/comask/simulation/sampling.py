"""Who takes part in a round, who drops out, and which samples each step sees: all functions of the seed and the names."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from comask.seeding import derive_rng


def sample_cohort(
    eligible: Iterable[int], fraction: float, *, seed: int, round_number: int
) -> tuple[int, ...]:
    """Draw the round's cohort without replacement.

    Args:
        eligible: Clients that may take part.
        fraction: In (0, 1]; the cohort has `max(1, round(fraction * len(eligible)))` clients.
        seed: The run's root seed.
        round_number: From 1.

    Returns:
        Client numbers, ascending.
    """
    clients = np.array(sorted(eligible), np.int64)
    if fraction >= 1.0:
        return tuple(int(c) for c in clients)
    size = max(1, round(fraction * len(clients)))
    chosen = derive_rng(seed, "cohort", round_number).choice(clients, size, replace=False)
    return tuple(int(c) for c in np.sort(chosen))


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
