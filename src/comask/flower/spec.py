"""Which tensors of a model travel: the bridge between Flower's named arrays and the flat vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from comask.errors import ConfigError, NonFiniteError
from comask.kernels.rows import first_non_finite
from comask.wire.update import ParamLayout

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Names and shapes of what is trained and of what is only sent along. Pure data: a server needs no torch for it.

    Attributes:
        trained: The parameters that require a gradient, in flat order. Under LoRA these are the adapters alone.
        buffers: The floating-point buffers, such as batch norm's running statistics, in flat order.
        aliases: `(alias, name)`: further names under which a state dict lists a tied parameter.
    """

    trained: ParamLayout
    buffers: ParamLayout
    aliases: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """Return the specification of a module; the same as `FlatModel`'s, without touching the module."""
        trained = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        floating = [(name, b) for name, b in module.named_buffers() if b.is_floating_point()]
        names = {id(p): name for name, p in trained}
        state = module.state_dict(keep_vars=True)
        return cls(
            ParamLayout(tuple(name for name, _ in trained), tuple(tuple(p.shape) for _, p in trained)),
            ParamLayout(tuple(name for name, _ in floating), tuple(tuple(b.shape) for _, b in floating)),
            tuple((key, names[id(p)]) for key, p in state.items() if names.get(id(p), key) != key),
        )

    def split(self, arrays: ArrayRecord) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Take the flat weights `(d,)` and buffers `(b,)` out of a record such as `ArrayRecord(model.state_dict())`.

        Raises:
            ConfigError: If a tensor is missing, or has another shape or type.
            NonFiniteError: If one holds NaN or infinity.
        """
        return self.parameters(arrays), _flatten(self.buffers, arrays)

    def parameters(self, arrays: ArrayRecord) -> NDArray[np.float32]:
        """Take only what is trained out of a record, shape `(d,)`; raises as `split`."""
        return _flatten(self.trained, arrays)

    def named_parameters(self, flat: NDArray[np.float32]) -> Mapping[str, NDArray[np.float32]]:
        """Return what is trained by name: views of a flat vector `(d,)`."""
        return dict(_views(self.trained, flat))

    def merge(
        self, params: NDArray[np.float32], buffers: NDArray[np.float32], rest: ArrayRecord
    ) -> ArrayRecord:
        """Return `rest`, in its order, with the tensors of this specification replaced by the given values."""
        tensors = dict(_views(self.trained, params)) | dict(_views(self.buffers, buffers))
        tensors |= {alias: tensors[name] for alias, name in self.aliases}
        return ArrayRecord(
            {
                name: Array(np.ascontiguousarray(tensors[name])) if name in tensors else array
                for name, array in rest.items()
            }
        )


def _views(layout: ParamLayout, flat: NDArray[np.float32]) -> list[tuple[str, NDArray[np.float32]]]:
    offsets = layout.offsets
    return [
        (name, flat[begin:end].reshape(shape))
        for name, shape, begin, end in zip(layout.names, layout.shapes, offsets, offsets[1:], strict=False)
    ]


def _flatten(layout: ParamLayout, arrays: ArrayRecord) -> NDArray[np.float32]:
    flat = np.empty(layout.dim, np.float32)
    for name, view in _views(layout, flat):
        if name not in arrays:
            raise ConfigError(
                f"The arrays lack {name!r}, which the model specification names; they hold: {', '.join(arrays)}."
            )
        tensor = arrays[name].numpy()
        if tensor.shape != view.shape or tensor.dtype != np.float32:
            raise ConfigError(
                f"Array {name!r} must be float32 of shape {view.shape}, got {tensor.dtype} of shape {tensor.shape}."
            )
        view[...] = tensor
    position = first_non_finite(flat)
    if position >= 0:
        raise NonFiniteError("The model's flat vector", position, float(flat[position]))
    return flat
