"""Which positions of an update are kept.

A mask here is its sorted positions. Every rule is exact and deterministic: k positions, ties to the lower one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, overload

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError, NonFiniteError, UnknownNameError
from comask.kernels.select import top_k_abs_indices, top_k_indices
from comask.state import FIRST_MOMENT, SECOND_MOMENT, WEIGHTS
from comask.wire.update import ParamLayout

if TYPE_CHECKING:
    from torch import Tensor


def num_kept(density: float, dim: int) -> int:
    """Return k = round(density * dim), at least 1 unless the density is 0.

    Args:
        density: Fraction kept, in [0, 1].
        dim: Length of the vector, at least 1.

    Raises:
        ConfigError: If the density is not in [0, 1].
    """
    if not 0.0 <= density <= 1.0:
        raise ConfigError(f"density must be in [0, 1], got {density!r}.")
    if density == 0.0:
        return 0
    return max(1, round(density * dim))


@overload
def top_k(scores: NDArray[np.float32], k: int) -> NDArray[np.int64]: ...


@overload
def top_k(scores: Tensor, k: int) -> Tensor: ...


def top_k(scores: NDArray[np.float32] | Tensor, k: int) -> NDArray[np.int64] | Tensor:
    """Return the positions of the k largest scores, ascending; of equal scores the lower position wins.

    `torch.topk` leaves open which of several equal entries it returns; this does not, on any device: a mask is then a
    function of the numbers alone.

    Args:
        scores: Shape `(d,)`, a float32 numpy array or a torch tensor on any device. -0 equals +0; infinities are
            allowed and rank highest (or lowest).
        k: In 0..d.

    Returns:
        Shape `(k,)` int64, of the same kind and on the same device as `scores`.

    Raises:
        NonFiniteError: If a score is NaN; the message names the first position.
        ConfigError: If k is not in 0..d, or the scores are not one float vector.
    """
    if isinstance(scores, np.ndarray):
        return top_k_indices(np.ascontiguousarray(scores, np.float32), k).astype(np.int64)
    import torch  # noqa: PLC0415 -- only a caller who already has a tensor gets here

    if scores.device.type == "cpu":
        return torch.from_numpy(top_k(scores.detach().float().numpy(), k))
    return _top_k_device(scores.detach(), k)


def _top_k_device(scores: Tensor, k: int) -> Tensor:
    """Exact top-k in tensor operations: the k-th largest value, then all above it and the first of its equals."""
    import torch  # noqa: PLC0415 -- as in top_k

    if scores.ndim != 1 or not 0 <= k <= scores.numel():
        raise ConfigError(
            f"top_k needs scores of shape (d,) and k in 0..d, got shape {tuple(scores.shape)} and k={k}."
        )
    nan = scores.isnan()
    if bool(nan.any()):
        raise NonFiniteError("scores", int(nan.nonzero()[0]), math.nan)
    if k == 0:
        return torch.empty(0, dtype=torch.int64, device=scores.device)
    threshold = scores.topk(k, sorted=True).values[-1]
    above = scores > threshold
    equal = (scores == threshold).nonzero().squeeze(1)[: k - int(above.sum())]
    above[equal] = True
    return above.nonzero().squeeze(1)


def fair_indices(rows: NDArray[np.float32], k: int) -> NDArray[np.uint32]:
    """Return k positions by equal turns: each row in turn adds its next largest |entry|, unless it is already in.

    Args:
        rows: Shape `(s, d)`: the rankings, such as dW, dM and dV.
        k: How many positions to keep in all, in 0..d.

    Returns:
        Shape `(k,)`, ascending. When a row's next entry is already in, its turn is spent: as in FAB-top-k (Han, Wang,
        Leung, arXiv 2001.04756), where the devices are what the streams are here.
    """
    ranked = []
    for row in rows:
        kept = top_k_abs_indices(row, k)
        ranked.append(kept[np.argsort(-np.abs(row[kept]), kind="stable")])
    turns = np.stack(ranked, axis=1).reshape(-1)
    _, first_turn = np.unique(turns, return_index=True)
    return np.sort(turns[np.sort(first_turn)[:k]])


MaskRule = Callable[[NDArray[np.float32], int], NDArray[np.uint32]]
"""From the changes of the streams, shape `(s, d)`, and k, to k ascending positions."""


def _by_row(row: int) -> MaskRule:
    return lambda delta, k: top_k_abs_indices(delta[row], k)


MASK_RULES: Mapping[str, MaskRule] = MappingProxyType(
    {
        "w": _by_row(WEIGHTS),
        "m": _by_row(FIRST_MOMENT),
        "v": _by_row(SECOND_MOMENT),
        "fair": fair_indices,
    }
)
"""Mask rules by name: top-k of |dW|, of |dM|, of |dV|, and equal turns among the three.

The rule `bound` needs more than the changes and is a client rule of its own, `comask.algorithms.bound_mask`."""


def mask_rule(name: str) -> MaskRule:
    """Return a mask rule by its name.

    Raises:
        UnknownNameError: If there is none of that name.
    """
    try:
        return MASK_RULES[name]
    except KeyError:
        raise UnknownNameError("mask rule", name, [*MASK_RULES, "bound"]) from None


def select(
    rule: MaskRule, delta: NDArray[np.float32], density: float, layout: ParamLayout | None = None
) -> NDArray[np.uint32]:
    """Apply a rule to the whole flat vector, or to each tensor on its own.

    Args:
        rule: What ranks the positions.
        delta: Shape `(s, d)`, finite: the changes of the streams.
        density: Fraction kept, in [0, 1]: of the vector, or of each tensor.
        layout: If given, each of its tensors keeps `num_kept(density, size)` positions.

    Returns:
        Shape `(k,)`, ascending.
    """
    if layout is None:
        return rule(delta, num_kept(density, delta.shape[1]))
    pieces = []
    for begin, size in zip(layout.offsets, layout.sizes, strict=False):
        if size:
            piece = np.ascontiguousarray(delta[:, begin : begin + size])
            pieces.append(rule(piece, num_kept(density, size)) + np.uint32(begin))
    return np.concatenate(pieces)
