"""Model, data, training and evaluation, as a stock app has them."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset, random_split

from comask.algorithms import make_algorithm
from comask.data import Federation, load_dataset, make_federation

ALGORITHM = make_algorithm("fedadam-ssm", density=0.05, feedback=("w",), lr=1e-3)


class Net(nn.Module):
    """A small CNN for images of 28 x 28 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 8, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 5), nn.ReLU(), nn.MaxPool2d(2)
        )
        self.classifier = nn.Sequential(nn.Flatten(), nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits `(n, 10)` of images `(n, 1, 28, 28)`."""
        return self.classifier(self.features(x))


@cache
def federation(num_partitions: int) -> Federation:
    """Fashion-MNIST, the subset that comes with comask, so that the app runs without a network."""
    return make_federation(load_dataset("fashion-mnist-mini"), "iid", num_clients=num_partitions, seed=0)


def load_data(partition_id: int, num_partitions: int, batch_size: int) -> tuple[DataLoader, DataLoader]:
    """Return a partition's images, four fifths to train on and one fifth to test on."""
    data = federation(num_partitions)
    samples = data.clients[partition_id]
    images = torch.from_numpy(data.dataset.train_inputs[samples]).float() / 255.0
    labels = torch.from_numpy(data.dataset.train_targets[samples]).long()
    parts = random_split(TensorDataset(images, labels), [0.8, 0.2], torch.Generator().manual_seed(0))
    return DataLoader(parts[0], batch_size, shuffle=True), DataLoader(parts[1], batch_size)


def train(net, trainloader, epochs, optimizer, device):  # was: lr
    """Train, and return the mean loss."""
    net.to(device)
    criterion = nn.CrossEntropyLoss().to(device)
    # the optimizer was made here
    net.train()
    running_loss = 0.0
    for _ in range(epochs):
        for images, labels in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(images.to(device)), labels.to(device))
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (epochs * len(trainloader))


@torch.no_grad()
def test(net, testloader, device):
    """Return the mean loss and the accuracy."""
    net.to(device).eval()
    loss, correct, seen = 0.0, 0, 0
    for images, labels in testloader:
        outputs = net(images.to(device))
        loss += nn.functional.cross_entropy(outputs, labels.to(device), reduction="sum").item()
        correct += (outputs.argmax(1).cpu() == labels).sum().item()
        seen += len(labels)
    return loss / seen, correct / seen
