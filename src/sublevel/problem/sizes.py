"""The size of a network's activations, and the batch size of its fields."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sublevel.heads import deferred, large_heads
from sublevel.inputs import Inputs, call
from sublevel.numerics import ieee

ACTIVATIONS = {"cpu": 100_000_000, "cuda": 1_000_000_000}
"""Maximum number of activations in one batch of a field, by device kind; fixed per release.

A GPU needs larger batches, because it launches the kernels of a small batch slower than it runs them.
"""

LARGEST = {"cpu": 250_000_000, "cuda": 5_000_000_000}
"""Maximum number of values in a batch of fewer than 50 examples."""


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


def count_saved(module: nn.Module, one: Inputs) -> int:
    """Total number of values that a forward pass for ``one`` example keeps for the backward pass, without parameters.

    It includes attention's matrices, which belong to no module.
    """
    own = {p.data_ptr() for p in module.parameters()}
    seen: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            seen[tensor.untyped_storage().data_ptr()] = tensor.numel()
            held.append(tensor)
        return tensor

    held: list[Tensor] = []
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    try:
        with hooks, sdpa_kernel(SDPBackend.MATH), deferred(large_heads(module)):
            call(module.eval(), {}, one)
    finally:
        module.train()
    return max(sum(seen.values()), 1)


def field_batch(activations: int, kind: str) -> int:
    """Examples per batch of a field, for this device kind and number of activations per example."""
    return max(2, min(1000, ACTIVATIONS[kind] // activations), min(50, LARGEST[kind] // activations))
