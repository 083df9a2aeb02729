"""What one upload costs the server, and what that comes to for a thousand to a million clients a round.

Run with `python server_cost.py [--dim D] [--density K]`. Everything but the last table is measured on one core.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from flwr.app import RecordDict

from comask.aggregate import WeightedSum
from comask.algorithms import make_algorithm
from comask.algorithms.base import ClientContext
from comask.flower.exchange import WINDOW
from comask.flower.messages import ORDER, Order
from comask.state import ModelState
from comask.wire import Block, Codec, ParamLayout, Update, decode, encode

UPLOADS = 20


def seconds_each(action: Callable[[int], object]) -> float:
    """Return the median time of an action, given its turn; the first turn is left out: it compiles."""
    times = []
    for number in range(UPLOADS):
        began = time.perf_counter()
        action(number)
        times.append(time.perf_counter() - began)
    return float(np.median(times[1:]))


def header_bytes(clients: int = 2000) -> float:
    """Return the memory of one client's order while a round is on; payloads are shared and not counted."""
    tracemalloc.start()
    orders = [
        RecordDict(
            {
                ORDER: Order(
                    "0" * 32, 1, client, 0, 1, "fedadam-ssm", 0, "", increment=False, keep=True
                ).to_record()
            }
        )
        for client in range(clients)
    ]
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return size / len(orders)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dim", type=int, default=216_330)
    parser.add_argument("--density", type=float, default=0.05)
    parser.add_argument("--indices", default="auto", help="index coding: auto is smallest, rice is quickest")
    options = parser.parse_args()
    codec = Codec("measured", indices=options.indices)
    dim, algorithm = options.dim, make_algorithm("fedadam-ssm", density=options.density, codec=codec)
    layout, rng = ParamLayout(("w",), ((dim,),)), np.random.default_rng(0)
    state = algorithm.server.init(np.zeros(dim, np.float32), np.empty(0, np.float32))
    payloads = []
    for client in range(UPLOADS):
        end = ModelState(rng.standard_normal((3, dim)).astype(np.float32))
        context = ClientContext(1, client, 0, layout, algorithm.uplink)
        update, _ = algorithm.client.finish(state.model, end, {}, context)
        payloads.append(encode(update, algorithm.uplink, layout=layout))
    total = WeightedSum(3, dim)

    def take(payload: bytes) -> dict[str, float]:
        update = decode(payload, dim=dim, layout=layout)
        return {
            "decode": seconds_each(lambda _: decode(payload, dim=dim, layout=layout)),
            "check": seconds_each(lambda _: algorithm.server.check(state, update)),
            "add": seconds_each(lambda _: total.add(update, 1.0)),
        }

    steps = take(payloads[0])
    # What an edge sends is the mean over the union of its clients' masks: all positions, for a thousand of them.
    whole = Update(dim, (Block(None, rng.standard_normal((3, dim)).astype(np.float32)),), round=1)
    edge_payload = encode(whole, layout=layout)
    edge_cost = sum(take(edge_payload).values())
    cost, size = sum(steps.values()), float(np.mean([len(payload) for payload in payloads]))
    for name, seconds in steps.items():
        print(f"{name:8} {seconds * 1e3:8.3f} ms an upload")
    # Old and new state and the mean in float32, the sum in float64, the last broadcast and the positions' versions.
    fixed = dim * (3 * 4 * 4 + 3 * 8 + 4)
    each = header_bytes()
    print(f"upload   {size:,.0f} bytes; {1 / cost:,.0f} uploads a second and core")
    print(
        f"memory   {fixed / 1e6:,.1f} MB for the model, {WINDOW * size / 1e6:.1f} MB for replies, {each:,.0f} bytes a client"
    )
    print("\nclients in a round   received   one core   memory   edges of 1,000 clients: the server's share")
    for clients in (10**3, 10**4, 10**5, 10**6):
        memory = (fixed + WINDOW * size + each * clients) / 1e9
        edges = -(-clients // 1000)
        print(
            f"{clients:18,}   {clients * size / 1e9:5.1f} GB   {clients * cost:6.0f} s   {memory:4.1f} GB   "
            f"{edges:5,} uploads, {edges * len(edge_payload) / 1e9:5.1f} GB, {edges * edge_cost:5.1f} s"
        )


if __name__ == "__main__":
    main()
