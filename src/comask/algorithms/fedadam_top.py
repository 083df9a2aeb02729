"""FedAdam-Top: sparse federated Adam with three separate masks, the baseline that the shared mask is measured against.

Source: the class of "sparse FedAdam baselines" of Deng et al., arXiv 2405.17932 (abstract); each stream keeps the top-k
of its own magnitudes. A coordinate may then receive a first moment without its second: from zero state such a step is
lr |M| / sqrt(eps), so the method depends heavily on eps and where it stands.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.accounting import SeparateMaskBits
from comask.algorithms.base import Algorithm
from comask.algorithms.delta import AveragingServer, BufferPolicy, DeltaClient
from comask.hyperparams import AdamConfig
from comask.masks import mask_rule, num_kept, select
from comask.wire.codec import Codec, get_codec
from comask.wire.update import Block, ParamLayout


@dataclass(frozen=True, slots=True)
class SeparateMasks:
    """A selector: each stream keeps the top-k of its own magnitudes.

    Attributes:
        density: Fraction kept of each stream, in [0, 1].
        per_tensor: Select within each tensor instead of over the whole vector.
    """

    density: float
    per_tensor: bool = False

    def __post_init__(self) -> None:
        num_kept(self.density, 1)  # raises if the density is not allowed

    def __call__(self, delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:
        """Return one block a stream."""
        within = layout if self.per_tensor else None
        blocks = []
        for row in range(delta.shape[0]):
            stream = delta[row : row + 1]
            indices = select(mask_rule("w"), stream, self.density, within)
            blocks.append(Block(indices, stream[:, indices]))
        return tuple(blocks)


def fedadam_top(
    local: AdamConfig = AdamConfig(),  # noqa: B008 -- frozen
    *,
    density: float = 0.05,
    per_tensor: bool = False,
    feedback: tuple[str, ...] = (),
    codec: Codec | str = "exact",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """FedAdam-Top: three masks, each the top-k of its own stream; min{3k(q + log2 d), 3kq + 3d} bits up.

    Args:
        local: Local Adam's settings.
        density: Fraction kept of each stream, in [0, 1].
        per_tensor: Select within each tensor instead of over the whole vector.
        feedback: Streams out of `w`, `m`, `v` with error feedback.
        codec: The uplink codec, or the name of a preset.
        buffers: What happens to batch-norm statistics.
    """
    return Algorithm(
        name="fedadam-top",
        num_streams=3,
        local=local,
        client=DeltaClient(SeparateMasks(density, per_tensor), feedback, buffers),
        server=AveragingServer(3, buffers),
        uplink=get_codec(codec),
        downlink=get_codec("exact"),
        paper_bits=SeparateMaskBits(density),
    )
