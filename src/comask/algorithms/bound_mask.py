"""The mask that minimises the divergence bound, coordinate by coordinate.

Source: derived here; `docs/theory.md`, section 5, equation (25). Deng et al. (arXiv 2405.17932) choose the shared mask "by
minimizing the divergence bound"; top-k of |dW| is what is left of this score where the effect of dM and dV on the next
round's weights is small: with few local steps it is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.base import ClientContext, Memory
from comask.algorithms.delta import DeltaClient
from comask.errors import ConfigError
from comask.hyperparams import AdamConfig
from comask.masks import mask_rule, num_kept, select
from comask.state import FIRST_MOMENT, SECOND_MOMENT, WEIGHTS, ModelState
from comask.theory.mask import bound_scores
from comask.wire.update import Block, ParamLayout, Update


@dataclass(frozen=True, slots=True, eq=False)
class BoundMask:
    """A selector: one mask for W, M and V, the top-k of `comask.theory.bound_scores`.

    Attributes:
        density: Fraction kept, in [0, 1].
        per_tensor: Select within each tensor instead of over the whole vector.
        adam: Local Adam's settings.
        end: The state after local training.
        local_steps: Steps of the next round, taken to be those of this one.
    """

    density: float
    per_tensor: bool
    adam: AdamConfig
    end: ModelState
    local_steps: int

    def __call__(self, delta: NDArray[np.float32], layout: ParamLayout) -> tuple[Block, ...]:
        """Return one block of all streams."""
        scores = bound_scores(
            delta[WEIGHTS],
            delta[FIRST_MOMENT],
            delta[SECOND_MOMENT],
            self.end.streams[SECOND_MOMENT],
            self.end.streams[FIRST_MOMENT],
            lr=self.adam.lr,
            beta1=self.adam.beta1,
            beta2=self.adam.beta2,
            eps=self.adam.eps,
            local_steps=self.local_steps,
        )
        indices = select(mask_rule("w"), scores[None], self.density, layout if self.per_tensor else None)
        return (Block(indices, delta[:, indices]),)


@dataclass(frozen=True, slots=True)
class BoundMaskClient:
    """A client rule whose selector knows the state that training ended in.

    Attributes:
        inner: All but the selection: feedback and buffers.
        density: Fraction kept, in [0, 1].
        per_tensor: Select within each tensor instead of over the whole vector.
        adam: Local Adam's settings.

    Raises:
        ConfigError: If the density is not allowed, or Adam's settings are not those that the score is derived for.
    """

    inner: DeltaClient
    density: float
    per_tensor: bool
    adam: AdamConfig

    def __post_init__(self) -> None:
        num_kept(self.density, 1)  # raises if the density is not allowed
        if not self.adam.eps_inside_sqrt or self.adam.bias_correction != "none" or self.adam.eps == 0:
            raise ConfigError(
                "mask='bound' is derived for eps above 0 inside the root and no bias correction, got "
                f"eps={self.adam.eps!r}, eps_inside_sqrt={self.adam.eps_inside_sqrt!r}, "
                f"bias_correction={self.adam.bias_correction!r}."
            )

    def begin(self, broadcast: Update, memory: Memory) -> ModelState:
        """Start as the inner rule does."""
        return self.inner.begin(broadcast, memory)

    def finish(
        self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext
    ) -> tuple[Update, Memory]:
        """Select by the bound, and finish as the inner rule does.

        Raises:
            NonFiniteError: If training produced NaN or infinity.
        """
        selector = BoundMask(self.density, self.per_tensor, self.adam, end, context.steps)
        return replace(self.inner, select=selector).finish(start, end, memory, context)
