"""The perceptron of LeCun et al. 1998 with two hidden layers."""

from __future__ import annotations

from math import prod

import torch.nn.functional as F
from torch import Tensor, nn

from sublevel.models.registry import model


class Perceptron(nn.Module):
    """Fully connected layers with ReLU between them; parameter names as in open_lth."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], classes: int) -> None:
        super().__init__()
        sizes = (inputs, *hidden)
        self.fc_layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(sizes, hidden, strict=False))
        self.fc = nn.Linear(sizes[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map a batch of any shape to its logits."""
        x = x.flatten(1)
        for layer in self.fc_layers:
            x = F.relu(layer(x))
        return self.fc(x)


@model("lenet-300-100")
def lenet_300_100(input_shape: tuple[int, ...], classes: int) -> nn.Module:
    """Hidden layers of 300 and 100 units (Frankle and Carbin 2019); 266,200 weights on 784 inputs."""
    return Perceptron(prod(input_shape), (300, 100), classes)


@model("perceptron-{units}", examples=("perceptron-32",))
def perceptron(input_shape: tuple[int, ...], classes: int, *, units: int) -> nn.Module:
    """One hidden layer of ReLU units."""
    return Perceptron(prod(input_shape), (units,), classes)
