"""FedAdamW: local AdamW from the mean second moment of each tensor, drawn along the last round's global change.

Source: Liu and others, "FedAdamW: A Communication-Efficient Optimizer with Convergence and Generalization Guarantees for
Federated Large Models", AAAI 2026, arXiv 2510.27486, by its abstract, secondary descriptions and its authors' program
(github.com/junkangLiu0/FedAdamW).

```
device   m = 0 ; v = the averaged mean of each tensor, spread over it
         K steps: AdamW, its bias corrections counted over all rounds ; w += gamma Delta
         send w - W, and the mean of v over each tensor
server   W += mean (w - W) ; Delta = mean (w - W) / K
```

So moments cost one number a tensor. Readings taken: the drift is `gamma Delta` a step (`gamma / K` times the last global change), as in the
program; the paper's printed sign of the weight decay is taken for a slip, and decay is AdamW's. The program's CNN runs
send v in full, its language-model runs the means: here the means, as the paper claims. Devices report K in one number, so
that K may differ among rounds. The downlink carries W and Delta, dense, and the means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from comask.aggregate import WeightedSum, check_update
from comask.algorithms.accounting import DenseBits
from comask.algorithms.base import Algorithm, ClientContext, Memory, ServerState, Upload
from comask.algorithms.coded import coded
from comask.algorithms.delta import AveragingServer, BufferPolicy, DeltaClient, keep_all
from comask.algorithms.local_moments import require_finite_moments, weights_of
from comask.errors import RefusedUpdateError
from comask.hyperparams import AdamConfig, require_finite
from comask.state import ModelState
from comask.wire.codec import get_codec
from comask.wire.update import Block, ParamLayout, Update

_DRIFT, _MEANS = "drift", "tensor_means"
_NO_TENSOR = np.float32(-1.0)  # in the server's memory, where no tensor begins


def tensor_means(values: NDArray[np.float32], layout: ParamLayout) -> Block:
    """Return the mean of each tensor that is not empty, at the position where it begins.

    Args:
        values: Shape `(d,)`.
        layout: Where the tensors lie.
    """
    places = [(begin, size) for begin, size in zip(layout.offsets, layout.sizes, strict=False) if size]
    means = [values[begin : begin + size].mean(dtype=np.float64) for begin, size in places]
    return Block(np.array([begin for begin, _ in places], np.uint32), np.array([means], np.float32))


def spread(means: Block, dim: int) -> NDArray[np.float32]:
    """Return the vector, shape `(d,)`, that holds each mean from its position to the next."""
    assert means.indices is not None
    spread_out = np.zeros(dim, np.float32)
    starts = means.indices.astype(np.int64)
    if starts.size:
        spread_out[starts[0] :] = np.repeat(means.values[0], np.diff(starts, append=dim))
    return spread_out


@dataclass(frozen=True, slots=True)
class FedAdamWClient:
    """The device.

    Attributes:
        gamma: How much of the last global change is added over a round, in [0, 1].
        buffers: The buffer policy.
    """

    gamma: float
    buffers: BufferPolicy

    def __post_init__(self) -> None:
        require_finite("fedadamw", "gamma", self.gamma, low=0.0, high=1.0)

    def begin(self, broadcast: Update, memory: Memory) -> ModelState:
        """Start from the weights, a first moment of zero, the spread means, and the drift."""
        both, means = broadcast.blocks
        weights, drift = both.values
        start = self._weights().begin(replace(broadcast, blocks=(Block(None, weights[None]),)), memory)
        rows = [weights, np.zeros_like(weights), spread(means, broadcast.dim), np.float32(self.gamma) * drift]
        return replace(start, streams=np.stack(rows))

    def finish(
        self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext
    ) -> tuple[Update, Memory]:
        """Send the change of the weights, the mean of v over each tensor, and the number of steps.

        Raises:
            NonFiniteError: If training produced NaN or infinity.
        """
        update, kept = self._weights().finish(weights_of(start), weights_of(end), memory, context)
        require_finite_moments(end, context)
        steps = Block(np.zeros(1, np.uint32), np.array([[context.steps]], np.float32))
        means = tensor_means(end.second_moment, context.layout)
        return replace(update, blocks=(*update.blocks, means, steps)), kept

    def _weights(self) -> DeltaClient:
        return DeltaClient(keep_all, buffers=self.buffers)


@dataclass(frozen=True, slots=True)
class FedAdamWServer:
    """The server: averages weights and means, and remembers the mean change of a step.

    Attributes:
        buffers: The buffer policy.
    """

    buffers: BufferPolicy

    def init(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> ServerState:
        """Return the initial weights, without a drift."""
        return AveragingServer(1, self.buffers).init(params, buffers)

    def broadcast(self, state: ServerState) -> Update:
        """Return the weights and the drift, dense, and the mean second moment of each tensor."""
        model = state.model
        drift = state.memory.get(_DRIFT, np.zeros(model.dim, np.float32))
        starts = self._starts(state)
        means = state.memory[_MEANS][starts] if starts.size else np.empty(0, np.float32)
        blocks = (Block(None, np.stack([model.params, drift])), Block(starts, means[None]))
        return Update(model.dim, blocks, model.buffers, round=state.round + 1)

    def check(self, state: ServerState, update: Update) -> None:
        """Refuse updates of another shape or round, those with NaN or infinity, negative means, or no steps.

        Raises:
            RefusedUpdateError: With reason `"shape"`, `"stale-round"` or `"non-finite"`.
        """
        model = state.model
        num_buffers = len(model.buffers) if self.buffers == "average" else 0
        check_update(
            update, num_streams=3, dim=model.dim, num_buffers=num_buffers, expected_round=state.round + 1
        )
        if [block.num_streams for block in update.blocks] != [1, 1, 1] or update.blocks[2].num_kept != 1:
            raise RefusedUpdateError("shape", "An update must have three blocks, the last of one number.")
        change, means, steps = update.blocks
        starts = self._starts(state)
        if change.indices is not None or means.indices is None:
            raise RefusedUpdateError("shape", "An update's weights must be dense and its tensor means not.")
        if starts.size and not np.array_equal(starts, means.indices):
            raise RefusedUpdateError(
                "shape", f"An update must have means of {starts.size} tensors, this has {means.num_kept}."
            )
        if (means.values < 0).any() or steps.values[0, 0] < 1:
            raise RefusedUpdateError("shape", "Mean second moments must not be negative, nor steps below 1.")

    def aggregate(self, state: ServerState, uploads: Iterable[Upload]) -> ServerState:
        """Add the mean change, and set the means and the drift; with no uploads, all stays as it was."""
        model = state.model
        num_buffers = len(model.buffers) if self.buffers == "average" else 0
        total, means, steps = WeightedSum(1, model.dim, num_buffers), WeightedSum(1, model.dim), 0.0
        begins = np.zeros(model.dim, np.bool_)
        for upload in uploads:
            change, tensors, count = upload.update.blocks
            total.add(replace(upload.update, blocks=(change,)), upload.weight)
            means.add(Update(model.dim, (tensors,)), upload.weight)
            begins[tensors.indices] = True
            steps += upload.weight * float(count.values[0, 0])
        if not total.count:
            return ServerState(model, state.round + 1, state.memory)
        (mean,), mean_buffers = total.mean()
        ((tensor_values,), _) = means.mean()
        memory = {
            _DRIFT: (mean / (steps / total.weight)).astype(np.float32),
            _MEANS: np.where(begins, tensor_values, _NO_TENSOR).astype(np.float32),
        }
        streams = (model.streams + mean).astype(np.float32)
        buffers = (model.buffers + mean_buffers).astype(np.float32) if num_buffers else model.buffers
        return ServerState(ModelState(streams, buffers), state.round + 1, memory)

    def _starts(self, state: ServerState) -> NDArray[np.uint32]:
        """Return where the tensors begin; none before the first round."""
        means = state.memory.get(_MEANS)
        return np.empty(0, np.uint32) if means is None else np.flatnonzero(means >= 0).astype(np.uint32)


def fedadamw(
    local: AdamConfig = AdamConfig(  # noqa: B008 -- frozen
        eps=1e-8, eps_inside_sqrt=False, bias_correction="global", weight_decay=0.01
    ),
    *,
    gamma: float = 0.5,
    values: str = "float32",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """FedAdamW: local AdamW along the last global change, second moments as one mean a tensor; d q bits up and a few numbers.

    Args:
        local: Local AdamW's settings; but for the learning rate, the authors' as default.
        gamma: How much of the last global change is added over a round, in [0, 1].
        values: The uplink's value coding of the weights.
        buffers: What happens to batch-norm statistics.
    """
    return Algorithm(
        name="fedadamw",
        num_streams=1,
        local=local,
        client=FedAdamWClient(gamma, buffers),
        server=FedAdamWServer(buffers),
        uplink=coded("fedadamw", values, "float32", "float32"),
        downlink=get_codec("exact"),
        paper_bits=DenseBits(1),
    )
