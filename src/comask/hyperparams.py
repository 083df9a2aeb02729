"""Settings of the local optimisers: plain data, free of torch, so that an algorithm can name them on any machine."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from comask.errors import ConfigError

BiasCorrection = Literal["none", "local", "global"]


def require_finite(
    owner: str, name: str, value: float, *, low: float, high: float = math.inf, open_low: bool = False
) -> None:
    """Raise ConfigError unless `low <= value <= high` (`low < value` with `open_low`) and `value` is finite."""
    if not math.isfinite(value) or value < low or value > high or (open_low and value == low):
        bound = f"above {low}" if open_low else f"at least {low}"
        limit = "" if high == math.inf else f" and at most {high}"
        raise ConfigError(f"{owner}({name}=...) must be {bound}{limit}, got {value!r}.")


@dataclass(frozen=True, slots=True)
class AdamConfig:
    """Local Adam, by default in the convention of FedAdam-SSM as reconstructed here.

    One step, with g the gradient (and `g += weight_decay * w` first, unless the decay is decoupled):

    ```
    m = beta1 m + (1 - beta1) g        v = beta2 v + (1 - beta2) g*g
    w = w (1 - lr weight_decay) - lr (m / c1) / sqrt(v / c2 + eps)           eps_inside_sqrt=True
    w = w (1 - lr weight_decay) - lr (m / c1) / (sqrt(v / c2) + eps)         eps_inside_sqrt=False
    ```

    Attributes:
        lr: Learning rate, above 0.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        eps: At least 0. Inside the root it has the unit of a squared gradient, outside that of a gradient.
        eps_inside_sqrt: Where eps stands. `torch.optim.Adam` puts it outside.
        bias_correction: `"none"`: c1 = c2 = 1. `"local"`: c = 1 - beta^t with t counted from the start of each round.
            `"global"`: t counted over all rounds. The published abstract names none of these; `"none"` is the reading
            taken for FedAdam-SSM (see docs/decisions).
        weight_decay: At least 0.
        decoupled: AdamW's decay of the weights (True) or an L2 term in the gradient (False).
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-6
    eps_inside_sqrt: bool = True
    bias_correction: BiasCorrection = "none"
    weight_decay: float = 0.0
    decoupled: bool = True

    def __post_init__(self) -> None:
        require_finite("AdamConfig", "lr", self.lr, low=0.0, open_low=True)
        for name, beta in (("beta1", self.beta1), ("beta2", self.beta2)):
            if not 0.0 <= beta < 1.0:
                raise ConfigError(f"AdamConfig({name}=...) must be in [0, 1), got {beta!r}.")
        require_finite("AdamConfig", "eps", self.eps, low=0.0)
        require_finite("AdamConfig", "weight_decay", self.weight_decay, low=0.0)
        if self.bias_correction not in ("none", "local", "global"):
            raise ConfigError(
                f"AdamConfig(bias_correction=...) must be 'none', 'local' or 'global', got {self.bias_correction!r}."
            )


@dataclass(frozen=True, slots=True)
class SGDConfig:
    """Local stochastic gradient descent: `b = momentum b + g; w = w - lr b`.

    Attributes:
        lr: Learning rate, above 0.
        momentum: In [0, 1). The momentum buffer starts from zero in every round and stays on the device.
        weight_decay: At least 0; an L2 term in the gradient.
    """

    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_finite("SGDConfig", "lr", self.lr, low=0.0, open_low=True)
        if not 0.0 <= self.momentum < 1.0:
            raise ConfigError(f"SGDConfig(momentum=...) must be in [0, 1), got {self.momentum!r}.")
        require_finite("SGDConfig", "weight_decay", self.weight_decay, low=0.0)


@dataclass(frozen=True, slots=True)
class GradientConfig:
    """FedSGD: the weights stay where they are, gradients are averaged over the local steps, and one step is taken.

    Attributes:
        lr: Size of the one step along the mean gradient, above 0.
        weight_decay: At least 0; an L2 term in the gradient.
    """

    lr: float = 0.1
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_finite("GradientConfig", "lr", self.lr, low=0.0, open_low=True)
        require_finite("GradientConfig", "weight_decay", self.weight_decay, low=0.0)


LocalConfig = AdamConfig | SGDConfig | GradientConfig
