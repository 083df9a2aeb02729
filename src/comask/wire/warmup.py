"""Compile every kernel once, so that later processes find them in numba's cache."""

from __future__ import annotations

import numpy as np

from comask.kernels.rows import first_non_finite, gather_rows, scatter_add_rows
from comask.kernels.select import top_k_abs_indices, top_k_indices
from comask.wire.codec import Codec
from comask.wire.container import decode, encode
from comask.wire.indices import INDEX_CODINGS
from comask.wire.update import Block, Update
from comask.wire.values import VALUE_CODINGS


def warm_up() -> int:
    """Run every coding and every kernel of selection once, on a vector of a few entries.

    The first call on a machine takes about a minute; numba keeps what it compiled beside the package or in its cache
    folder, and later processes load it in milliseconds.

    Returns:
        The number of payloads that were made and read back.
    """
    state = np.linspace(-1, 1, 96, dtype=np.float32).reshape(3, 32)
    indices = top_k_abs_indices(state[0], 5)
    top_k_indices(state[0], 5)
    values = np.empty((3, 5), np.float32)
    gather_rows(state, indices, values)
    scatter_add_rows(np.zeros((3, 32)), indices, values, 1.0)
    first_non_finite(state[0])
    sparse, dense = Update(32, (Block(indices, values),)), Update(32, (Block(None, state),))
    codecs = [Codec("warm-up", name) for name in INDEX_CODINGS if name != "dense"]
    codecs += [
        Codec("warm-up", "rice", (name,), (mode,))
        for name, coding in VALUE_CODINGS.items()
        for mode in coding.modes
    ]
    for codec in codecs:
        decode(encode(sparse, codec, seed=0), dim=32)
    decode(encode(dense), dim=32)
    return len(codecs) + 1
