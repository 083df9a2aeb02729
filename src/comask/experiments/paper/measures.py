"""What is read off the course of one run: rounds and bytes to a target, and accuracy at a budget of bytes.

Between two evaluations accuracy is taken to be a straight line, in rounds and in bytes alike; before the first nothing is known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from comask.experiments.results import Run


def evaluated_uplink(run: Run) -> NDArray[np.float64]:
    """Return the bytes that all clients together have sent by each evaluated round, shape `(n,)`."""
    return _by_evaluation(run, [record.uplink_bytes for record in run.records])


def rounds_to(run: Run, accuracy: float) -> float | None:
    """Return how many rounds a run needs to a test accuracy, a fraction between evaluations; None if it never gets there."""
    return _crossing([number for number, _ in run.evaluated], run, accuracy)


def uplink_to(run: Run, accuracy: float) -> float | None:
    """Return how many uplink bytes a run needs to a test accuracy, as `rounds_to`."""
    return _crossing(list(evaluated_uplink(run)), run, accuracy)


def traffic_to(run: Run, accuracy: float) -> float | None:
    """Return how many bytes in both directions a run needs to a test accuracy, as `rounds_to`."""
    both = [record.uplink_bytes + record.downlink_bytes for record in run.records]
    return _crossing(list(_by_evaluation(run, both)), run, accuracy)


def accuracy_at_uplink(run: Run, budget: float) -> float | None:
    """Return the test accuracy after a number of uplink bytes; None before the first evaluation and after the last round."""
    sent = evaluated_uplink(run)
    if not sent[0] <= budget <= sent[-1]:
        return None
    return float(np.interp(budget, sent, [accuracy for _, accuracy in run.evaluated]))


def first_uplink(run: Run) -> float:
    """Return the bytes that all clients together have sent by the first evaluation."""
    return float(evaluated_uplink(run)[0])


def total_uplink(run: Run) -> float:
    """Return the bytes that all clients together have sent by the last evaluated round."""
    return float(evaluated_uplink(run)[-1])


def _by_evaluation(run: Run, amounts: Sequence[int]) -> NDArray[np.float64]:
    return np.cumsum(amounts, dtype=np.float64)[[number - 1 for number, _ in run.evaluated]]


def _crossing(places: Sequence[float], run: Run, accuracy: float) -> float | None:
    """Return where the course first reaches an accuracy: at the first evaluation, or on the line to a later one."""
    reached = [value for _, value in run.evaluated]
    for index, value in enumerate(reached):
        if value >= accuracy:
            if index == 0:
                return float(places[0])
            before = reached[index - 1]
            share = (accuracy - before) / (value - before)
            return float(places[index - 1] + share * (places[index] - places[index - 1]))
    return None
