"""Conformance suites that anybody can run on an algorithm or a coding of their own.

```python
from comask.testing import check_algorithm

check_algorithm(my_factory)
```

Each law is a function whose docstring states it; `ALGORITHM_LAWS` lists them, so that a test runner can show them one by
one. They raise AssertionError. Only `law_one_client_is_central` needs torch.
"""

from __future__ import annotations

import inspect
import pickle  # to check that an algorithm can travel to a worker process; nothing is loaded from outside
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from comask.algorithms.base import Algorithm, ClientContext, Memory, ServerState, Upload
from comask.errors import NonFiniteError, RefusedUpdateError
from comask.state import SECOND_MOMENT, ModelState
from comask.wire.check import check_coding
from comask.wire.container import decode, encode
from comask.wire.update import Block, ParamLayout, Update

Factory = Callable[..., Algorithm]
"""Makes an algorithm; takes the options of `_DENSITY_OPTIONS` and `_VALUE_OPTIONS` that it has."""

_DENSITY_OPTIONS = ("density", "downlink_density")
_VALUE_OPTIONS = ("values", "moment_values", "downlink_values")

_NO_EXEMPTIONS: Mapping[str, str] = MappingProxyType({})

_E = TypeVar("_E", bound=Exception)
_LAYOUT = ParamLayout(
    ("conv.weight", "conv.bias", "scale", "head.weight"), ((7, 3, 3, 3), (7,), (), (40, 11))
)
_NUM_BUFFERS = 5
_SEED = 20240517


def check_algorithm(make: Factory, *, exempt: Mapping[str, str] = _NO_EXEMPTIONS) -> None:
    """Run every law on an algorithm.

    Args:
        make: Its factory.
        exempt: Names of laws that cannot hold for this algorithm, each with the reason. Such a law must fail: an
            exemption that is not needed is an error, so that none outlives its reason.

    Raises:
        AssertionError: If a law is broken, or an exempted one is not.
    """
    for law in ALGORITHM_LAWS:
        check_law(law, make, exempt=exempt)


def check_law(
    law: Callable[[Factory], None], make: Factory, *, exempt: Mapping[str, str] = _NO_EXEMPTIONS
) -> None:
    """Run one law of `ALGORITHM_LAWS`, with the arguments and errors of `check_algorithm`."""
    reason = exempt.get(law.__name__)
    if reason is None:
        law(make)
        return
    try:
        law(make)
    except Exception:  # noqa: BLE001 -- however it fails, it does not hold
        return
    raise AssertionError(f"{law.__name__} holds, though it is exempted: {reason}")


def law_value(make: Factory) -> None:
    """Equal settings make equal values, which survive the way to another process and can be keys."""
    first, second = make(), make()
    assert first == second
    assert hash(first) == hash(second)
    assert pickle.loads(pickle.dumps(first)) == first  # noqa: S301 -- our own bytes


def law_pure(make: Factory) -> None:
    """The same round twice gives the same bytes, and changes none of its inputs."""
    algorithm = make()
    state, starts, ends, memories = _a_round(algorithm)
    before = [array.copy() for array in (*_arrays(starts[0]), *_arrays(ends[0]), *_arrays(state.model))]
    payloads = [_upload(algorithm, starts[0], ends[0], memories[0], client=0)[0] for _ in range(2)]
    assert payloads[0] == payloads[1], "the same round gave different bytes"
    update = decode(payloads[0], dim=_LAYOUT.dim, layout=_LAYOUT)
    results = [algorithm.server.aggregate(state, [Upload(0, 1.0, update)]) for _ in range(2)]
    np.testing.assert_array_equal(results[0].model.streams, results[1].model.streams)
    after = (*_arrays(starts[0]), *_arrays(ends[0]), *_arrays(state.model))
    for was, now in zip(before, after, strict=True):
        np.testing.assert_array_equal(was, now, err_msg="an input was changed")


def law_full_density_is_dense(make: Factory) -> None:
    """At density 1 and with exact values, as far as it has these options, everything arrives: the mean of all changes is added."""
    algorithm = _dense(make)
    state, starts, ends, memories = _a_round(algorithm)
    weights = [3.0, 1.0, 4.0]
    uploads = _decoded(algorithm, starts, ends, memories, weights)
    after = algorithm.server.aggregate(state, uploads).model
    travelling = slice(algorithm.num_streams)
    changes = [
        (end.streams.astype(np.float64) - start.streams)[travelling]
        for start, end in zip(starts, ends, strict=True)
    ]
    expected = state.model.streams + sum(w * c for w, c in zip(weights, changes, strict=True)) / sum(weights)
    np.testing.assert_allclose(after.streams, expected, rtol=1e-5, atol=1e-7)


