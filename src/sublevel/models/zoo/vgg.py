"""VGG-16 for CIFAR (Simonyan and Zisserman 2015, with BatchNorm and one linear layer, as in open_lth)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sublevel.models.registry import model
from sublevel.models.zoo.shapes import image_shape

STAGES = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
"""(multiple of the width, number of convolutions) per stage, with max pooling between stages."""


class ConvBlock(nn.Module):
    """relu(bn(conv(x))). The convolution has a bias, which BatchNorm makes ineffective, as in open_lth."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map activations to activations of the same height and width."""
        return F.relu(self.bn(self.conv(x)))


class VGG(nn.Module):
    """Thirteen convolutions, global average pooling, one linear layer; parameter names as in open_lth."""

    def __init__(self, channels: int, width: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = channels
        for multiple, convolutions in STAGES:
            layers += [nn.MaxPool2d(2)] if layers else []
            for _ in range(convolutions):
                layers.append(ConvBlock(inputs, multiple * width))
                inputs = multiple * width
        self.layers = nn.Sequential(*layers)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch of images to its logits."""
        x = self.layers(x)
        return self.fc(F.avg_pool2d(x, x.shape[2:]).flatten(1))


@model("vgg-16", revision=2)
def vgg_16(input_shape: tuple[int, ...], classes: int, *, width: int = 64) -> nn.Module:
    """Widths 64, 128, 256, 512, 512; 14,715,584 weights on CIFAR-10."""
    channels, _, _ = image_shape("vgg-16", input_shape, smallest=16)
    return VGG(channels, width, classes)
