"""Efficient-Adam: Adam whose steps are quantised on the way up and on the way down, with error feedback at both ends.

Source: Chen, Shen, Liu, Luo, "Efficient-Adam: Communication-Efficient Distributed Adam", IEEE Transactions on Signal
Processing 71, 2023, arXiv 2205.14473: "two-way quantization" with "two-way error feedback" between a parameter server and
workers. Its abstract could be read; the steps are reconstructed:

```
worker   m = beta1 m + (1 - beta1) g ; v = beta2 v + (1 - beta2) g*g        both stay on the worker
         send d_n = Q(lr m / sqrt(v + eps) + e_n) ; e_n = what Q dropped
server   send D = Q(mean d_n + e) ; e = what Q dropped ; all: x -= D
```

The federated reading taken: a round stands for a step. What a worker sends is the change of its weights over its local steps, and
its moments continue in its next round. Q is any dense value coding; a deterministic one, so that a worker's rounding errors are fed back
and not averaged out.
"""

from __future__ import annotations

from comask.algorithms.accounting import CodedBits
from comask.algorithms.base import Algorithm
from comask.algorithms.coded import coded
from comask.algorithms.delta import BufferPolicy, DeltaClient, keep_all
from comask.algorithms.local_moments import LocalMoments
from comask.algorithms.server_step import SteppingServer
from comask.algorithms.two_way import CompressStep, FollowingClient, Increments, MarkingServer
from comask.hyperparams import AdamConfig
from comask.wire.codec import get_codec


def efficient_adam(
    local: AdamConfig = AdamConfig(),  # noqa: B008 -- frozen
    *,
    values: str = "linear8",
    downlink_values: str = "linear8",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """Efficient-Adam: local Adam with local moments, quantised changes of the weights both ways with feedback; 8 d bits up.

    Args:
        local: Local Adam's settings.
        values: The value coding of the way up.
        downlink_values: The value coding of the way down, for clients that hold the last model.
        buffers: What happens to batch-norm statistics.
    """
    step = CompressStep(keep_all, coded("efficient-adam down", downlink_values))
    return Algorithm(
        name="efficient-adam",
        num_streams=1,
        local=local,
        client=FollowingClient(LocalMoments(DeltaClient(keep_all, ("w",), buffers))),
        server=MarkingServer(SteppingServer(step, buffers)),
        uplink=coded("efficient-adam", values),
        downlink=get_codec("exact"),
        paper_bits=CodedBits((values,)),
        increment=Increments(step),
    )
