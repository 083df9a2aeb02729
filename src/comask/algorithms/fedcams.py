"""FedCAMS: AMSGrad on the server, compressed uploads with error feedback.

Source: Wang, Lin, Chen, "Communication-Efficient Adaptive Federated Learning", ICML 2022, arXiv 2205.02719, and its
authors' program (github.com/jinghuichen/FedCAMS). Devices run plain SGD; only devices that took part in a round change
their residual. The running maximum has a floor: the paper takes `vhat = max(vhat, v, eps)` and divides by `sqrt(vhat)`, and
so does this; the program's published runs do the same, with the floor `1e-3` and nothing added outside the root. The program
also corrects both moments for their start at zero, which the paper's algorithm does not: an option here.

Without compression (`compressor="none"`) it is FedAMS. The downlink is dense, as in the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.accounting import DenseBits, SharedMaskBits, SignBits
from comask.algorithms.base import Algorithm, Memory, PaperBits, ServerState
from comask.algorithms.coded import coded
from comask.algorithms.delta import BufferPolicy, DeltaClient, Selector, keep_all
from comask.algorithms.fedadam_ssm import SharedMask
from comask.algorithms.fedopt_adam import require_server_adam
from comask.algorithms.quantisers import ScaledSign
from comask.algorithms.server_step import SteppingServer
from comask.errors import ConfigError
from comask.hyperparams import SGDConfig, require_finite
from comask.wire.codec import get_codec

Compressor = Literal["sign", "top", "none"]
"""`sign`: sign(x) ||x||_1 / d, one bit a parameter. `top`: the k largest magnitudes. `none`: everything."""


@dataclass(frozen=True, slots=True)
class AMSGradStep:
    """AMSGrad along the mean change D: Adam whose second moment may only grow; `lr m / sqrt(vhat)`, vhat at least `floor`.

    Attributes:
        lr: Server learning rate, above 0.
        beta1: In [0, 1).
        beta2: In [0, 1).
        floor: The least vhat, above 0: the paper's eps, in squares of changes.
        bias_correction: Divide m by `1 - beta1^t` and vhat by `1 - beta2^t`, t the round.
    """

    lr: float
    beta1: float
    beta2: float
    floor: float
    bias_correction: bool = False

    def __post_init__(self) -> None:
        require_server_adam(self.lr, self.beta1, self.beta2)
        require_finite("fedcams", "floor", self.floor, low=0.0, open_low=True)

    def __call__(self, mean: NDArray[np.float64], state: ServerState) -> tuple[NDArray[np.float64], Memory]:
        """Return the change, shape `(1, d)`, and both moments with the running maximum."""
        first = self.beta1 * state.memory.get("first_moment", 0.0) + (1.0 - self.beta1) * mean
        second = self.beta2 * state.memory.get("second_moment", 0.0) + (1.0 - self.beta2) * mean**2
        largest = np.maximum(state.memory.get("largest", self.floor), second)
        memory = {
            "first_moment": first.astype(np.float32),
            "second_moment": second.astype(np.float32),
            "largest": largest.astype(np.float32),
        }
        if self.bias_correction:
            first = first / (1.0 - self.beta1 ** (state.round + 1))
            largest = largest / (1.0 - self.beta2 ** (state.round + 1))
        return self.lr * first / np.sqrt(largest), memory


def fedcams(
    local: SGDConfig = SGDConfig(lr=0.01),  # noqa: B008 -- frozen
    *,
    compressor: Compressor = "top",
    density: float = 0.05,
    server_lr: float = 0.1,
    server_beta1: float = 0.9,
    server_beta2: float = 0.99,
    floor: float = 1e-3,
    server_bias_correction: bool = False,
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """FedCAMS: local SGD, compressed changes with error feedback, AMSGrad on the server; min{k(q + log2 d), kq + d} bits up.

    Args:
        local: Local SGD's settings.
        compressor: `top`, `sign` (about d bits up) or `none` (FedAMS; d q bits up).
        density: Fraction kept by `top`, in [0, 1].
        server_lr: The server's learning rate. The program's own default is 1; with its floor that is thirty times the mean change.
        server_beta1: Decay of the server's first moment.
        server_beta2: Decay of the server's second moment.
        floor: The least value of the running maximum, in squares of changes.
        server_bias_correction: Correct the server's moments for their start at zero, as the authors' program does.
        buffers: What happens to batch-norm statistics.

    Raises:
        ConfigError: If a value is not allowed.
    """
    choices: dict[Compressor, tuple[Selector, PaperBits, str]] = {
        "sign": (ScaledSign("l1"), SignBits(), "sign"),
        "top": (SharedMask(density), SharedMaskBits(density, num_streams=1), "float32"),
        "none": (keep_all, DenseBits(1), "float32"),
    }
    if compressor not in choices:
        raise ConfigError(f"compressor must be one of {', '.join(get_args(Compressor))}, got {compressor!r}.")
    selector, paper_bits, values = choices[compressor]
    step = AMSGradStep(server_lr, server_beta1, server_beta2, floor, server_bias_correction)
    return Algorithm(
        name="fedcams",
        num_streams=1,
        local=local,
        client=DeltaClient(selector, ("w",), buffers),
        server=SteppingServer(step, buffers),
        uplink=coded("fedcams", values),
        downlink=get_codec("exact"),
        paper_bits=paper_bits,
    )
