"""The least time of a training step: its convolutions and matrix products alone, and the bytes that the rest moves.

The products are timed one by one, forward and backward, on tensors of the shapes and the layout that they have in the
step. All other layers, the optimizer and the masks are taken to cost their bytes alone: a layer reads and writes every
number of its output five times (forward in and out; backward the gradient, what was saved, the gradient passed on), the
optimizer six times every weight. A byte costs what it costs to copy a tensor of that size here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from sublevel.problem import Problem

PASSES = 5
"""Times that a layer without products reads or writes every number of its output."""

VECTORS = 6
"""The same of the optimizer for every weight: theta and velocity read and written, gradient and mask read."""


def limit(problem: Problem, batch: int) -> dict[str, float]:
    """Seconds of one step of a batch: of the products alone, and of the bytes of the rest."""
    products, moved = [], []
    module = problem.module.train()

    def look(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            products.append((layer, inputs[0].detach(), output.detach()))
        elif not isinstance(layer, nn.Flatten | nn.Identity):
            moved.append(output.numel() * output.element_size())

    leaves = [m for m in module.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(look) for m in leaves]
    try:
        module(problem.prepare(problem.splits.train.x[:batch]))
    finally:
        for hook in hooks:
            hook.remove()
    first = products[0][0]
    kernels = sum(least(product(layer, x, y, layer is not first)) for layer, x, y in products)
    weights = [p.numel() * p.element_size() for p in module.parameters()]
    bytes_ = sum(PASSES * n * per_byte(n) for n in moved) + sum(VECTORS * n * per_byte(n) for n in weights)
    return {"products": kernels, "bytes of the rest": bytes_}


def product(layer: nn.Module, x: torch.Tensor, y: torch.Tensor, to_input: bool) -> Callable[[], object]:
    """Forward and backward of one layer; the first layer passes no gradient on."""
    weight, gradient = layer.weight.detach(), torch.randn_like(y)
    if isinstance(layer, nn.Linear):

        def linear() -> None:
            torch.mm(x, weight.t())
            torch.mm(gradient.t(), x)
            if to_input:
                torch.mm(gradient, weight)

        return linear
    how = (layer.stride, layer.padding, layer.dilation, False, [0, 0], layer.groups)

    def convolution() -> None:
        torch.ops.aten.convolution(x, weight, None, *how)
        torch.ops.aten.convolution_backward(gradient, x, weight, None, *how, [to_input, True, False])

    return convolution


@cache
def per_byte(size: int) -> float:
    """Seconds to read or write one byte, in a copy of a tensor of so many bytes."""
    a = torch.zeros(max(size // 4, 1))
    b = torch.zeros_like(a)
    return least(lambda: b.copy_(a)) / (2 * a.numel() * 4)


def least(function: Callable[[], object], rounds: int = 7) -> float:
    """The least seconds of a call, of some rounds."""
    function()
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - began)
    return best
