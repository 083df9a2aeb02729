"""Who takes part in a round: the same draw in a simulation and in a fleet."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

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
