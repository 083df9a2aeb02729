"""VGG-11 for images of 32x32.

K. Simonyan, A. Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, configuration
A. As usual on CIFAR-10, the two hidden layers of 4,096 units are left out (five poolings leave one pixel of 512
channels) and batch norm (S. Ioffe, C. Szegedy, ICML 2015) follows each convolution, whose bias it makes redundant.
"""

from __future__ import annotations

import torch
from torch import nn

from comask.errors import ConfigError

_POOL = 0
_PLAN = (64, _POOL, 128, _POOL, 256, 256, _POOL, 512, 512, _POOL, 512, 512, _POOL)


class Vgg11(nn.Module):
    """Eight convolutions of 3x3 and one linear layer; 9,228,362 parameters for 32x32 colour images in ten classes.

    Weights follow K. He et al. (ICCV 2015, fan in), which keeps the signal's size from layer to layer; without batch
    norm, PyTorch's default would leave the last layer with next to none.

    Args:
        input_shape: `(channels, height, width)`; height and width in 32..63, of which five poolings leave one pixel.
        num_classes: Width of the output.
        batch_norm: Whether batch norm follows each convolution. Without it the model has no buffers.

    Raises:
        ConfigError: If the images are of another size.
    """

    def __init__(self, *, input_shape: tuple[int, ...], num_classes: int, batch_norm: bool = True) -> None:
        super().__init__()
        channels, *sides = input_shape
        if not all(32 <= side < 64 for side in sides):
            raise ConfigError(
                f"model 'vgg11' needs images of 32 to 63 pixels a side, got input_shape {input_shape}."
            )
        layers: list[nn.Module] = []
        for width in _PLAN:
            if width == _POOL:
                layers.append(nn.MaxPool2d(2))
                continue
            layers.append(nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=not batch_norm))
            if batch_norm:
                layers.append(nn.BatchNorm2d(width))
            layers.append(nn.ReLU(inplace=True))
            channels = width
        self.features = nn.Sequential(*layers)
        self.output = nn.Linear(channels, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map normalised images `(n, channels, height, width)` to logits `(n, num_classes)`."""
        logits: torch.Tensor = self.output(self.features(images).flatten(1))  # features: (n, 512, 1, 1)
        return logits
