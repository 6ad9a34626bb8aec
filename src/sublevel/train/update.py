"""From gradients to weights, in place: the arithmetic of the reference steps, tensor by tensor."""

# pyright: reportPrivateImportUsage=false
# (torch._foreach_* are PyTorch's own multi-tensor operations, the ones that torch.optim is built on)

from __future__ import annotations

from collections.abc import Callable

import torch

from sublevel._types import Tensor
from sublevel.train.recipe import Recipe

Update = Callable[[list[Tensor], float], None]
"""Takes the gradients, which it may overwrite, and the learning rate."""


def update(recipe: Recipe, theta: list[Tensor], mask: list[Tensor] | None) -> Update:
    """The recipe's optimizer on the parts of theta; ``mask`` holds 0 and 1 for each of them (None: all are kept)."""
    return Sgd(recipe, theta, mask) if recipe.optimizer == "sgd" else Adam(recipe, theta, mask)


class Sgd:
    """Masked SGD with momentum: `sublevel.train.step.step`."""

    def __init__(self, recipe: Recipe, theta: list[Tensor], mask: list[Tensor] | None) -> None:
        self.recipe, self.theta, self.mask = recipe, theta, mask
        self.velocity = [torch.zeros_like(part) for part in theta]

    @torch.no_grad()
    def __call__(self, gradients: list[Tensor], lr: float) -> None:
        """One step."""
        r = self.recipe
        if r.weight_decay:
            torch._foreach_add_(gradients, self.theta, alpha=r.weight_decay)
        if self.mask is not None:
            torch._foreach_mul_(gradients, self.mask)
        torch._foreach_mul_(self.velocity, r.momentum)
        torch._foreach_add_(self.velocity, gradients)
        if r.nesterov:
            torch._foreach_add_(gradients, self.velocity, alpha=r.momentum)
        torch._foreach_add_(self.theta, gradients if r.nesterov else self.velocity, alpha=-lr)


class Adam:
    """Masked Adam and AdamW: `sublevel.train.step.adam_step`."""

    def __init__(self, recipe: Recipe, theta: list[Tensor], mask: list[Tensor] | None) -> None:
        self.recipe, self.theta, self.mask = recipe, theta, mask
        self.first = [torch.zeros_like(part) for part in theta]
        self.second = [torch.zeros_like(part) for part in theta]
        self.count = 0

    @torch.no_grad()
    def __call__(self, gradients: list[Tensor], lr: float) -> None:
        """One step."""
        r = self.recipe
        self.count += 1
        decoupled = r.optimizer == "adamw"
        if r.weight_decay and not decoupled:
            torch._foreach_add_(gradients, self.theta, alpha=r.weight_decay)
        if self.mask is not None:
            torch._foreach_mul_(gradients, self.mask)
        if r.weight_decay and decoupled:
            torch._foreach_mul_(self.theta, 1 - lr * r.weight_decay)
        torch._foreach_mul_(self.first, r.momentum)
        torch._foreach_add_(self.first, gradients, alpha=1 - r.momentum)
        torch._foreach_mul_(self.second, r.beta2)
        torch._foreach_addcmul_(self.second, gradients, gradients, value=1 - r.beta2)
        scale = torch._foreach_div(self.second, 1 - r.beta2**self.count)
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, r.eps)
        torch._foreach_addcdiv_(self.theta, self.first, scale, value=-lr / (1 - r.momentum**self.count))
