"""CE-FedAvg: the change of Adam's whole state at the largest changes of the weights, tensor by tensor, in 8-bit values.

Source: Mills, Hu, Min, "Communication-Efficient Federated Learning for Wireless Edge Intelligence in IoT", IEEE Internet of
Things Journal 7(7), 2020, and its authors' program (github.com/JedMills/Communication-Efficient-FL-In-IoT). It is the first
appearance of one mask for all three updates: "we find sparsifying these independently causes many exploding gradients".

Devices run bias-corrected Adam from the averaged weights, moments and step counter. In each tensor the changes of the weights
whose magnitude is in the top fraction are kept, and the moments' changes at the same positions; vectors (biases) are sent whole.
Values take 8 bits: the weights' linearly, the moments' logarithmically, for they span many decades. Gaps between positions are
Golomb-coded. No error feedback; dense downlink.

Readings taken. The averaged step counter is not sent: with equal local steps it is the number of steps so far, which
every device knows (`bias_correction="global"`). The program quantises negative and positive weights in two ranges of 128 levels each
and the moments to powers of one base a tensor; here the wire's own 8-bit codings stand for them, and dV is rounded so that no V
becomes negative, where the program scrubs the NaN that follow. Masks keep exactly k entries where the program keeps all that
reach a quantile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.accounting import CodedBits
from comask.algorithms.base import Algorithm
from comask.algorithms.coded import coded
from comask.algorithms.delta import AveragingServer, BufferPolicy, DeltaClient
from comask.hyperparams import AdamConfig
from comask.kernels.select import top_k_abs_indices
from comask.masks import num_kept
from comask.state import SECOND_MOMENT
from comask.wire.codec import get_codec
from comask.wire.update import Block, ParamLayout


@dataclass(frozen=True, slots=True)
class TensorMask:
    """A selector: the top-k of |dW| within each tensor, shared by all streams; vectors and scalars whole.

    Attributes:
        density: Fraction kept of each tensor with at least two axes, in [0, 1].
    """

    density: float

    def __post_init__(self) -> None:
        num_kept(self.density, 1)  # raises if the density is not allowed

    def __call__(self, delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:
        """Return one block of all streams."""
        pieces = [np.empty(0, np.uint32)]
        for begin, size, shape in zip(layout.offsets, layout.sizes, layout.shapes, strict=False):
            if size:
                k = num_kept(self.density, size) if len(shape) > 1 else size
                pieces.append(top_k_abs_indices(delta[0, begin : begin + size], k) + np.uint32(begin))
        indices = np.concatenate(pieces)
        return (Block(indices, delta[:, indices]),)


def ce_fedavg(
    local: AdamConfig = AdamConfig(eps=1e-7, eps_inside_sqrt=False, bias_correction="global"),  # noqa: B008 -- frozen
    *,
    density: float = 0.4,
    values: str = "linear8",
    moment_values: str = "log8",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """CE-FedAvg: one mask a tensor, the top-k of |dW|, for all three updates in 8-bit values; k (24 + Golomb bits of a gap) bits up.

    Args:
        local: Local Adam's settings; Keras's convention as default.
        density: Fraction kept of each tensor, in [0, 1]; vectors are sent whole. 0.4 as in the authors' program.
        values: The value coding of dW.
        moment_values: The value coding of dM and of dV.
        buffers: What happens to batch-norm statistics.
    """
    codings = (values, moment_values, moment_values)
    return Algorithm(
        name="ce-fedavg",
        num_streams=3,
        local=local,
        client=DeltaClient(TensorMask(density), buffers=buffers),
        server=AveragingServer(3, buffers),
        uplink=coded("ce-fedavg", *codings, safe=SECOND_MOMENT),
        downlink=get_codec("exact"),
        paper_bits=CodedBits(codings, density),
    )
