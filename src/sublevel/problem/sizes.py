"""The size of a network's activations, and the batch size of its fields."""

from __future__ import annotations

import torch
from torch import nn

from sublevel.inputs import Inputs, call
from sublevel.numerics import ieee

ACTIVATIONS = {"cpu": 100_000_000, "cuda": 1_000_000_000}
"""Maximum number of activations in one batch of a field, by device kind; fixed per release.

A GPU needs larger batches, because it launches the kernels of a small batch slower than it runs them.
"""


@ieee
def count_activations(module: nn.Module, one: Inputs) -> int:
    """Total number of outputs of a network's leaf modules for ``one`` example, at least 1."""
    seen: list[int] = []
    leaves = [m for m in module.modules() if not list(m.children())]
    hooks = [m.register_forward_hook(lambda _, __, out: seen.append(getattr(out, "numel", int)())) for m in leaves]
    try:
        with torch.no_grad():
            call(module.eval(), {}, one)
    finally:
        module.train()
        for hook in hooks:
            hook.remove()
    return max(sum(seen), 1)


def field_batch(activations: int, kind: str) -> int:
    """Examples per batch of a field, for this device kind and number of activations per example."""
    return max(50, min(1000, ACTIVATIONS[kind] // activations))
