"""The local optimisers: real `torch.optim.Optimizer`s over the flat vector of a `FlatModel`.

A user's own training loop can run them (`zero_grad`, `backward`, `step`, learning-rate schedulers); when it is over,
`streams()` returns what the algorithm's client rule compares with the start.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from comask.errors import ConfigError
from comask.flat import FlatModel, as_tensor
from comask.hyperparams import AdamConfig, GradientConfig, LocalConfig, SGDConfig
from comask.kernels.adam import adam_step
from comask.state import DRIFT, FIRST_MOMENT, SECOND_MOMENT, ModelState


class LocalOptimizer(torch.optim.Optimizer, ABC):
    """What the local optimisers share: one parameter, the flat vector, whose gradient is never detached from it.

    Attributes:
        steps: Steps taken since this object was made.
    """

    def __init__(self, model: FlatModel, defaults: dict[str, Any]) -> None:
        self._model = model
        self.steps = 0
        super().__init__([model.vector], defaults)

    def zero_grad(self, set_to_none: bool = False) -> None:  # noqa: ARG002 -- torch's signature
        """Zero the flat gradient. It is a view that the module shares, so it is never set to None."""
        self._model.zero_grad()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; `closure`, if given, recomputes the loss and returns it."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._update(self._model.vector, cast("Tensor", self._model.vector.grad), self.param_groups[0])
        self.steps += 1
        return loss

    @abstractmethod
    def _update(self, params: Tensor, grads: Tensor, group: dict[str, Any]) -> None: ...

    @abstractmethod
    def streams(self) -> NDArray[np.float32]:
        """Return the state after training as the rows of `ModelState.streams`, shape `(s, d)`: a copy."""


class LocalAdam(LocalOptimizer):
    """Adam over one flat vector, in one fused pass, with the paper's convention as default.

    With `AdamConfig(eps_inside_sqrt=False, bias_correction="local")` it equals `torch.optim.Adam` (with
    `decoupled=False`) or `torch.optim.AdamW` to float32 rounding.

    Args:
        model: The flat model whose vector is trained.
        config: Learning rate, betas and the switches; each also lives in `param_groups[0]`, where schedulers look.
        first_moment: Shape `(d,)`, copied; zeros if None.
        second_moment: Shape `(d,)`, copied; zeros if None.
        first_step: Steps already taken before this optimiser was made; counts only with bias correction.
        freeze_second_moment: Leave the second moment as it was given.
        drift: Shape `(d,)`, added to the weights after every step; None: nothing is.
    """

    def __init__(
        self,
        model: FlatModel,
        config: AdamConfig = AdamConfig(),  # noqa: B008 -- frozen, so sharing it is safe
        *,
        first_moment: NDArray[np.float32] | None = None,
        second_moment: NDArray[np.float32] | None = None,
        first_step: int = 0,
        freeze_second_moment: bool = False,
        drift: NDArray[np.float32] | None = None,
    ) -> None:
        defaults = {name: getattr(config, name) for name in config.__dataclass_fields__}
        super().__init__(model, defaults)
        self._frozen = freeze_second_moment
        self._drift = None if drift is None else as_tensor(drift).to(model.vector.device)
        state = self.state[model.vector]
        state["step"] = first_step
        for name, given in (("first_moment", first_moment), ("second_moment", second_moment)):
            moment = torch.zeros_like(model.vector.data)
            if given is not None:
                if given.shape != tuple(moment.shape):
                    raise ConfigError(
                        f"LocalAdam({name}=...) must have shape {tuple(moment.shape)}, got {given.shape}."
                    )
                moment.copy_(as_tensor(given))
            state[name] = moment

    def _update(self, params: Tensor, grads: Tensor, group: dict[str, Any]) -> None:
        state = self.state[params]
        state["step"] += 1
        coefficients = _adam_coefficients(group, state["step"], frozen=self._frozen)
        first, second = state["first_moment"], state["second_moment"]
        if params.device.type == "cpu":
            adam_step(
                params.detach().numpy(),
                grads.numpy(),
                first.numpy(),
                second.numpy(),
                np.array(coefficients, np.float32),
            )
        else:
            _adam_step_tensors(params, grads, first, second, coefficients)
        if self._drift is not None:
            params.add_(self._drift)

    def streams(self) -> NDArray[np.float32]:
        """Return weights, first and second moment, shape `(3, d)`: a copy."""
        state = self.state[self._model.vector]
        rows = torch.stack([self._model.vector.detach(), state["first_moment"], state["second_moment"]])
        return cast("NDArray[np.float32]", rows.cpu().numpy())


def _adam_coefficients(group: dict[str, Any], step: int, *, frozen: bool) -> tuple[float, ...]:
    """The ten numbers of one step, computed in double precision, in the order `kernels.adam.adam_step` reads them."""
    lr, beta1, eps = group["lr"], group["beta1"], group["eps"]
    beta2 = 1.0 if frozen else group["beta2"]
    corrected = group["bias_correction"] != "none"
    c1 = 1.0 - beta1**step if corrected else 1.0
    c2 = 1.0 - beta2**step if corrected and not frozen else 1.0
    inside = group["eps_inside_sqrt"]
    decay, decoupled = group["weight_decay"], group["decoupled"]
    return (
        beta1,
        1.0 - beta1,
        beta2,
        1.0 - beta2,
        lr / c1,
        1.0 / c2,
        eps if inside else 0.0,
        0.0 if inside else eps,
        1.0 - lr * decay if decoupled else 1.0,
        0.0 if decoupled else decay,
    )


def _adam_step_tensors(
    params: Tensor, grads: Tensor, first: Tensor, second: Tensor, coefficients: tuple[float, ...]
) -> None:
    """The same step in tensor operations, for devices that numba does not reach."""
    beta1, rest1, beta2, rest2, step, inverse_c2, eps_inside, eps_outside, keep, l2 = coefficients
    if l2:
        grads = grads.add(params, alpha=l2)
    first.mul_(beta1).add_(grads, alpha=rest1)
    second.mul_(beta2).addcmul_(grads, grads, value=rest2)
    denominator = second.mul(inverse_c2).add_(eps_inside).sqrt_().add_(eps_outside)
    params.mul_(keep).addcdiv_(first, denominator, value=-step)


class LocalSGD(LocalOptimizer):
    """Stochastic gradient descent over one flat vector.

    Args:
        model: The flat model whose vector is trained.
        config: Learning rate and switches; each also lives in `param_groups[0]`.
    """

    def __init__(self, model: FlatModel, config: SGDConfig = SGDConfig()) -> None:  # noqa: B008 -- frozen
        super().__init__(model, {name: getattr(config, name) for name in config.__dataclass_fields__})
        if config.momentum:
            self.state[model.vector]["momentum_buffer"] = torch.zeros_like(model.vector.data)

    def _update(self, params: Tensor, grads: Tensor, group: dict[str, Any]) -> None:
        if group["weight_decay"]:
            grads = grads.add(params, alpha=group["weight_decay"])
        if group["momentum"]:
            grads = self.state[params]["momentum_buffer"].mul_(group["momentum"]).add_(grads)
        params.add_(grads, alpha=-group["lr"])

    def streams(self) -> NDArray[np.float32]:
        """Return the weights, shape `(1, d)`: a copy."""
        return self._model.params_array()[None]


class MeanGradient(LocalOptimizer):
    """FedSGD's device: collect gradients at fixed weights, and step once along their mean when asked for the result.

    Args:
        model: The flat model whose vector stays where it is.
        config: Step size and decay; each also lives in `param_groups[0]`.
    """

    def __init__(self, model: FlatModel, config: GradientConfig = GradientConfig()) -> None:  # noqa: B008 -- frozen
        super().__init__(model, {name: getattr(config, name) for name in config.__dataclass_fields__})
        self.state[model.vector] |= {"step": 0, "gradient_sum": torch.zeros_like(model.vector.data)}

    def _update(self, params: Tensor, grads: Tensor, group: dict[str, Any]) -> None:
        state = self.state[params]
        state["step"] += 1
        state["gradient_sum"].add_(grads)
        if group["weight_decay"]:
            state["gradient_sum"].add_(params, alpha=group["weight_decay"])

    def streams(self) -> NDArray[np.float32]:
        """Return the weights after one step along the mean gradient, shape `(1, d)`."""
        state, lr = self.state[self._model.vector], self.param_groups[0]["lr"]
        gradient = state["gradient_sum"] / max(1, state["step"])
        weights = self._model.vector.detach().add(gradient, alpha=-lr)
        return cast("NDArray[np.float32]", weights.cpu().numpy()[None])


def local_optimizer(
    config: LocalConfig, model: FlatModel, start: ModelState, *, steps_before: int = 0
) -> LocalOptimizer:
    """Load `start` into the model and make the optimiser that `config` describes.

    Args:
        config: An algorithm's `local` settings.
        model: Its weights and buffers are overwritten.
        start: What the client rule's `begin` returned.
        steps_before: Local steps of earlier rounds; counts only with `bias_correction="global"`.
    """
    model.load(start.params, start.buffers)
    model.zero_grad()
    if isinstance(config, SGDConfig):
        return LocalSGD(model, config)
    if isinstance(config, GradientConfig):
        return MeanGradient(model, config)
    return LocalAdam(
        model,
        config,
        first_moment=start.streams[FIRST_MOMENT],
        second_moment=start.streams[SECOND_MOMENT],
        first_step=steps_before if config.bias_correction == "global" else 0,
        freeze_second_moment=start.frozen_second_moment,
        drift=start.streams[DRIFT] if len(start.streams) > DRIFT else None,
    )
