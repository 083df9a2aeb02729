"""What every client does with an order, however it trains: read it, and answer it. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Context, Message, MetricRecord, RecordDict

from comask.algorithms.base import Algorithm, ClientContext, Memory
from comask.errors import ConfigError, FleetError
from comask.flower.downlink import apply_changes, is_whole
from comask.flower.messages import (
    METRICS,
    NUM_EXAMPLES,
    ORDER,
    PAYLOAD,
    RECEIPT,
    Order,
    Receipt,
    payload_record,
    read_payload,
)
from comask.flower.store import ClientStore, default_folder
from comask.wire.container import decode
from comask.wire.update import ParamLayout, Update

FOLDER_KEY = "comask-folder"
"""Key in a node's configuration: the folder for its clients' files."""


@dataclass(frozen=True, slots=True, eq=False)
class Received:
    """An order, read and checked.

    Attributes:
        message: The message it came in.
        order: What is asked.
        broadcast: The server's broadcast, whole, or the algorithm's increment.
        memory: What this client remembers.
        memory_lost: Whether it should remember more.
        context: The facts of the round, as the algorithm's client rule wants them.
    """

    message: Message
    order: Order
    broadcast: Update
    memory: Memory
    memory_lost: bool
    context: ClientContext
    store: ClientStore


def receive(
    message: Message, context: Context, layout: ParamLayout, algorithm: Algorithm, folder: Path | str | None
) -> Received:
    """Read an order.

    Args:
        message: From a `Strategy`.
        context: Flower's; `node_config["comask-folder"]` may name the folder.
        layout: The model's layout.
        algorithm: What this client runs.
        folder: Where clients keep their files; None: as the node's configuration says, or `default_folder()`.

    Raises:
        FleetError: If the message is none of a `Strategy`'s, is for another algorithm, or holds changes to a model that
            this client does not have. Flower reports it to the server, which sends the whole model next time.
        PayloadError: If the payload is damaged, or of another model.
    """
    order = Order.from_content(message.content, ORDER)
    if order.algorithm != algorithm.name:
        raise FleetError(f"The server runs {order.algorithm!r:.100}, this client {algorithm.name!r}.")
    if folder is None:
        folder = str(context.node_config.get(FOLDER_KEY, "")) or default_folder()
    store = ClientStore(Path(folder), order.run, order.client)
    broadcast = decode(read_payload(message.content), dim=layout.dim, layout=layout)
    if broadcast.round != order.round:
        raise FleetError(f"The order is for round {order.round}, its payload for round {broadcast.round}.")
    if order.base:
        kept = store.model(order.base)
        if kept is None:
            raise FleetError(f"The order builds on the model of round {order.base}, which is not kept here.")
        broadcast = apply_changes(broadcast, kept, order.digest)
    memory, lost = store.memory(order.accepted)
    rule = algorithm.increment
    if order.increment and (rule is None or not rule.applies(memory, order.round)):
        raise FleetError("The order builds on the last round's model, which is not remembered here.")
    facts = ClientContext(order.round, order.client, order.seed, layout, algorithm.uplink)
    return Received(message, order, broadcast, memory, lost, facts, store)


def answer(
    received: Received, payload: bytes, memory: Memory, *, num_examples: int, metrics: Mapping[str, float]
) -> Message:
    """Keep what the next round needs, and return the reply with the upload.

    Raises:
        ConfigError: If `num_examples` is not a positive integer, or a metric takes its name.
    """
    if type(num_examples) is not int or num_examples < 1:
        raise ConfigError(f"num_examples must be a positive integer, got {num_examples!r}.")
    if NUM_EXAMPLES in metrics:
        raise ConfigError(f"metrics must not hold {NUM_EXAMPLES!r}: it is given by num_examples.")
    order = received.order
    received.store.save_memory(order.round, memory)
    keeps = order.keep and not order.increment and is_whole(received.broadcast)
    if keeps:
        received.store.save_model(order.round, received.broadcast.blocks[0].values)
    numbers = MetricRecord({NUM_EXAMPLES: num_examples, **{k: float(v) for k, v in metrics.items()}})
    receipt = Receipt(
        order.round,
        order.client,
        held=order.round if keeps else 0,
        memory_lost=received.memory_lost,
        failure="",
    )
    content = RecordDict({RECEIPT: receipt.to_record(), PAYLOAD: payload_record(payload), METRICS: numbers})
    return Message(content, reply_to=received.message)


def decline(received: Received, failure: str) -> Message:
    """Return the reply of a client whose training produced NaN or infinity: no upload, and why."""
    order = received.order
    receipt = Receipt(order.round, order.client, held=0, memory_lost=received.memory_lost, failure=failure)
    return Message(RecordDict({RECEIPT: receipt.to_record()}), reply_to=received.message)
