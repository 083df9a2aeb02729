"""A module as one flat vector, and back, without copying.

The parameters that require a gradient become views of one float32 vector, their gradients views of a second, and the
floating-point buffers (batch norm's running statistics) views of a third. An optimiser, a mask or a codec then works on
plain vectors; the module notices nothing.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from comask.errors import ConfigError
from comask.wire.update import ParamLayout


class FlatModel:
    """A module whose trained parameters, gradients and buffers lie in three flat vectors.

    The order is that of `module.named_parameters()`; parameters that do not require a gradient (a frozen backbone under
    LoRA) stay outside, tied parameters appear once. Integer buffers (batch norm's step counter) are left to the module.

    Moving or casting the module afterwards (`module.to(...)`) would tear the views apart: move it first.

    Args:
        module: Any module with at least one trained parameter, all of them float32 and on one device.

    Attributes:
        module: The module given.
        layout: Names and shapes of the trained parameters, in flat order.
        vector: Shape `(d,)`, a parameter whose `.grad` is the flat gradient: what the local optimisers step.
        buffers: Shape `(b,)`, the floating-point buffers.

    Raises:
        ConfigError: If nothing is to be trained, or dtypes or devices are mixed.
    """

    def __init__(self, module: nn.Module) -> None:
        trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        floating = [(name, b) for name, b in module.named_buffers() if b.is_floating_point()]
        if not trained:
            raise ConfigError(
                "FlatModel needs a module with at least one parameter that requires a gradient, got none."
            )
        device = trained[0][1].device
        for name, tensor in [*trained, *floating]:
            if tensor.dtype != torch.float32 or tensor.device != device:
                raise ConfigError(
                    f"FlatModel needs float32 tensors on one device ({device}); {name!r} is {tensor.dtype} on {tensor.device}."
                )
        self.module = module
        self.layout = ParamLayout(
            names=tuple(name for name, _ in trained),
            shapes=tuple(tuple(p.shape) for _, p in trained),
        )
        self._parameters = [p for _, p in trained]
        values = _flatten([p.data for p in self._parameters], device)
        self._grads = torch.zeros_like(values)
        self.vector = nn.Parameter(values)
        self.vector.grad = self._grads
        for parameter, view in zip(self._parameters, self._views(values), strict=True):
            parameter.data = view
        self._attach_grads()
        self.buffers = _flatten([b.data for _, b in floating], device)
        offset = 0
        for _, buffer in floating:
            buffer.data = self.buffers[offset : offset + buffer.numel()].view(buffer.shape)
            offset += buffer.numel()

    @property
    def dim(self) -> int:
        """Number of trained parameters, `d`."""
        return self.vector.numel()

    @property
    def device(self) -> torch.device:
        """Where the vectors are."""
        return self.vector.device

    def zero_grad(self) -> None:
        """Set the flat gradient to zero, and re-attach the views if somebody set `.grad` to None."""
        self._grads.zero_()
        self._attach_grads()

    def params_array(self) -> NDArray[np.float32]:
        """Return a copy of the weights, shape `(d,)`."""
        return _copy_out(self.vector)

    def buffers_array(self) -> NDArray[np.float32]:
        """Return a copy of the floating-point buffers, shape `(b,)`."""
        return _copy_out(self.buffers)

    def load(self, params: NDArray[np.float32], buffers: NDArray[np.float32]) -> None:
        """Overwrite weights `(d,)` and buffers `(b,)`.

        Raises:
            ConfigError: If a length differs from the model's.
        """
        for what, source, target in (
            ("params", params, self.vector.data),
            ("buffers", buffers, self.buffers),
        ):
            if source.shape != target.shape:
                raise ConfigError(
                    f"FlatModel.load({what}=...) must have shape {tuple(target.shape)}, got {source.shape}."
                )
            target.copy_(as_tensor(source))

    def _attach_grads(self) -> None:
        if self.vector.grad is not self._grads:
            self.vector.grad = self._grads
        for parameter, view in zip(self._parameters, self._views(self._grads), strict=True):
            if parameter.grad is None or parameter.grad.data_ptr() != view.data_ptr():
                parameter.grad = view

    def _views(self, flat: Tensor) -> list[Tensor]:
        pieces = torch.split(flat, list(self.layout.sizes))
        return [piece.view(shape) for piece, shape in zip(pieces, self.layout.shapes, strict=True)]


def as_tensor(array: NDArray[np.float32]) -> Tensor:
    """Return the array as a tensor; a read-only one (a decoded payload) is copied, since torch cannot guard it."""
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _flatten(tensors: list[Tensor], device: torch.device) -> Tensor:
    if not tensors:
        return torch.empty(0, dtype=torch.float32, device=device)
    return torch.cat([t.reshape(-1) for t in tensors])


def _copy_out(tensor: Tensor) -> NDArray[np.float32]:
    return cast("NDArray[np.float32]", tensor.detach().cpu().numpy().copy())
