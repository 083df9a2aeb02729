"""The small convolutional network of federated learning on small images.

Two 5x5 convolutions with max pooling and one hidden layer: the shape of B. McMahan et al., "Communication-Efficient
Learning of Deep Networks from Decentralized Data", AISTATS 2017, with 16 and 32 channels and 128 hidden units in place of
32, 64 and 512, so that it has 215,370 parameters for 28x28 grey images in ten classes instead of 1.66 million.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it


class Cnn(nn.Module):
    """Two convolutions, two linear layers.

    Args:
        input_shape: `(channels, height, width)`; height and width at least 4.
        num_classes: Width of the output.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.conv1 = nn.Conv2d(channels, 16, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=5, padding=2)
        self.hidden = nn.Linear(32 * (height // 4) * (width // 4), 128)
        self.output = nn.Linear(128, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised images `(n, channels, height, width)` to logits `(n, num_classes)`."""
        # max and relu commute, gradients included: pooling first leaves relu a quarter of the values
        x = F.relu(F.max_pool2d(self.conv1(images), 2))  # (n, 16, height / 2, width / 2)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))  # (n, 32, height / 4, width / 4)
        x = F.relu(self.hidden(x.flatten(1)))  # (n, 128)
        logits: torch.Tensor = self.output(x)
        return logits
