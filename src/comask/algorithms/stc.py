"""Sparse Ternary Compression: few positions, one magnitude, both ways, with error feedback at both ends.

Source: Sattler, Wiedemann, Mueller, Samek, "Robust and Communication-Efficient Federated Learning from Non-IID Data",
IEEE Transactions on Neural Networks and Learning Systems 31(9), 2020, arXiv 1903.02891, algorithms 1 and 2, and its authors' program
(github.com/felisat/federated-learning).

```
device   A_n += W_n - W ; send T(A_n) ; A_n -= T(A_n)                       T(x) = mu sign(x) on the top-k of |x|, else 0
server   A += mean T(A_n) ; send T(A) ; W += T(A) ; A -= T(A)               mu = mean of the k magnitudes
```

Readings taken. The paper compresses the whole vector, the program each layer: here the whole vector. The paper averages
plainly, here samples are weights, as everywhere in this library. A device that missed rounds asks the paper's server for the
sum of the increments it lacks; here it gets the whole model, which is never wrong and costs more bytes down.
"""

from __future__ import annotations

from comask.algorithms.accounting import TernaryBits
from comask.algorithms.base import Algorithm
from comask.algorithms.coded import coded
from comask.algorithms.delta import BufferPolicy, DeltaClient
from comask.algorithms.quantisers import Ternary
from comask.algorithms.server_step import SteppingServer
from comask.algorithms.two_way import CompressStep, FollowingClient, Increments, MarkingServer
from comask.hyperparams import SGDConfig
from comask.wire.codec import get_codec


def stc(
    local: SGDConfig = SGDConfig(),  # noqa: B008 -- frozen
    *,
    density: float = 0.01,
    downlink_density: float = 0.01,
    values: str = "sign",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """STC: local SGD, the top-k as signs with one magnitude, both ways with error feedback; k (1 + Golomb bits of a gap) + q up.

    Args:
        local: Local SGD's settings.
        density: Fraction kept on the way up, in [0, 1].
        downlink_density: Fraction kept on the way down, in [0, 1].
        values: The value coding of both ways. The kept values are `-mu` and `mu` whatever it is.
        buffers: What happens to batch-norm statistics.
    """
    codec = coded("stc", values)
    step = CompressStep(Ternary(downlink_density), codec)
    return Algorithm(
        name="stc",
        num_streams=1,
        local=local,
        client=FollowingClient(DeltaClient(Ternary(density), ("w",), buffers)),
        server=MarkingServer(SteppingServer(step, buffers)),
        uplink=codec,
        downlink=get_codec("exact"),
        paper_bits=TernaryBits(density),
        increment=Increments(step),
    )