def law_weights_sum_to_one(make: Factory) -> None:
    """If all clients send the same, that is what is added, whatever their weights; and only ratios of weights count."""
    algorithm = make()
    state, starts, ends, memories = _a_round(algorithm)
    same = [starts[0]] * 3, [ends[0]] * 3, [memories[0]] * 3
    alone = algorithm.server.aggregate(
        state, _decoded(algorithm, starts[:1], ends[:1], memories[:1], [7.0])
    ).model
    for weights in ([1.0, 1.0, 1.0], [1.0, 1000.0, 3.0], [1e-3, 2e-3, 5e-3]):
        together = algorithm.server.aggregate(state, _decoded(algorithm, *same, weights)).model
        np.testing.assert_allclose(together.streams, alone.streams, rtol=1e-6, atol=1e-9)


def law_second_moment(make: Factory) -> None:
    """The server's second moment is never negative, even when clients together take away more than there is."""
    algorithm = make()
    if algorithm.num_streams <= SECOND_MOMENT:
        return
    state, starts, ends, memories = _a_round(algorithm)
    honest = algorithm.server.aggregate(state, _decoded(algorithm, starts, ends, memories, [1.0, 2.0, 3.0]))
    assert (honest.model.second_moment >= 0).all()
    greedy = np.zeros_like(state.model.streams)
    greedy[SECOND_MOMENT] = -2 * state.model.second_moment - 1e-3
    update = Update(
        _LAYOUT.dim, (Block(None, greedy),), np.zeros(_NUM_BUFFERS, np.float32), round=state.round + 1
    )
    after = algorithm.server.aggregate(state, [Upload(0, 1.0, update)])
    assert (after.model.second_moment >= 0).all()


def law_order(make: Factory) -> None:
    """The order in which uploads arrive does not matter beyond the last rounding."""
    algorithm = make()
    state, starts, ends, memories = _a_round(algorithm)
    uploads = _decoded(algorithm, starts, ends, memories, [3.0, 1.0, 4.0])
    forward = algorithm.server.aggregate(state, uploads).model
    backward = algorithm.server.aggregate(state, uploads[::-1]).model
    np.testing.assert_allclose(forward.streams, backward.streams, rtol=2.0**-23, atol=1e-12)
    np.testing.assert_allclose(forward.buffers, backward.buffers, rtol=2.0**-23, atol=1e-12)


def law_silence(make: Factory) -> None:
    """A round in which nobody answers counts, and leaves the model as it was."""
    algorithm = make()
    state = _a_round(algorithm)[0]
    after = algorithm.server.aggregate(state, [])
    assert after.round == state.round + 1
    np.testing.assert_array_equal(after.model.streams, state.model.streams)


def law_non_finite(make: Factory) -> None:
    """Training that ends in NaN or infinity is refused on the device, and such an upload on the server."""
    algorithm = make()
    state, starts, ends, memories = _a_round(algorithm)
    for stream in range(algorithm.num_streams):
        for bad in (np.nan, np.inf, -np.inf):
            broken = ends[0].streams.copy()
            broken[stream, 11] = bad
            error = _raised(
                NonFiniteError,
                partial(_upload, algorithm, starts[0], ModelState(broken, ends[0].buffers), memories[0]),
            )
            assert error.position == 11, (
                f"position 11 of stream {stream} is {bad}, the error names {error.position}"
            )
    (good,) = _decoded(algorithm, starts[:1], ends[:1], memories[:1], [1.0])
    algorithm.server.check(state, good.update)
    blocks = list(good.update.blocks)
    place = next(number for number, block in enumerate(blocks) if block.num_kept)
    values = blocks[place].values.copy()
    values[0, 0] = np.inf
    blocks[place] = replace(blocks[place], values=values)
    poisoned = replace(good.update, blocks=tuple(blocks))
    assert (
        _raised(RefusedUpdateError, partial(algorithm.server.check, state, poisoned)).reason == "non-finite"
    )
    stale = replace(good.update, round=state.round)
    assert _raised(RefusedUpdateError, partial(algorithm.server.check, state, stale)).reason == "stale-round"


def law_accounting(make: Factory) -> None:
    """Measured bytes do not exceed the paper's bits by more than the container's 64 bytes and the buffers, early and late."""
    algorithm = make()
    rng = np.random.default_rng(_SEED)
    layout = ParamLayout(("w",), ((100, 200),))
    state = algorithm.server.init(rng.standard_normal(layout.dim, np.float32), np.empty(0, np.float32))
    for round_number in (1, 1000):
        state = replace(state, round=round_number - 1)
        start = _begin(algorithm, state, layout, {})
        end = replace(start, streams=start.streams + rng.random(start.streams.shape, np.float32))
        payload, _ = _upload(algorithm, start, end, {}, layout=layout, round_number=round_number)
        assert 8 * (len(payload) - 64) <= algorithm.paper_bits(layout.dim, round_number)


