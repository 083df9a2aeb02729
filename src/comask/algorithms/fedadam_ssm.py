"""FedAdam-SSM: federated Adam whose three updates share one sparse mask.

Source: Deng, Li, Wei, Shi, Xiong, Ding, Chen, Jin, Poor, "Towards Communication-efficient Federated Learning via Sparse
and Aligned Adaptive Optimization", arXiv 2405.17932. Verified from its abstract: the updates of the weights and of both
moment estimates "incorporate a shared sparse mask", chosen "by minimizing the divergence bound" to centralised Adam.
Reconstructed: that the minimiser is top-k of |dW| (docs/theory.md derives when), no error feedback, dense downlink.

Sending dM and dV at the positions of the largest dW was done earlier, per tensor and with 8-bit values, by CE-FedAvg
(Mills, Hu, Min, IEEE Internet of Things Journal, 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.accounting import SharedMaskBits
from comask.algorithms.base import Algorithm, ClientRule
from comask.algorithms.bound_mask import BoundMaskClient
from comask.algorithms.delta import AveragingServer, BufferPolicy, DeltaClient, keep_all
from comask.hyperparams import AdamConfig
from comask.masks import mask_rule, num_kept, select
from comask.wire.codec import Codec, get_codec
from comask.wire.update import Block, ParamLayout


@dataclass(frozen=True, slots=True)
class SharedMask:
    """A selector: one mask for all streams.

    Attributes:
        density: Fraction kept, in [0, 1].
        rule: A name in `comask.masks.MASK_RULES`.
        per_tensor: Select within each tensor instead of over the whole vector.
    """

    density: float
    rule: str = "w"
    per_tensor: bool = False

    def __post_init__(self) -> None:
        num_kept(self.density, 1)  # raises if the density is not allowed
        mask_rule(self.rule)

    def __call__(self, delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:
        """Return one block of all streams."""
        indices = select(mask_rule(self.rule), delta, self.density, layout if self.per_tensor else None)
        return (Block(indices, delta[:, indices]),)


def fedadam_ssm(
    local: AdamConfig = AdamConfig(),  # noqa: B008 -- frozen
    *,
    density: float = 0.05,
    mask: str = "w",
    per_tensor: bool = False,
    feedback: tuple[str, ...] = (),
    codec: Codec | str = "exact",
    buffers: BufferPolicy = "average",
    name: str = "fedadam-ssm",
) -> Algorithm:
    """FedAdam-SSM: one mask, the top-k of |dW|, for all three updates; min{k(3q + log2 d), 3kq + d} bits up.

    Args:
        local: Local Adam's settings.
        density: Fraction kept, in [0, 1].
        mask: The mask rule, a name in `comask.masks.MASK_RULES`, or `bound`: the mask that minimises the divergence bound.
        per_tensor: Select within each tensor instead of over the whole vector.
        feedback: Streams out of `w`, `m`, `v` with error feedback.
        codec: The uplink codec, or the name of a preset.
        buffers: What happens to batch-norm statistics.
        name: The row's name, for variants that fix an option.
    """
    client: ClientRule
    if mask == "bound":
        client = BoundMaskClient(DeltaClient(keep_all, feedback, buffers), density, per_tensor, local)
    else:
        client = DeltaClient(SharedMask(density, mask, per_tensor), feedback, buffers)
    return Algorithm(
        name=name,
        num_streams=3,
        local=local,
        client=client,
        server=AveragingServer(3, buffers),
        uplink=get_codec(codec),
        downlink=get_codec("exact"),
        paper_bits=SharedMaskBits(density),
    )
