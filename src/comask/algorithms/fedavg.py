"""FedAvg and FedSGD: the weights alone, trained by stochastic gradient descent on the devices.

Source: McMahan, Moore, Ramage, Hampson, Aguera y Arcas, "Communication-Efficient Learning of Deep Networks from
Decentralized Data", AISTATS 2017, arXiv 1602.05629. FedSGD is its case of one gradient a round: here the mean gradient
over the round's local batches, all taken at the received weights.
"""

from __future__ import annotations

from comask.algorithms.accounting import DenseBits
from comask.algorithms.base import Algorithm
from comask.algorithms.delta import AveragingServer, BufferPolicy, DeltaClient, keep_all
from comask.hyperparams import GradientConfig, LocalConfig, SGDConfig
from comask.wire.codec import Codec, get_codec


def _weights_only(name: str, local: LocalConfig, codec: Codec | str, buffers: BufferPolicy) -> Algorithm:
    return Algorithm(
        name=name,
        num_streams=1,
        local=local,
        client=DeltaClient(keep_all, buffers=buffers),
        server=AveragingServer(1, buffers),
        uplink=get_codec(codec),
        downlink=get_codec("exact"),
        paper_bits=DenseBits(1),
    )


def fedavg(
    local: SGDConfig = SGDConfig(),  # noqa: B008 -- frozen
    *,
    codec: Codec | str = "exact",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """FedAvg: local SGD, average the weights; d q bits up.

    Args:
        local: Local SGD's settings.
        codec: The uplink codec, or the name of a preset.
        buffers: What happens to batch-norm statistics.
    """
    return _weights_only("fedavg", local, codec, buffers)


def fedsgd(
    local: GradientConfig = GradientConfig(),  # noqa: B008 -- frozen
    *,
    codec: Codec | str = "exact",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """FedSGD: one gradient a round, averaged over the local batches at the received weights; d q bits up.

    Args:
        local: Settings of the one step.
        codec: The uplink codec, or the name of a preset.
        buffers: What happens to batch-norm statistics.
    """
    return _weights_only("fedsgd", local, codec, buffers)