def law_one_client_is_central(make: Factory) -> None:
    """With one client and all positions kept, a round is the local optimiser's own steps, exactly.

    Exactly means: the server's new state equals `start + (end - start)` bit for bit, where `end` is what the optimiser
    reaches on the same batches without any federation, over several rounds. (The subtraction and addition each round once,
    in float32: a change that is sent is a float32 number. Moments that stay on the device continue as they ended.)
    """
    import torch  # noqa: PLC0415 -- the only law that trains
    from torch import nn  # noqa: PLC0415

    from comask.flat import FlatModel  # noqa: PLC0415
    from comask.optim import local_optimizer  # noqa: PLC0415
    from comask.session import ClientRound  # noqa: PLC0415

    algorithm = _dense(make)
    generator = torch.Generator().manual_seed(_SEED)
    inputs = torch.randn(6, 16, 9, generator=generator)
    targets = torch.randint(0, 4, (6, 16), generator=generator)

    def build() -> FlatModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_SEED)
            return FlatModel(nn.Sequential(nn.Linear(9, 12), nn.BatchNorm1d(12), nn.Tanh(), nn.Linear(12, 4)))

    def train(model: FlatModel, optimizer: torch.optim.Optimizer, steps: Iterable[int]) -> None:
        for step in steps:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model.module(inputs[step]), targets[step])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()

    federated, central = build(), build()
    state = algorithm.server.init(federated.params_array(), federated.buffers_array())
    reference = _begin(algorithm, state, federated.layout, {})
    travelling = algorithm.num_streams
    memory: Memory = {}
    for round_number in (1, 2):
        steps = range(3 * (round_number - 1), 3 * round_number)
        broadcast = _over_the_wire(algorithm.server.broadcast(state), algorithm, federated.layout)
        context = ClientContext(round_number, 0, _SEED, federated.layout, algorithm.uplink)
        client = ClientRound(
            algorithm, federated, broadcast, memory, context, steps_before=3 * (round_number - 1)
        )
        train(federated, client.optimizer, steps)
        reply = client.finish()
        memory = reply.memory
        update = decode(reply.payload, dim=federated.dim, layout=federated.layout)
        state = algorithm.server.aggregate(state, [Upload(0, 600.0, update)])

        optimizer = local_optimizer(algorithm.local, central, reference, steps_before=3 * (round_number - 1))
        train(central, optimizer, steps)
        end = optimizer.streams()
        sent = _rebased(reference.streams[:travelling], end[:travelling])
        reference = ModelState(
            np.concatenate([sent, end[travelling:]]), _rebased(reference.buffers, central.buffers_array())
        )
        np.testing.assert_array_equal(state.model.streams, reference.streams[:travelling])
        np.testing.assert_array_equal(state.model.buffers, reference.buffers)


def law_increment(make: Factory) -> None:
    """A client that follows the increments has, bit for bit, the model of one that always gets the whole, for fewer bytes.

    Nothing is asked of an algorithm without increments.
    """
    algorithm = make()
    rule = algorithm.increment
    if rule is None:
        return
    rng = np.random.default_rng(_SEED)
    state = algorithm.server.init(
        rng.standard_normal(_LAYOUT.dim, np.float32), np.zeros(_NUM_BUFFERS, np.float32)
    )
    memory: Memory = {}
    followed = 0
    for round_number in range(1, 20):
        start = _begin(algorithm, state, _LAYOUT, {})
        increment = rule.message(state)
        if increment is not None and rule.applies(memory, round_number):
            payload = encode(increment, rule.codec, layout=_LAYOUT)
            whole = encode(algorithm.server.broadcast(state), algorithm.downlink, layout=_LAYOUT)
            assert len(payload) < len(whole)
            assert not rule.applies(memory, round_number + 1), (
                "a client that misses a round must get the whole"
            )
            received = decode(payload, dim=_LAYOUT.dim, layout=_LAYOUT)
            followed_start = algorithm.client.begin(received, memory)
            travelling = slice(algorithm.num_streams)
            np.testing.assert_array_equal(followed_start.streams[travelling], start.streams[travelling])
            np.testing.assert_array_equal(followed_start.buffers, start.buffers)
            followed += 1
        noise = 1e-3 * rng.standard_normal(start.streams.shape, np.float32)
        noise[SECOND_MOMENT:] = 1e-6 * rng.random(noise[SECOND_MOMENT:].shape, np.float32)
        end = replace(start, streams=start.streams + noise, buffers=start.buffers + np.float32(1.0))
        payload, memory = _upload(algorithm, start, end, memory, round_number=round_number)
        update = decode(payload, dim=_LAYOUT.dim, layout=_LAYOUT)
        algorithm.server.check(state, update)
        state = algorithm.server.aggregate(state, [Upload(0, 2.0, update)])
    assert followed, "no round had an increment"
    assert rule.message(algorithm.server.aggregate(state, [])) is None, (
        "nobody holds the model of a silent round"
    )


