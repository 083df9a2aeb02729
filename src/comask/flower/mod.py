"""The client side as a Flower mod: an app that trains on whole arrays gains the codec and needs no change."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from torch import nn

from comask.algorithms.base import Algorithm
from comask.errors import ConfigError, NonFiniteError
from comask.flower.client import Received, answer, decline, receive
from comask.flower.messages import ARRAYS, CONFIG, METRICS, NUM_EXAMPLES, ORDER
from comask.flower.spec import ModelSpec
from comask.state import ModelState
from comask.wire.container import encode

STREAM_RECORDS = (ARRAYS, "first-moment", "second-moment")
"""Where an app finds the streams, and where it puts them: whole arrays by name, one record a stream."""

_Next = Callable[[Message, Context], Message]
Mod = Callable[[Message, Context, _Next], Message]


def comask_mod(algorithm: Algorithm, model: nn.Module, *, folder: Path | str | None = None) -> Mod:
    """Make the mod. The app sees what a stock strategy would send: `arrays` and `config` in, `arrays` and `metrics` out.

    With an algorithm whose moments travel, the app also gets and returns `first-moment` and `second-moment`, by the
    names of the parameters. Mods inside this one (clipping, noise) see whole arrays too, and act before the mask.

    Args:
        algorithm: The same as the server's.
        model: Says what is trained; whatever else its state dict holds is handed to the app as it is here.
        folder: As in `open_round`.

    Returns:
        A mod for `ClientApp(mods=[...])` or `@app.train(mods=[...])`: the outermost. Messages that are not from a
        `comask.flower.Strategy` pass through untouched. It raises ConfigError on algorithms that prescribe how clients
        step (a drift, a frozen moment): these need `open_round`.
    """
    spec = ModelSpec.of(model)
    template = ArrayRecord(dict(model.state_dict()))

    def mod(message: Message, context: Context, call_next: _Next) -> Message:
        if ORDER not in message.content.config_records:
            return call_next(message, context)
        received = receive(message, context, spec.trained, algorithm, folder)
        start = algorithm.client.begin(received.broadcast, received.memory)
        if len(start.streams) != algorithm.num_streams or start.frozen_second_moment:
            raise ConfigError(
                f"{algorithm.name} prescribes how its clients step, which an app's own optimiser cannot follow; "
                "use open_round."
            )
        config = message.content.config_records[CONFIG]
        message.content = RecordDict({**_records(spec, start, template), CONFIG: config})
        trained = call_next(message, context)
        if trained.has_error():
            return trained
        return _reply(algorithm, spec, received, start, trained.content)

    return mod


def _records(spec: ModelSpec, state: ModelState, template: ArrayRecord) -> dict[str, ArrayRecord]:
    records = {ARRAYS: spec.merge(state.params, state.buffers, template)}
    for name, moment in zip(STREAM_RECORDS[1:], state.streams[1:], strict=False):
        tensors = spec.named_parameters(moment)
        records[name] = ArrayRecord({key: Array(np.ascontiguousarray(each)) for key, each in tensors.items()})
    return records


def _reply(
    algorithm: Algorithm, spec: ModelSpec, received: Received, start: ModelState, content: RecordDict
) -> Message:
    """Turn the app's whole arrays into an upload, by the same client rule that every other path runs.

    Raises:
        ConfigError: If the app's reply is not what a stock strategy would accept.
    """
    names = STREAM_RECORDS[: algorithm.num_streams]
    missing = [name for name in (*names, METRICS) if name not in content]
    if missing:
        raise ConfigError(f"The app's reply lacks {', '.join(missing)}; it holds: {', '.join(content)}.")
    try:
        params, buffers = spec.split(content.array_records[ARRAYS])
        moments = [spec.parameters(content.array_records[name]) for name in names[1:]]
        end = ModelState(np.stack([params, *moments]), buffers)
        update, memory = algorithm.client.finish(start, end, received.memory, received.context)
    except NonFiniteError as error:
        return decline(received, str(error))
    metrics = dict(content.metric_records[METRICS])
    num_examples = metrics.pop(NUM_EXAMPLES, None)
    numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    seed = received.context.rounding_seed
    payload = encode(update, algorithm.uplink, layout=spec.trained, seed=seed)
    return answer(received, payload, memory, num_examples=num_examples, metrics=numbers)  # type: ignore[arg-type]  # checked there
