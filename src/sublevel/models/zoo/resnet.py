"""The CIFAR ResNets of He et al. 2016 (section 4.2), with 1x1 convolutions where the shape changes."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from sublevel.errors import ConfigError
from sublevel.models.registry import model
from sublevel.models.zoo.shapes import image_shape


class Block(nn.Module):
    """relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Map activations to activations, halving the image if the stride is 2."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of ``blocks`` blocks, of 1, 2 and 4 times ``width``; parameter names as in open_lth."""

    def __init__(self, channels: int, blocks: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, width, kernel_size=3, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(width)
        stages = [(width << stage, 2 if stage and not block else 1) for stage in range(3) for block in range(blocks)]
        inputs = [width, *(outputs for outputs, _ in stages)]
        self.blocks = nn.Sequential(
            *(Block(before, outputs, stride) for before, (outputs, stride) in zip(inputs, stages, strict=False))
        )
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch of images to its logits."""
        x = F.relu(self.bn(self.conv(x)))
        x = self.blocks(x)
        # twice as fast, backwards, as a mean; adaptive pooling has no deterministic backward pass on CUDA
        return self.fc(F.avg_pool2d(x, x.shape[2:]).flatten(1))


@model(
    "resnet-{depth}",
    revision=2,
    examples=("resnet-8", "resnet-20", "resnet-32", "resnet-44", "resnet-56", "resnet-110"),
)
def resnet(input_shape: tuple[int, ...], classes: int, *, depth: int, width: int = 16) -> nn.Module:
    """ResNet of depth 6n + 2 for small images; resnet-20 has 270,896 weights on CIFAR-10."""
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        nearest = 6 * max(1, round((depth - 2) / 6)) + 2
        raise ConfigError(
            f"model 'resnet-{depth}': the ResNets for small images have depth 6n + 2 with n of at least 1; "
            f"the nearest is 'resnet-{nearest}'"
        )
    channels, _, _ = image_shape(f"resnet-{depth}", input_shape, smallest=8)
    return ResNet(channels, blocks, width, classes)
