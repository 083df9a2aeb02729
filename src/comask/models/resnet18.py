"""ResNet-18 for small images.

K. He, X. Zhang, S. Ren, J. Sun, "Deep Residual Learning for Image Recognition", CVPR 2016: the 18-layer network, with the
stem that is usual for images of 32x32: one 3x3 convolution of stride 1 in place of a 7x7 one of stride 2 and a pooling.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812  # PyTorch's own name for it


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, width, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(out)) + self.shortcut(x), inplace=True)


class ResNet18(nn.Module):
    """Eight residual blocks; 11,173,962 parameters for colour images in ten classes.

    Weights follow K. He et al. (ICCV 2015, fan out), as usual for this network.

    Args:
        input_shape: `(channels, height, width)`, any height and width of at least 8.
        num_classes: Width of the output.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(input_shape[0], 64, kernel_size=3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(64)
        blocks: list[nn.Module] = []
        channels = 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            blocks += [_Block(channels, width, stride), _Block(width, width, 1)]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised images `(n, channels, height, width)` to logits `(n, num_classes)`."""
        x = F.relu(self.norm(self.conv(images)), inplace=True)  # (n, 64, height, width)
        x = self.blocks(x)  # (n, 512, height / 8, width / 8)
        logits: torch.Tensor = self.output(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return logits
