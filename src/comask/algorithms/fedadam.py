"""Dense federated Adam: every device uploads the change of the weights and of both moments.

Source: the baseline of Deng et al., "Towards Communication-efficient Federated Learning via Sparse and Aligned Adaptive
Optimization", arXiv 2405.17932, known here by its abstract: "local model updates and first and second moment estimates"
go "from devices to the server for aggregation". Not the FedAdam of Reddi et al. (arXiv 2003.00295), which adapts on the
server and uploads weights only.
"""

from __future__ import annotations

from comask.algorithms.accounting import DenseBits
from comask.algorithms.base import Algorithm
from comask.algorithms.delta import AveragingServer, BufferPolicy, DeltaClient, keep_all
from comask.hyperparams import AdamConfig
from comask.wire.codec import Codec, get_codec


def fedadam(
    local: AdamConfig = AdamConfig(),  # noqa: B008 -- frozen
    *,
    codec: Codec | str = "exact",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """Dense FedAdam: average the weights and both Adam moments; 3 d q bits up.

    Args:
        local: Local Adam's settings.
        codec: The uplink codec, or the name of a preset.
        buffers: What happens to batch-norm statistics.
    """
    return Algorithm(
        name="fedadam",
        num_streams=3,
        local=local,
        client=DeltaClient(keep_all, buffers=buffers),
        server=AveragingServer(3, buffers),
        uplink=get_codec(codec),
        downlink=get_codec("exact"),
        paper_bits=DenseBits(3),
    )