ALGORITHM_LAWS: tuple[Callable[[Factory], None], ...] = (
    law_value,
    law_pure,
    law_full_density_is_dense,
    law_weights_sum_to_one,
    law_second_moment,
    law_order,
    law_silence,
    law_non_finite,
    law_accounting,
    law_one_client_is_central,
    law_increment,
)
"""Every law of `check_algorithm`."""


def _rebased(start: NDArray[np.float32], end: NDArray[np.float32]) -> NDArray[np.float32]:
    moved = start + (end - start)
    if moved.ndim == 2 and len(moved) > SECOND_MOMENT:
        np.maximum(moved[SECOND_MOMENT], 0, out=moved[SECOND_MOMENT])
    return moved


def _dense(make: Factory) -> Algorithm:
    """The algorithm with all positions kept and all values exact, as far as it has options for that."""
    accepted = inspect.signature(make).parameters
    wanted = {**dict.fromkeys(_DENSITY_OPTIONS, 1.0), **dict.fromkeys(_VALUE_OPTIONS, "float32")}
    return make(**{name: value for name, value in wanted.items() if name in accepted})


def _a_round(
    algorithm: Algorithm, num_clients: int = 3
) -> tuple[ServerState, list[ModelState], list[ModelState], list[Memory]]:
    """A server in the middle of a run, and what its clients started from and ended at."""
    rng = np.random.default_rng(_SEED)
    dim = _LAYOUT.dim
    state = algorithm.server.init(
        rng.standard_normal(dim, np.float32), rng.standard_normal(_NUM_BUFFERS, np.float32)
    )
    streams = state.model.streams.copy()
    if algorithm.num_streams > SECOND_MOMENT:
        streams[1] = 1e-2 * rng.standard_normal(dim, np.float32)
        streams[2] = 1e-4 * rng.random(dim, np.float32) ** 4
    state = replace(state, model=ModelState(streams, state.model.buffers), round=4)
    starts = [_begin(algorithm, state, _LAYOUT, {}) for _ in range(num_clients)]
    ends = []
    for start in starts:
        end = start.streams + 1e-3 * rng.standard_normal(start.streams.shape, np.float32)
        if len(end) > SECOND_MOMENT:
            end[2] = start.streams[2] * rng.random(dim, np.float32) + 1e-6 * rng.random(dim, np.float32)
        ends.append(ModelState(end, start.buffers + rng.standard_normal(_NUM_BUFFERS, np.float32)))
    return state, starts, ends, [{} for _ in starts]


def _begin(algorithm: Algorithm, state: ServerState, layout: ParamLayout, memory: Memory) -> ModelState:
    return algorithm.client.begin(
        _over_the_wire(algorithm.server.broadcast(state), algorithm, layout), memory
    )


def _over_the_wire(broadcast: Update, algorithm: Algorithm, layout: ParamLayout) -> Update:
    return decode(encode(broadcast, algorithm.downlink, layout=layout), dim=layout.dim, layout=layout)


def _upload(
    algorithm: Algorithm,
    start: ModelState,
    end: ModelState,
    memory: Memory,
    *,
    client: int = 0,
    layout: ParamLayout = _LAYOUT,
    round_number: int = 5,
) -> tuple[bytes, Memory]:
    context = ClientContext(round_number, client, _SEED, layout, algorithm.uplink)
    update, memory = algorithm.client.finish(start, end, memory, context)
    return encode(update, algorithm.uplink, layout=layout, seed=context.rounding_seed), memory


def _decoded(
    algorithm: Algorithm,
    starts: list[ModelState],
    ends: list[ModelState],
    memories: list[Memory],
    weights: list[float],
) -> list[Upload]:
    uploads = []
    for client, (start, end, memory, weight) in enumerate(zip(starts, ends, memories, weights, strict=True)):
        payload, _ = _upload(algorithm, start, end, memory, client=client)
        uploads.append(Upload(client, weight, decode(payload, dim=_LAYOUT.dim, layout=_LAYOUT)))
    return uploads


def _arrays(state: ModelState) -> tuple[NDArray[np.float32], ...]:
    return state.streams, state.buffers


def _raised(kind: type[_E], call: Callable[[], object]) -> _E:
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


__all__ = ["ALGORITHM_LAWS", "check_algorithm", "check_coding", "check_law", "law_increment"]
