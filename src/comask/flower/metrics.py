"""Numbers that clients report: how many samples they hold, and whatever their app measures."""

from __future__ import annotations

import math
from collections.abc import Mapping

from flwr.app import RecordDict

from comask.errors import RefusedUpdateError
from comask.flower.messages import METRICS, NUM_EXAMPLES

MAX_METRICS = 64
"""Names that are averaged in a round; those that come later are ignored, so that clients cannot fill the server."""

_LARGEST = 1e100
"""Numbers beyond are no measurement, and their sums might overflow."""


def num_examples(content: RecordDict, most: int) -> int:
    """Return the number of samples that a reply claims.

    Args:
        content: The reply's.
        most: The most that is allowed.

    Raises:
        RefusedUpdateError: With reason `"weight"`, if it claims none, or one that is not in `1..most`.
    """
    record = content.metric_records.get(METRICS)
    claimed = None if record is None else record.get(NUM_EXAMPLES)
    if type(claimed) is not int or not 1 <= claimed <= most:
        raise RefusedUpdateError(
            "weight", f"{METRICS}[{NUM_EXAMPLES!r}] must be an integer in 1..{most}, got {claimed!r:.100}."
        )
    return claimed


class WeightedMetrics:
    """Means of named numbers, weighted by samples. What is not a finite number is left out."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}

    def add(self, metrics: Mapping[str, object], weight: int) -> None:
        """Add one client's numbers."""
        for name, value in metrics.items():
            if name == NUM_EXAMPLES or isinstance(value, bool) or not isinstance(value, int | float):
                continue
            if not (math.isfinite(value) and abs(value) <= _LARGEST):
                continue
            if name in self._sums or len(self._sums) < MAX_METRICS:
                total, weights = self._sums.get(name, (0.0, 0.0))
                self._sums[name] = (total + weight * value, weights + weight)

    def means(self) -> dict[str, float]:
        """Return the means."""
        return {name: total / weights for name, (total, weights) in self._sums.items()}
