"""0/1 Adam: the second moment is refreshed ever more rarely; all other rounds take one bit a parameter, both ways.

Source: Lu, Li, Zhang, De Sa, He, "Maximizing Communication Efficiency for Large-scale Training via 0/1 Adam", ICLR 2023,
arXiv 2202.06009, and its program in DeepSpeed (`zoadam.py`). The steps are written out in `comask.algorithms.frozen_adam`.

Its local phase is federated already: devices take local steps with a stale V, accumulate `u = sum lr m`, and synchronise u with one
bit and error feedback at both ends; momentum becomes `u / sum lr` and the weights move by `u / (sqrt(V) + eps)`. The readings taken: every
round ends in such a synchronisation. A round in which V is refreshed is a dense round of FedAdam (3 d q bits up), where the
paper refreshes V from one full-precision mean gradient. The intervals between refreshes are 1 for the first `refreshes` of them, then 2, 4, 8
and so on, as in the paper, counted in rounds where the paper counts steps. There is no separate warm-up. Scale and eps are as in `comask.algorithms.one_bit_adam`.
"""

from __future__ import annotations

from dataclasses import dataclass

from comask.algorithms.base import Algorithm
from comask.algorithms.delta import BufferPolicy
from comask.algorithms.frozen_adam import Scale, frozen_adam
from comask.errors import ConfigError
from comask.hyperparams import AdamConfig


@dataclass(frozen=True, slots=True)
class DoublingIntervals:
    """A `Schedule`: round 1 is dense, and then one round after each interval; interval j is `2^floor(j / refreshes)`.

    Attributes:
        refreshes: How many intervals have the same length, at least 1.
    """

    refreshes: int

    def __post_init__(self) -> None:
        if self.refreshes < 1:
            raise ConfigError(f"refreshes must be at least 1, got {self.refreshes!r}.")

    def dense(self, round_number: int) -> bool:
        """Tell whether V is refreshed in this round."""
        refresh, interval = 1, 0
        while refresh < round_number:
            refresh += 2 ** (interval // self.refreshes)
            interval += 1
        return refresh == round_number


def zero_one_adam(
    local: AdamConfig = AdamConfig(),  # noqa: B008 -- frozen
    *,
    refreshes: int = 2,
    values: str = "sign",
    scale: Scale = "block",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """0/1 Adam: 3 d q bits up in each round that refreshes V, of which there are ever fewer; about d + q in all others.

    Args:
        local: Local Adam's settings.
        refreshes: How many intervals between refreshes have the same length before it doubles, at least 1.
        values: The value coding of the momentum, both ways. Its values are `-s` and `s` whatever it is.
        scale: `block`, a scale for each 256 positions, or `vector`, the published one for all.
        buffers: What happens to batch-norm statistics.
    """
    return frozen_adam(
        "zero-one-adam", local, DoublingIntervals(refreshes), values=values, scale=scale, buffers=buffers
    )
