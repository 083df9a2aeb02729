"""FedOpt's Adam: plain SGD on the devices, Adam on the server.

Source: Reddi, Charles, Zaheer, Garrett, Rush, Konecny, Kumar, McMahan, "Adaptive Federated Optimization", ICLR 2021,
arXiv 2003.00295, where it is called FedAdam. A different algorithm from the `fedadam` of this table: there devices run
Adam on true gradients and upload three streams; here the server runs Adam on the mean change, and devices upload one.

Two details differ between the paper and the programs that carry its name, and are options here: whether moments are
corrected for their start at zero (the paper does not; Keras and Flower do), and the second moment's start (the paper asks
for at least tau^2, which is the default; programs start from 0).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.accounting import DenseBits
from comask.algorithms.base import Algorithm, Memory, ServerState
from comask.algorithms.delta import BufferPolicy, DeltaClient, keep_all
from comask.algorithms.server_step import SteppingServer
from comask.errors import ConfigError
from comask.hyperparams import SGDConfig, require_finite
from comask.wire.codec import Codec, get_codec


@dataclass(frozen=True, slots=True)
class AdamStep:
    """Adam along the mean change D: `m = beta1 m + (1 - beta1) D; v = beta2 v + (1 - beta2) D*D; lr m / (sqrt(v) + tau)`.

    Attributes:
        lr: Server learning rate, above 0.
        beta1: In [0, 1).
        beta2: In [0, 1).
        tau: Adaptivity: what stands beside the root; above 0.
        bias_correction: Divide m by `1 - beta1^t` and v by `1 - beta2^t`, t the round, and start v from 0 instead of tau^2.
    """

    lr: float
    beta1: float
    beta2: float
    tau: float
    bias_correction: bool = False

    def __post_init__(self) -> None:
        require_server_adam(self.lr, self.beta1, self.beta2)
        require_finite("fedopt-adam", "tau", self.tau, low=0.0, open_low=True)

    def __call__(self, mean: NDArray[np.float64], state: ServerState) -> tuple[NDArray[np.float64], Memory]:
        """Return the change, shape `(1, d)`, and both moments."""
        start = 0.0 if self.bias_correction else self.tau**2
        first = self.beta1 * state.memory.get("first_moment", 0.0) + (1.0 - self.beta1) * mean
        second = self.beta2 * state.memory.get("second_moment", start) + (1.0 - self.beta2) * mean**2
        memory = {"first_moment": first.astype(np.float32), "second_moment": second.astype(np.float32)}
        if self.bias_correction:
            first = first / (1.0 - self.beta1 ** (state.round + 1))
            second = second / (1.0 - self.beta2 ** (state.round + 1))
        return self.lr * first / (np.sqrt(second) + self.tau), memory


def require_server_adam(lr: float, beta1: float, beta2: float) -> None:
    """Raise ConfigError unless the three settings that every server Adam has are allowed."""
    require_finite("server Adam", "server_lr", lr, low=0.0, open_low=True)
    for name, beta in (("server_beta1", beta1), ("server_beta2", beta2)):
        if not 0.0 <= beta < 1.0:
            raise ConfigError(f"{name} must be in [0, 1), got {beta!r}.")


def fedopt_adam(
    local: SGDConfig = SGDConfig(),  # noqa: B008 -- frozen
    *,
    server_lr: float = 0.01,
    server_beta1: float = 0.9,
    server_beta2: float = 0.99,
    tau: float = 1e-3,
    server_bias_correction: bool = False,
    codec: Codec | str = "exact",
    buffers: BufferPolicy = "average",
) -> Algorithm:
    """FedOpt's Adam (Reddi et al.): local SGD, one Adam step on the server along the mean change; d q bits up.

    Args:
        local: Local SGD's settings.
        server_lr: The server's learning rate, eta.
        server_beta1: Decay of the server's first moment.
        server_beta2: Decay of the server's second moment.
        tau: The server's adaptivity; small is more adaptive.
        server_bias_correction: Correct the server's moments for their start at zero, as Keras does.
        codec: The uplink codec, or the name of a preset.
        buffers: What happens to batch-norm statistics.
    """
    step = AdamStep(server_lr, server_beta1, server_beta2, tau, server_bias_correction)
    return Algorithm(
        name="fedopt-adam",
        num_streams=1,
        local=local,
        client=DeltaClient(keep_all, buffers=buffers),
        server=SteppingServer(step, buffers),
        uplink=get_codec(codec),
        downlink=get_codec("exact"),
        paper_bits=DenseBits(1),
    )
