"""Small federations and models that simulation tests share, importable from worker processes."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import nn

from comask.data.dataset import Dataset, Federation


def federation(num_clients: int = 6, *, per_client: int = 24, seed: int = 0) -> Federation:
    """Images of 6x6 in three classes that differ in their mean; client c holds per_client + c samples."""
    rng = np.random.default_rng(seed)
    sizes = [per_client + client for client in range(num_clients)]
    targets = rng.integers(0, 3, sum(sizes) + 90).astype(np.uint8)
    noise = rng.integers(0, 120, (len(targets), 1, 6, 6))
    inputs = (noise + 45 * targets[:, None, None, None]).astype(np.uint8)
    train = sum(sizes)
    dataset = Dataset(
        "blobs",
        "image",
        inputs[:train],
        targets[:train],
        inputs[train:],
        targets[train:],
        3,
        mean=(0.4,),
        std=(0.2,),
    )
    ends = np.cumsum(sizes)
    clients = tuple(np.arange(end - size, end) for size, end in zip(sizes, ends, strict=True))
    return Federation(dataset, clients, "by hand")


def small_net(seed: int = 0) -> nn.Module:
    """A convolution, batch norm, dropout and a head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, 3)
        )


class Viewing(nn.Module):
    """A convolution and a head with `view` between them, which PyTorch's default order of images alone allows."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.head(self.conv(x).view(-1, 64))


class Noting(nn.Module):
    """A linear model that notes which order of images it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, 3)
        self.strides: set[tuple[int, ...]] = set()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        self.strides.add(x.stride())
        return self.head(x.flatten(1))


class Exploding(nn.Module):
    """A linear model whose loss is infinite on inputs of one marked kind."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(36, 3)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return logits; those of all-black batches are not numbers."""
        logits = self.head(x.flatten(1))
        return logits * torch.where(x.amax() < -1.9, torch.nan, 1.0)


class Fragile(nn.Module):
    """A model that raises."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Raise."""
        raise RuntimeError(f"boom on {len(x)} samples")


class Deadly(Fragile):
    """A model that ends its process."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """End the process at once."""
        import os

        os._exit(41)


make_small_net = partial(small_net, 0)
