"""FedAvg with 8-bit uploads: what quantisation alone buys, without Adam and without a mask.

Source of the averaging: McMahan and others, AISTATS 2017, arXiv 1602.05629. Rounding changes to 8 bits with error feedback is Seide and others'
1-bit SGD (Interspeech 2014) in eight bits; here with the wire's block-scaled linear coding. The downlink is dense.
"""

from __future__ import annotations

from comask.algorithms.accounting import CodedBits
from comask.algorithms.base import Algorithm
from comask.algorithms.coded import coded
from comask.algorithms.delta import AveragingServer, BufferPolicy, DeltaClient, keep_all
from comask.hyperparams import SGDConfig
from comask.wire.codec import get_codec


def fedavg_8bit(
    local: SGDConfig = SGDConfig(),  # noqa: B008 -- frozen
    *,
    values: str = "linear8",
    feedback: bool = True,
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """FedAvg with 8-bit uploads: local SGD, every change of the weights in 8 bits, with error feedback; 8 d bits up.

    Args:
        local: Local SGD's settings.
        values: The uplink's value coding.
        feedback: Keep what rounding drops and add it in the next round.
        buffers: What happens to batch-norm statistics.
    """
    return Algorithm(
        name="fedavg-8bit",
        num_streams=1,
        local=local,
        client=DeltaClient(keep_all, ("w",) if feedback else (), buffers),
        server=AveragingServer(1, buffers),
        uplink=coded("fedavg-8bit", values),
        downlink=get_codec("exact"),
        paper_bits=CodedBits((values,)),
    )
