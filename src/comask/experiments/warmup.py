"""Compile the kernels once, by tiny real calls, so that the first round of a client or a server does not wait for it.

Compiled kernels are cached on disk, beside the package or (where that cannot be written) in the user's cache folder; a
later process loads them.
"""

from __future__ import annotations

import importlib.util
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from comask.algorithms import ALGORITHMS, Algorithm, ClientContext, Upload, make_algorithm
from comask.masks import MASK_RULES, select, top_k
from comask.seeding import derive_rng
from comask.state import SECOND_MOMENT, ModelState
from comask.wire import ParamLayout, decode, encode
from comask.wire.warmup import warm_up as warm_up_codec

_DIM = 4096
_LAYOUT = ParamLayout(("matrix",), ((64, 64),))
_KEPT = 200
_LONG = 1 << 20  # long vectors are selected from by other kernels, on several threads


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What was done.

    Attributes:
        codec_seconds: Every coding, every mask rule, and one round of every algorithm without training.
        optimizer_seconds: Local Adam's step, the time to import torch included; None where torch is not installed.
    """

    codec_seconds: float
    optimizer_seconds: float | None

    def describe(self) -> str:
        """Return one line."""
        local = (
            "local Adam left out, for torch is not installed"
            if self.optimizer_seconds is None
            else f"local Adam {self.optimizer_seconds:.1f} s"
        )
        return f"Compiled or loaded: codec, masks and aggregation {self.codec_seconds:.1f} s, {local}."


def warm_up() -> WarmUp:
    """Compile, or load from the cache, every kernel that clients and servers call."""
    began = time.perf_counter()
    warm_up_codec()
    for rule in MASK_RULES.values():
        select(rule, _change(3), _KEPT / _DIM)
    for dim in (_DIM, _LONG):
        top_k(_change(1, dim)[0], _KEPT)
    for name in ALGORITHMS:
        _run_round(make_algorithm(name))
    codec_seconds = time.perf_counter() - began
    if importlib.util.find_spec("torch") is None:
        return WarmUp(codec_seconds, None)
    began = time.perf_counter()
    _step()
    return WarmUp(codec_seconds, time.perf_counter() - began)


def _run_round(algorithm: Algorithm) -> None:
    """Run one round of one client and the server, with local training replaced by a random change."""
    server, client = algorithm.server, algorithm.client
    state = server.init(np.zeros(_DIM, np.float32), np.zeros(1, np.float32))
    message = decode(encode(server.broadcast(state), algorithm.downlink), dim=_DIM)
    start = client.begin(message, {})
    end = ModelState(start.streams + _change(len(start.streams)), start.buffers)
    context = ClientContext(1, 0, 0, _LAYOUT, algorithm.uplink)
    update, _ = client.finish(start, end, {}, context)
    received = decode(encode(update, algorithm.uplink, layout=_LAYOUT, seed=0), dim=_DIM, layout=_LAYOUT)
    server.check(state, received)
    server.aggregate(state, [Upload(0, 1.0, received)])


def _step() -> None:
    """Take one step of local Adam."""
    from torch import nn  # noqa: PLC0415  # a server needs no torch

    from comask.flat import FlatModel  # noqa: PLC0415
    from comask.optim import LocalAdam  # noqa: PLC0415

    LocalAdam(FlatModel(nn.Linear(8, 8))).step()


def _change(streams: int, dim: int = _DIM) -> NDArray[np.float32]:
    """Return a change of the streams, shape `(streams, dim)`; that of the second moment is not negative."""
    change = derive_rng(0, "warmup").standard_normal((streams, dim), np.float32)
    if streams > SECOND_MOMENT:
        np.abs(change[SECOND_MOMENT], out=change[SECOND_MOMENT])
    return change
