"""One round in small pieces: what tests that work steps out by hand share. Everything goes over the wire."""

from __future__ import annotations

import numpy as np

from comask.algorithms.base import ClientContext, Upload
from comask.state import ModelState
from comask.wire import ParamLayout, decode, encode

NO_BUFFERS = np.empty(0, np.float32)


def vector(*numbers):
    return np.array(numbers, np.float32)


def flat_layout(dim):
    return ParamLayout(("w",), ((dim,),))


def begin(algorithm, state, memory=None):
    """Start a client from the whole broadcast."""
    broadcast = encode(algorithm.server.broadcast(state), algorithm.downlink)
    return algorithm.client.begin(decode(broadcast, dim=state.model.dim), memory or {})


def follow(algorithm, state, memory):
    """Start a client from the increment."""
    increment = encode(algorithm.increment.message(state), algorithm.increment.codec)
    return algorithm.client.begin(decode(increment, dim=state.model.dim), memory)


def finish(algorithm, start, end, memory=None, *, client=0, weight=1.0, round_number=1, layout=None, steps=1):
    """Return the upload as the server decodes it, and the client's next memory; `end` may be an array of streams."""
    layout = layout or flat_layout(start.dim)
    if not isinstance(end, ModelState):
        end = ModelState(np.array(end, np.float32), start.buffers)
    context = ClientContext(round_number, client, 0, layout, algorithm.uplink, steps)
    update, memory = algorithm.client.finish(start, end, memory or {}, context)
    payload = encode(update, algorithm.uplink, layout=layout)
    return Upload(client, weight, decode(payload, dim=start.dim, layout=layout)), memory


def moved(start, change):
    """Return the start with a change of its weights."""
    streams = start.streams.copy()
    streams[0] += np.asarray(change, np.float32)
    return ModelState(streams, start.buffers)
