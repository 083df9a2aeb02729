"""A client that runs Adam, sends the change of the weights alone, and keeps both moments to itself."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from comask.algorithms.base import ClientContext, ClientRule, Memory
from comask.algorithms.delta import STREAM_NAMES
from comask.errors import NonFiniteError
from comask.kernels.rows import first_non_finite
from comask.state import FIRST_MOMENT, ModelState
from comask.wire.update import Update

_MOMENTS = "moments"


@dataclass(frozen=True, slots=True)
class LocalMoments:
    """Give local Adam this client's own moments, and another rule the weights.

    Moments of zero in the client's first round; they are remembered with the rest of its memory, that is, once its upload
    is accepted.

    Attributes:
        inner: The rule that sends the weights.
    """

    inner: ClientRule

    def begin(self, broadcast: Update, memory: Memory) -> ModelState:
        """Put the moments of the last round below the weights."""
        start = self.inner.begin(broadcast, memory)
        moments = memory.get(_MOMENTS, np.zeros((2, start.dim), np.float32))
        return replace(start, streams=np.concatenate([start.streams, moments]))

    def finish(
        self, start: ModelState, end: ModelState, memory: Memory, context: ClientContext
    ) -> tuple[Update, Memory]:
        """Send the weights by the inner rule, and keep the moments.

        Raises:
            NonFiniteError: If training produced NaN or infinity.
        """
        update, kept = self.inner.finish(weights_of(start), weights_of(end), memory, context)
        moments = end.streams[FIRST_MOMENT:]
        require_finite_moments(end, context)
        return update, {**kept, _MOMENTS: moments}


def weights_of(state: ModelState) -> ModelState:
    """Return the state without its moments."""
    return ModelState(state.streams[:FIRST_MOMENT], state.buffers)


def require_finite_moments(state: ModelState, context: ClientContext) -> None:
    """Refuse moments with NaN or infinity, which would never leave a device that keeps them.

    Raises:
        NonFiniteError: The message names the client, the stream and the position.
    """
    for name, row in zip(STREAM_NAMES[FIRST_MOMENT:], state.streams[FIRST_MOMENT:], strict=False):
        position = first_non_finite(row)
        if position >= 0:
            raise NonFiniteError(
                f"Stream {name!r} of client {context.client}", position, float(row[position])
            )
