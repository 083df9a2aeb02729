"""What one upload costs the server, and what that comes to for a thousand to a million clients a round.

Run with `python server_cost.py [--indices CODING]`: masks as they were recorded in training, 5 percent of a CNN on Fashion-MNIST;
`--dim D --density K` draws positions uniformly instead. Times are processor time, which other load on the machine changes little.
Everything but the last table is measured, on one core.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from flwr.app import Message, MetricRecord, RecordDict

from comask.aggregate import WeightedSum
from comask.algorithms import make_algorithm
from comask.flower.coordinator import Coordinator
from comask.flower.exchange import WINDOW
from comask.flower.messages import METRICS, NUM_EXAMPLES, PAYLOAD, RECEIPT, Receipt, payload_record
from comask.masks import num_kept
from comask.wire import Block, Codec, ParamLayout, Update, decode, encode

RECORDED = Path(__file__).resolve().parents[2] / "benchmarks" / "masks" / "cnn-0.05.npz"
UPLOADS = TURNS = 20


def shortest(action: Callable[[], object]) -> float:
    """Return the shortest time of an action."""
    times = []
    for _ in range(TURNS):
        began = time.process_time()
        action()
        times.append(time.process_time() - began)
    return min(times)


def recorded() -> tuple[ParamLayout, list[np.ndarray]]:
    """Return the layout of the CNN, and masks of its clients in training."""
    with np.load(RECORDED, allow_pickle=False) as file:
        shapes = tuple(tuple(int(size) for size in shape.split(",") if size) for shape in file["shapes"])
        layout = ParamLayout(tuple(file["names"].tolist()), shapes)
        payloads = [file[name].tobytes() for name in file.files if name.startswith("payload")]
    updates = [decode(payload, dim=layout.dim, layout=layout) for payload in payloads]
    return layout, [np.asarray(update.blocks[0].indices) for update in updates]


def uniform(dim: int, density: float, rng: np.random.Generator) -> tuple[ParamLayout, list[np.ndarray]]:
    """Return a layout of one vector, and masks drawn uniformly."""
    kept = num_kept(density, dim)
    masks = [np.sort(rng.choice(dim, kept, replace=False)).astype(np.uint32) for _ in range(UPLOADS)]
    return ParamLayout(("w",), ((dim,),)), masks


class Round:
    """A round of the server without Flower's transport: messages made for a cohort, replies taken in.

    Args:
        codec: Of the uploads.
        layout: The model's.
        payloads: The clients' uploads, given out in turn.
        clients: Size of the cohort.
    """

    def __init__(self, codec: Codec, layout: ParamLayout, payloads: list[bytes], clients: int) -> None:
        algorithm = make_algorithm("fedadam-ssm", codec=codec)
        state = algorithm.server.init(np.zeros(layout.dim, np.float32), np.empty(0, np.float32))
        self.coordinator = Coordinator(
            algorithm, layout, seed=0, patches=True, min_replies=1, max_examples=10
        )
        self.coordinator.begin(state)
        self.clients, self._payloads = clients, payloads
        self.messages: list[Message] = []

    def ask(self) -> float:
        """Make the messages; return the seconds a client."""
        cohort = {client: 10**18 + client for client in range(self.clients)}
        began = time.process_time()
        self.messages = self.coordinator.ask(cohort, {})
        return (time.process_time() - began) / self.clients

    def take(self) -> float:
        """Take replies in; return the seconds a client."""
        replies = []
        for client, message in enumerate(self.messages):
            message.metadata.__dict__["_message_id"] = f"{client:064x}"  # as a grid does that sends it
            receipt = Receipt(1, client, held=1, memory_lost=False, failure="")
            payload = self._payloads[client % len(self._payloads)]
            content = {
                RECEIPT: receipt.to_record(),
                PAYLOAD: payload_record(payload),
                METRICS: MetricRecord({NUM_EXAMPLES: 10}),
            }
            replies.append(Message(RecordDict(content), reply_to=message))
        began = time.process_time()
        report = self.coordinator.take(replies)
        assert len(report.participants) == self.clients, report.refused
        return (time.process_time() - began) / self.clients


def memory_a_client(codec: Codec, layout: ParamLayout, payloads: list[bytes], clients: int = 2000) -> float:
    """Return the bytes that a round needs for each client of its cohort: its message, and what the server knows of it."""
    measured = Round(codec, layout, payloads, clients)
    tracemalloc.start()
    measured.ask()
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / clients


def main() -> None:
    """Measure and print."""
    give_server_an_identity()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, help="draw positions uniformly, for a model of this size")
    parser.add_argument(
        "--density", type=float, default=0.05, help="with --dim: the fraction of positions kept"
    )
    parser.add_argument("--indices", default="auto", help="index coding: auto is smallest, rice is quickest")
    options = parser.parse_args()
    codec, rng = Codec("measured", indices=options.indices), np.random.default_rng(0)
    layout, masks = uniform(options.dim, options.density, rng) if options.dim else recorded()
    dim, payloads = layout.dim, []
    for mask in masks:
        values = rng.standard_normal((3, len(mask))).astype(np.float32)
        payloads.append(encode(Update(dim, (Block(mask, values),), round=1), codec, layout=layout))
    # What an edge sends is the mean over the union of its clients' masks: all positions, for a thousand of them.
    whole = Update(dim, (Block(None, rng.standard_normal((3, dim)).astype(np.float32)),), round=1)
    edge_payload = encode(whole, layout=layout)
    size = float(np.mean([len(payload) for payload in payloads]))

    decoding = np.mean([shortest(partial(decode, each, dim=dim, layout=layout)) for each in payloads])
    total, update = WeightedSum(3, dim), decode(payloads[0], dim=dim, layout=layout)
    adding = shortest(lambda: total.add(update, 1.0))
    asking = min(Round(codec, layout, payloads, 2000).ask() for _ in range(5))
    taking, edge_taking = (
        min(one_round(codec, layout, sent) for _ in range(5)) for sent in (payloads, [edge_payload])
    )
    cost = asking + taking
    print(f"decode    {decoding * 1e3:8.3f} ms an upload of {size:,.0f} bytes")
    print(f"add       {adding * 1e3:8.3f} ms")
    print(f"take      {taking * 1e3:8.3f} ms a reply: decode and add, with all checks and Flower's records")
    print(f"ask       {asking * 1e3:8.3f} ms a message")
    print(f"together  {cost * 1e3:8.3f} ms a client: {1 / cost:,.0f} clients a second and core")
    # Old and new state and the mean in float32, the sum in float64, the last broadcast and the positions' versions.
    fixed = dim * (3 * 4 * 4 + 3 * 8 + 4)
    each = memory_a_client(codec, layout, payloads)
    print(
        f"memory    {fixed / 1e6:,.1f} MB for the model, {WINDOW * size / 1e6:.1f} MB for replies, {each:,.0f} bytes a client"
    )
    print(
        "\nclients in a round   received    one core    memory   edges of 1,000 clients: the server's share"
    )
    for clients in (10**3, 10**4, 10**5, 10**6):
        memory = (fixed + WINDOW * size + each * clients) / 1e9
        edges = -(-clients // 1000)
        print(
            f"{clients:18,}   {clients * size / 1e9:5.1f} GB   {clients * cost:7,.1f} s   {memory:4.2f} GB   "
            f"{edges:5,} uploads, {edges * len(edge_payload) / 1e9:5.2f} GB, {edges * (asking + edge_taking):5.1f} s"
        )


def one_round(codec: Codec, layout: ParamLayout, payloads: list[bytes], clients: int = 100) -> float:
    """Return the seconds a reply takes in a round of its own."""
    measured = Round(codec, layout, payloads, clients)
    measured.ask()
    return measured.take()


def give_server_an_identity() -> None:
    """Let messages be made outside of Flower's engines, which newer versions only do for a server that has one."""
    with contextlib.suppress(ModuleNotFoundError):
        identity = importlib.import_module("flwr.supercore.task_identity").TaskIdentity
        identity.task_id = identity.run_id = identity.node_id = 1


if __name__ == "__main__":
    main()
