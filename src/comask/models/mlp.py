"""A perceptron with one small hidden layer: the quickest model that is not convex."""

from __future__ import annotations

import math

import torch
from torch import nn


class Mlp(nn.Module):
    """Two linear layers; 25,450 parameters for 28x28 grey images in ten classes.

    Args:
        input_shape: `(channels, height, width)`.
        num_classes: Width of the output.
        hidden: Units of the hidden layer.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int, hidden: int = 32) -> None:
        super().__init__()
        self.hidden = nn.Linear(math.prod(input_shape), hidden)
        self.output = nn.Linear(hidden, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised images `(n, channels, height, width)` to logits `(n, num_classes)`."""
        logits: torch.Tensor = self.output(torch.relu(self.hidden(images.flatten(1))))
        return logits
