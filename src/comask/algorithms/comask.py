"""comask: FedAdam-SSM with error feedback and few-bit values, both ways.

Put together here from published parts: one mask from |dW| for the changes of W, M and V (FedAdam-SSM, arXiv 2405.17932; CE-FedAvg,
Mills, Hu, Min, 2020), error feedback at both ends (STC, arXiv 1903.02891), logarithmic codes for moments (CE-FedAvg). The order of a
round:

```
device   dX_n = change of X in L local Adam steps from the model ;  dW_n += e_n
         S_n = top-k of |dW_n| ; send Q(S_n dW_n, S_n dM_n, S_n dV_n) ; e_n = dW_n - what arrives
server   dX = mean of what arrives ; dW += e ; dV = max(dV, -V)
         S = top-k' of |dW| ; X += D(X) with D = Q(S dW, S dM, S dV) ; e = dW - what was added
         send D to devices that hold the last model, the whole model to all others
```

Q rounds to few bits, and the codes are entropy-coded on the wire. Only weights are fed back: a change of the weights is progress, a
change of a moment is the way to what the last steps measured, relative to the same broadcast in every round, and adding it up would
overshoot.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.accounting import CodedBits
from comask.algorithms.base import Algorithm
from comask.algorithms.coded import coded
from comask.algorithms.delta import BufferPolicy, DeltaClient
from comask.algorithms.fedadam_ssm import SharedMask
from comask.algorithms.server_step import SteppingServer
from comask.algorithms.two_way import CompressStep, FollowingClient, Increments, MarkingServer
from comask.hyperparams import AdamConfig
from comask.kernels.select import top_k_abs_indices
from comask.masks import num_kept
from comask.state import SECOND_MOMENT, WEIGHTS
from comask.wire.codec import get_codec
from comask.wire.update import Block, ParamLayout


@dataclass(frozen=True, slots=True)
class ChangedMask:
    """A selector: all positions at which anything changes, or the top-k of |dW| if those are more; shared by all streams.

    What the clients sent together covers fewer positions than the density allows when their masks are alike.

    Attributes:
        density: Fraction kept at most, in [0, 1].
    """

    density: float

    def __post_init__(self) -> None:
        num_kept(self.density, 1)  # raises if the density is not allowed

    def __call__(self, delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:
        """Return one block of all streams."""
        k = num_kept(self.density, layout.dim)
        changed = np.flatnonzero(delta.any(axis=0)).astype(np.uint32)
        indices = changed if len(changed) <= k else top_k_abs_indices(delta[WEIGHTS], k)
        return (Block(indices, delta[:, indices]),)


def comask(
    local: AdamConfig = AdamConfig(),  # noqa: B008 -- frozen
    *,
    density: float = 0.01,
    downlink_density: float = 0.05,
    values: str = "log4",
    moment_values: str = "log4",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """comask: one mask, the top-k of |dW|, for all three updates in few bits, both ways with error feedback; k (12 + Golomb bits of a gap) bits up.

    Args:
        local: Local Adam's settings.
        density: Fraction kept on the way up, in [0, 1].
        downlink_density: Fraction kept on the way down, at most, in [0, 1].
        values: The value coding of dW, both ways.
        moment_values: The value coding of dM and of dV, both ways.
        buffers: What happens to batch-norm statistics.
    """
    codings = (values, moment_values, moment_values)
    up, down = (coded(name, *codings, safe=SECOND_MOMENT, entropy=True) for name in ("comask", "comask down"))
    step = CompressStep(ChangedMask(downlink_density), down)
    client = DeltaClient(SharedMask(density), ("w",), buffers)
    return Algorithm(
        name="comask",
        num_streams=3,
        local=local,
        client=FollowingClient(client, num_streams=3),
        server=MarkingServer(SteppingServer(step, buffers, num_streams=3)),
        uplink=up,
        downlink=get_codec("exact"),
        paper_bits=CodedBits(codings, density),
        increment=Increments(step),
    )
