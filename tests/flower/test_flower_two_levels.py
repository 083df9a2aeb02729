"""Beyond one server: the weighted mean of updates is an update, so aggregators can stand between clients and server.

An edge is a client to the server above and a server to the clients below, out of the same parts: it reads an order,
passes the broadcast on, takes the uploads in, and answers with their mean and the sum of their samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
from fleet import FEEDBACK, NODES, initial_arrays, make_app, make_model, make_strategy, payloads, run
from flwr.clientapp import ClientApp
from local_grid import LocalGrid

from comask.aggregate import WeightedSum
from comask.algorithms.base import ServerRule, ServerState
from comask.errors import FleetError
from comask.flower import ModelSpec
from comask.flower.client import answer, receive
from comask.flower.coordinator import Coordinator
from comask.flower.exchange import exchange
from comask.state import ModelState
from comask.wire import Block, Update, encode

SPEC = ModelSpec.of(make_model())
GROUPS = ((0, 1), (2, 3, 4))


@dataclass(frozen=True)
class MeanOnly:
    """A server rule that checks and broadcasts as another, and keeps the mean of the uploads instead of adding it."""

    inner: ServerRule

    def init(self, params, buffers):
        return self.inner.init(params, buffers)

    def broadcast(self, state):
        return self.inner.broadcast(state)

    def check(self, state, update):
        self.inner.check(state, update)

    def aggregate(self, state, uploads):
        total = WeightedSum(len(state.model.streams), state.model.dim, len(state.model.buffers))
        for upload in uploads:
            total.add(upload.update, upload.weight)
        if not total.count:
            raise FleetError("No client below sent an upload.")
        mean, buffers = (part.astype(np.float32) for part in total.mean())
        return ServerState(
            ModelState(mean, buffers), state.round + 1, {"weight": np.array([total.weight], np.float32)}
        )


class Edge:
    """One aggregator and its grid of clients."""

    def __init__(self, grid, folder, clients):
        self.grid, self.folder = grid, folder
        self.nodes = {client: NODES[client] for client in clients}
        algorithm = replace(FEEDBACK, server=MeanOnly(FEEDBACK.server))
        self.below = Coordinator(
            algorithm, SPEC.trained, seed=7, patches=False, min_replies=1, max_examples=100
        )
        self.confirmed = {}
        self.answered = 0

    def train(self, message, context):
        received = receive(message, context, SPEC.trained, FEEDBACK, self.folder)
        order, broadcast = received.order, received.broadcast
        # The clients below are told that their uploads count once the server has said so of this edge's.
        if order.accepted and order.accepted == self.answered:
            self.confirmed = dict(self.below.accepted)
        state = ServerState(ModelState(broadcast.blocks[0].values, broadcast.buffers), order.round - 1)
        self.below.begin(state, run=order.run, accepted=self.confirmed)
        messages = self.below.ask(self.nodes, message.content["config"])
        report = self.below.take(exchange(self.grid, messages, timeout=0.2).replies)
        self.answered = order.round
        mean = self.below.state.model
        kept = np.flatnonzero(mean.streams.any(axis=0)).astype(np.uint32)
        update = Update(mean.dim, (Block(kept, mean.streams[:, kept]),), mean.buffers, order.round)
        weight = int(self.below.state.memory["weight"][0])
        return answer(
            received, encode(update, layout=SPEC.trained), {}, num_examples=weight, metrics=report.metrics
        )


@pytest.fixture
def two_levels(tmp_path):
    """A grid of two edges with a grid of clients each; and all uploads of these clients."""
    edges = {}
    for number, clients in enumerate(GROUPS):
        nodes = {NODES[client]: {"partition-id": client} for client in clients}
        below = LocalGrid(make_app(FEEDBACK, tmp_path / "clients"), nodes)
        edges[number] = Edge(below, tmp_path / "edges", clients)
    app = ClientApp()

    @app.train()
    def train(message, context):
        return edges[context.node_config["edge"]].train(message, context)

    return LocalGrid(app, {10: {"edge": 0}, 11: {"edge": 1}}), edges


def run_above(grid, rounds):
    reports = []
    strategy = make_strategy(FEEDBACK, numbering="assigned", on_report=reports.append)
    strategy.start(grid, initial_arrays(), num_rounds=rounds, timeout=1.0)
    return strategy.state.model, reports


def test_two_levels_give_the_model_of_one(tmp_path, two_levels):
    """To the rounding of one float32 at the edge: the first round's uploads are the same bytes, the sums agree."""
    flat, flat_grid, _, _ = run(FEEDBACK, tmp_path / "flat", rounds=3)
    grid, edges = two_levels
    model, reports = run_above(grid, 3)
    assert [report.participants for report in reports] == [(0, 1)] * 3
    uploads = payloads(edges[0].grid) | payloads(edges[1].grid)
    expected = payloads(flat_grid)
    assert len(uploads) == 15
    assert all(uploads[1, client] == expected[1, client] for client in range(5))
    np.testing.assert_allclose(model.streams, flat.state.model.streams, rtol=1e-4, atol=1e-6)
    assert np.abs(model.streams - flat.state.model.streams).max() < 1e-5


def test_one_round_agrees_to_the_rounding_of_one_number(tmp_path, two_levels):
    flat, *_ = run(FEEDBACK, tmp_path / "flat", rounds=1)
    model, _ = run_above(two_levels[0], 1)
    np.testing.assert_allclose(model.streams, flat.state.model.streams, rtol=3e-7)


def test_residuals_below_wait_for_the_server_above(tmp_path, two_levels):
    """The edge answers in round 1, its answer is lost above, and its clients send the same in round 2."""
    grid, edges = two_levels

    def lost(message, call):
        call(message)

    grid.faults[10, 1] = lost
    _, reports = run_above(grid, 3)
    assert [report.participants for report in reports] == [(1,), (0, 1), (0, 1)]
    orders = {
        (m.content["comask.order"]["round"], m.content["comask.order"]["client"]): m.content["comask.order"][
            "accepted"
        ]
        for edge in edges.values()
        for m in edge.grid.pushed
    }
    assert [orders[number, 0] for number in (1, 2, 3)] == [0, 0, 2]
    assert [orders[number, 2] for number in (1, 2, 3)] == [0, 1, 2]
