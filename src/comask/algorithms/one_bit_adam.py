"""1-bit Adam: dense rounds until the second moment has settled, then one bit a parameter, both ways.

Source: Tang, Gan, Awan, Rajbhandari, Li, Lian, Liu, Zhang, He, "1-bit Adam: Communication Efficient Large-Scale Training with
Adam's Convergence Speed", ICML 2021, arXiv 2102.02888, and its program in DeepSpeed. The steps are written out in
`comask.algorithms.frozen_adam`.

The paper is about one step between messages; a federated form is not standard. The reading taken: warm-up rounds are those of
dense FedAdam, at 3 d q bits each, which dominate a short run's bytes; then V stays what it is, devices take L local steps, and
what is compressed is their mean momentum, so that L = 1 is the published algorithm. There is no bias correction, as in the
program.

Two defaults are not the published ones. The scale is one for each 256 positions and not one for the vector (`scale="vector"`):
with the published one this federated form loses most of what the warm-up learned (docs/decisions/0041). And eps is this
library's, 1e-6 inside the root, as in the dense FedAdam of the warm-up, and not 1e-8 outside it; that makes no difference.
"""

from __future__ import annotations

from dataclasses import dataclass

from comask.algorithms.base import Algorithm
from comask.algorithms.delta import BufferPolicy
from comask.algorithms.frozen_adam import Scale, frozen_adam
from comask.errors import ConfigError
from comask.hyperparams import AdamConfig


@dataclass(frozen=True, slots=True)
class WarmUp:
    """A `Schedule`: the first rounds are dense.

    Attributes:
        rounds: How many, at least 1: V must come from somewhere.
    """

    rounds: int

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError(f"warmup_rounds must be at least 1, got {self.rounds!r}.")

    def dense(self, round_number: int) -> bool:
        """Tell whether the round is one of the warm-up."""
        return round_number <= self.rounds


def one_bit_adam(
    local: AdamConfig = AdamConfig(),  # noqa: B008 -- frozen
    *,
    warmup_rounds: int = 10,
    values: str = "sign",
    scale: Scale = "block",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """1-bit Adam: 3 d q bits up in each warm-up round, about d + q in every later one.

    Args:
        local: Local Adam's settings.
        warmup_rounds: Dense rounds before V is frozen, at least 1.
        values: The value coding of the momentum, both ways. Its values are `-s` and `s` whatever it is.
        scale: `block`, a scale for each 256 positions, or `vector`, the published one for all.
        buffers: What happens to batch-norm statistics.
    """
    return frozen_adam(
        "one-bit-adam", local, WarmUp(warmup_rounds), values=values, scale=scale, buffers=buffers
    )
