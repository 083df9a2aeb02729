"""Error feedback: what a round does not send is added to what the next one wants to send.

Per stream and as pure functions: `compensate` before the mask is chosen, `residual` after the upload is made. The caller
keeps the residual and throws it away if the upload is refused (Stich et al. 2018, arXiv 1809.07599).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from comask.errors import ConfigError
from comask.wire.codec import Codec
from comask.wire.container import decode, encode
from comask.wire.update import Update

_LOSSLESS = {"float32"}
"""Value codings that return what they were given: no need to decode in order to know what arrives."""


def compensate(
    delta: NDArray[np.float32], residual: NDArray[np.float32] | None, streams: tuple[int, ...]
) -> None:
    """Add the residual of earlier rounds to the streams that carry one, in place.

    Args:
        delta: Shape `(s, d)`: what this round changed.
        residual: Shape `(len(streams), d)`, or None in a client's first round.
        streams: Rows of `delta` that have feedback.

    Raises:
        ConfigError: If the residual belongs to a model of another size.
    """
    if residual is None:
        return
    if residual.shape != (len(streams), delta.shape[1]):
        raise ConfigError(f"residual must have shape {(len(streams), delta.shape[1])}, got {residual.shape}.")
    for row, stream in enumerate(streams):
        delta[stream] += residual[row]


def residual(
    wanted: NDArray[np.float32],
    update: Update,
    streams: tuple[int, ...],
    codec: Codec,
    *,
    seed: int | None = None,
) -> NDArray[np.float32]:
    """Return what the receiver will not get: wanted minus received.

    Args:
        wanted: Shape `(s, d)`: what would be sent at density 1.
        update: What is sent.
        streams: Rows that have feedback.
        codec: What encodes the update; with a lossy value coding, the rounding error is part of the residual.
        seed: The seed that the upload itself is encoded with, if the codec rounds at random.

    Returns:
        Shape `(len(streams), d)`.
    """
    received = update
    if not set(codec.values) <= _LOSSLESS:
        # How positions and codes are written changes no value; this is the quickest.
        payload = encode(update, replace(codec, indices="bitmap", entropy=False), seed=seed)
        received = decode(payload, dim=update.dim)
    left = wanted[list(streams)]  # a copy: indexing with a list
    stream = 0
    for block in received.blocks:
        for values in block.values:
            if stream in streams:
                row = left[streams.index(stream)]
                if block.indices is None:
                    row -= values
                else:
                    row[block.indices] -= values
            stream += 1
    return left
