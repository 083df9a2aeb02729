"""SparseLoCo: local AdamW, top-k in chunks and few-bit values, and error feedback that forgets.

Source: Sarfi, Thérien, Lidin, Belilovsky, "Communication Efficient LLM Pre-training with SparseLoCo", arXiv 2508.15706, by its
abstract and secondary descriptions, and the program of its network (github.com/tplr-ai/templar).

```
e_n = beta e_n + (theta_n - theta) ; send s_n = Q(top-k within each chunk of e_n) ; e_n -= s_n ; theta += alpha mean s_n
```

The feedback's decay takes the place of outer momentum; moments never leave the device. Readings taken: a chunk is a run of
positions of the flat vector, where the program cuts 64 x 64 tiles out of matrices; the mean is over the round's devices,
weighted by samples, where the program divides by the number of devices that sent a coordinate and clips each to the median
norm; the 2-bit coding is a sign and two magnitudes in a ratio chosen for each upload, where the program has 4 bins with a table
of centres. The downlink is the dense
model: devices of the program exchange their sparse updates among each other.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.accounting import CodedBits, index_bits
from comask.algorithms.base import Algorithm, Memory, ServerState
from comask.algorithms.coded import coded
from comask.algorithms.delta import BufferPolicy, DeltaClient
from comask.algorithms.local_moments import LocalMoments
from comask.algorithms.quantisers import ChunkTopK
from comask.algorithms.server_step import SteppingServer
from comask.hyperparams import AdamConfig, require_finite
from comask.wire.codec import get_codec


@dataclass(frozen=True, slots=True)
class ScaleStep:
    """A `ServerStep`: `lr` times the mean, without memory.

    Attributes:
        lr: Above 0.
    """

    lr: float

    def __post_init__(self) -> None:
        require_finite("sparse-loco", "server_lr", self.lr, low=0.0, open_low=True)

    def __call__(self, mean: NDArray[np.float64], state: ServerState) -> tuple[NDArray[np.float64], Memory]:
        """Return the change, shape `(1, d)`."""
        return self.lr * mean, state.memory


def sparse_loco(
    local: AdamConfig = AdamConfig(weight_decay=0.1),  # noqa: B008 -- frozen
    *,
    density: float = 0.015625,
    chunk: int = 4096,
    decay: float = 0.95,
    server_lr: float = 1.0,
    values: str = "log2",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """SparseLoCo: local AdamW, the top-k of each chunk in 2-bit values, decaying error feedback; k (2 + log2 chunk) bits up.

    Args:
        local: Local AdamW's settings.
        density: Fraction kept of each chunk, in [0, 1]; 64 of 4096 as published.
        chunk: Positions a chunk.
        decay: What the feedback's memory is multiplied by in each round, in [0, 1].
        server_lr: What the mean is multiplied by, alpha.
        values: The uplink's value coding.
        buffers: What happens to batch-norm statistics.
    """
    return Algorithm(
        name="sparse-loco",
        num_streams=1,
        local=local,
        client=LocalMoments(DeltaClient(ChunkTopK(density, chunk), ("w",), buffers, decay)),
        server=SteppingServer(ScaleStep(server_lr), buffers),
        uplink=coded("sparse-loco", values),
        downlink=get_codec("exact"),
        paper_bits=CodedBits((values,), density, index_bits(chunk)),
    )
