"""Multinomial logistic regression: a convex problem, for theory and for tests."""

from __future__ import annotations

import math

import torch
from torch import nn


class Logistic(nn.Module):
    """One linear layer on the pixels; 7,850 parameters for 28x28 grey images in ten classes.

    Args:
        input_shape: `(channels, height, width)`.
        num_classes: Width of the output.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.output = nn.Linear(math.prod(input_shape), num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised images `(n, channels, height, width)` to logits `(n, num_classes)`."""
        logits: torch.Tensor = self.output(images.flatten(1))
        return logits
