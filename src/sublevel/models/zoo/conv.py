"""Conv-2, Conv-4 and Conv-6 of Frankle and Carbin 2019 (figure 2): small VGGs without BatchNorm."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from sublevel.errors import ConfigError
from sublevel.models.registry import model
from sublevel.models.zoo.shapes import image_shape


class Conv(nn.Module):
    """Pairs of 3x3 convolutions, each pair followed by 2x2 max pooling, then linear layers of 256 and 256."""

    def __init__(self, input_shape: tuple[int, int, int], widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        channels, height, width = input_shape
        sizes = [channels]
        for each in widths:
            sizes += [each, each]
        self.convs = nn.ModuleList(nn.Conv2d(a, b, kernel_size=3, padding=1) for a, b in pairwise(sizes))
        pooled = (height >> len(widths)) * (width >> len(widths)) * widths[-1]
        self.fc_layers = nn.ModuleList([nn.Linear(pooled, 256), nn.Linear(256, 256)])
        self.fc = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch of images to its logits."""
        for index, conv in enumerate(self.convs):
            x = F.relu(conv(x))
            if index % 2:
                x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        for layer in self.fc_layers:
            x = F.relu(layer(x))
        return self.fc(x)


@model("conv-{layers}", examples=("conv-2", "conv-4", "conv-6"))
def conv(input_shape: tuple[int, ...], classes: int, *, layers: int, width: int = 64) -> nn.Module:
    """Pairs of ``width``, 2 ``width`` and 4 ``width`` channels; conv-2, conv-4 and conv-6.

    On CIFAR-10: 4,300,992, 2,425,024 and 2,261,184 weights. The paper gives 4.3M, 2.4M and 1.7M; the last is
    not what its description (padded convolutions, three poolings, linear layers of 256) adds up to.
    """
    if layers not in (2, 4, 6):
        raise ConfigError(f"unknown model 'conv-{layers}'; allowed: conv-2, conv-4, conv-6")
    pairs = layers // 2
    image = image_shape(f"conv-{layers}", input_shape, smallest=2**pairs)
    return Conv(image, tuple(width << pair for pair in range(pairs)), classes)
