"""What server and clients agree on: the algorithm, the model, who holds what, and how a client trains."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from comask.algorithms import make_algorithm
from comask.data import Dataset, Federation, load_dataset, make_federation
from comask.models import build_model
from comask.optim import LocalOptimizer

SEED = 1
NUM_CLIENTS = 3
LOCAL_STEPS, BATCH_SIZE = 20, 32
ALGORITHM = make_algorithm("fedadam-ssm", density=0.05, feedback=("w",), lr=1e-3)


def make_model() -> nn.Module:
    """A small CNN, with the same initial weights everywhere; one thread, so that sums are the same everywhere too."""
    torch.set_num_threads(1)
    return build_model("cnn", load_federation().dataset, seed=SEED)


def load_federation() -> Federation:
    """Fashion-MNIST, the subset that comes with comask, divided unevenly."""
    dataset = load_dataset("fashion-mnist-mini")
    return make_federation(dataset, "dirichlet:0.5", num_clients=NUM_CLIENTS, seed=SEED)


def train(
    model: nn.Module,
    optimizer: LocalOptimizer,
    federation: Federation,
    client: int,
    stream_seed: Callable[[str], int],
) -> float:
    """Take the local steps of one round; return the mean loss."""
    data, samples = federation.dataset, federation.clients[client]
    rng = np.random.default_rng(stream_seed("batches"))
    torch.manual_seed(stream_seed("torch"))
    model.train()
    losses = []
    for _ in range(LOCAL_STEPS):
        rows = rng.choice(samples, BATCH_SIZE)
        optimizer.zero_grad()
        targets = torch.from_numpy(data.train_targets[rows]).long()
        loss = nn.functional.cross_entropy(model(pixels(data, data.train_inputs[rows])), targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return float(np.mean(losses))


@torch.no_grad()
def accuracy(model: nn.Module, data: Dataset) -> float:
    """Return the fraction of the test images that the model names right."""
    model.eval()
    predicted = model(pixels(data, data.test_inputs)).argmax(1).numpy()
    return float((predicted == data.test_targets).mean())


def pixels(data: Dataset, inputs: np.ndarray) -> torch.Tensor:
    """Normalise images."""
    return (torch.from_numpy(inputs).float() / 255.0 - data.mean[0]) / data.std[0]
