"""A small fleet for the tests: toy data, a perceptron, and a client app that trains as the simulator does."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from local_grid import LocalGrid
from torch import nn
from torch.nn import functional

from comask.algorithms import make_algorithm
from comask.data.dataset import Dataset, Federation
from comask.flower import ModelSpec, Strategy, announce, open_round
from comask.simulation.sampling import batch_indices

SEED = 7
STEPS, BATCH = 3, 8
NUM_CLIENTS = 5
NODES = (901, 305, 777, 118, 642)
"""Node ids, in an order that is not the clients'."""

FEEDBACK = make_algorithm("fedadam-ssm", density=0.1, feedback=("w", "v"), lr=1e-2)


def make_model() -> nn.Module:
    """A perceptron with batch norm: buffers travel too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 4))


def make_federation() -> Federation:
    """Five clients with 9, 12, 15, 18 and 21 grey images of 6 x 6 pixels in four classes that can be learnt."""
    rng = np.random.default_rng(0)
    sizes = [9, 12, 15, 18, 21]
    targets = rng.integers(0, 4, sum(sizes) + 16, np.uint8)
    inputs = rng.integers(0, 100, (len(targets), 1, 6, 6), np.uint8)
    inputs[np.arange(len(targets)), 0, targets, :] += 120
    bounds = np.cumsum([0, *sizes])
    dataset = Dataset(
        "toy", "image", inputs[:-16], targets[:-16], inputs[-16:], targets[-16:], 4, mean=(0.3,), std=(0.25,)
    )
    clients = tuple(np.arange(a, b) for a, b in pairwise(bounds))
    return Federation(dataset, clients, "toy")


FEDERATION = make_federation()


def pixels(inputs: np.ndarray) -> torch.Tensor:
    """Normalise as the simulator does, in the same operations."""
    mean, std = torch.tensor(FEDERATION.dataset.mean), torch.tensor(FEDERATION.dataset.std)
    scale, shift = (1.0 / (255.0 * std)).view(-1, 1, 1), (-mean / std).view(-1, 1, 1)
    return torch.from_numpy(inputs).float().mul_(scale).add_(shift)


def batches(client: int, seed: int):
    """Yield the inputs and targets of every step of a client's round."""
    data = FEDERATION.dataset
    rng = np.random.default_rng(seed)
    for rows in batch_indices(FEDERATION.clients[client], batch_size=BATCH, steps=STEPS, rng=rng):
        yield pixels(data.train_inputs[rows]), torch.from_numpy(data.train_targets[rows]).long()


def make_app(algorithm, folder, *, spoil=None) -> ClientApp:
    """An app as a user writes it. `spoil(model, round)` may do harm after training."""
    app = announce(ClientApp())

    @app.train()
    def train(msg: Message, context: Context) -> Message:
        model = make_model()
        opened = open_round(msg, context, model, algorithm, folder=folder, local_steps=STEPS)
        total = torch.zeros(())
        model.train()
        for x, y in batches(opened.client, opened.stream_seed("batches")):
            opened.optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            opened.optimizer.step()
            total += loss.detach()
        if spoil is not None:
            spoil(model, opened)
        return opened.reply(
            num_examples=len(FEDERATION.clients[opened.client]), metrics={"train-loss": float(total / STEPS)}
        )

    @app.evaluate()
    def evaluate(msg: Message, context: Context) -> Message:
        """Word for word what a stock Flower app does."""
        model = make_model()
        model.load_state_dict(msg.content["arrays"].to_torch_state_dict())
        model.eval()
        data = FEDERATION.dataset
        with torch.no_grad():
            right = model(pixels(data.test_inputs)).argmax(1) == torch.from_numpy(data.test_targets)
        metrics = {"accuracy": float(right.float().mean()), "num-examples": len(right)}
        return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=msg)

    return app


def make_grid(algorithm, folder, **options) -> LocalGrid:
    """Five nodes, each the client whose number its configuration holds."""
    nodes = {node: {"partition-id": client, "num-partitions": 5} for client, node in enumerate(NODES)}
    return LocalGrid(make_app(algorithm, folder / "clients", **options), nodes)


def make_strategy(algorithm, **options) -> Strategy:
    """A strategy for the fleet's model, without evaluation unless asked for."""
    options = {"seed": SEED, "numbering": "announced", "evaluate_fraction": 0.0} | options
    return Strategy(algorithm, ModelSpec.of(make_model()), **options)


def initial_arrays() -> ArrayRecord:
    """What a stock server app starts from."""
    return ArrayRecord(make_model().state_dict())


def run(algorithm, folder, *, rounds=3, grid=None, timeout=5.0, **options):
    """Run a fleet; return the strategy, the grid, the reports and Flower's result."""
    reports = []
    grid = make_grid(algorithm, folder) if grid is None else grid
    strategy = make_strategy(algorithm, on_report=reports.append, **options)
    result = strategy.start(grid, initial_arrays(), num_rounds=rounds, timeout=timeout)
    return strategy, grid, reports, result


def payloads(grid: LocalGrid) -> dict[tuple[int, int], bytes]:
    """Every upload that came back, by the round and the client that were asked."""
    asked = {message.metadata.message_id: message.content for message in grid.pushed}
    found = {}
    for reply in grid.replied:
        content = asked.get(reply.metadata.reply_to_message_id)
        if content is not None and reply.has_content() and "comask.payload" in reply.content:
            order = content["comask.order"]
            (array,) = reply.content["comask.payload"].values()
            found[order["round"], order["client"]] = array.data
    return found
