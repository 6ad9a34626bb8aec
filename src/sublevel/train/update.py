"""Optimizer updates in place, with the arithmetic of the reference steps, tensor by tensor."""

# pyright: reportPrivateImportUsage=false
# (torch._foreach_* are PyTorch's own multi-tensor operations, the ones that torch.optim is built on)

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import torch

from sublevel._types import Tensor
from sublevel.train.recipe import Recipe

Moments = dict[str, Tensor]
"""The state of an optimizer: vectors [D] by name, and the number of steps taken."""


def update(recipe: Recipe, theta: list[Tensor], mask: list[Tensor] | None) -> Update:
    """The recipe's optimizer on the parts of theta; ``mask`` has 0 and 1 for each part (None: dense)."""
    return Sgd(recipe, theta, mask) if recipe.optimizer == "sgd" else Adam(recipe, theta, mask)


def flat(parts: list[Tensor]) -> Tensor:
    """The entries of some tensors as one new vector."""
    return torch.cat([part.reshape(-1) for part in parts])


Factor = float | Tensor
"""A number that changes between steps; a tensor [] for captured steps."""


class Update(ABC):
    """An optimizer that updates the parts of theta in place, and its state."""

    mask: list[Tensor] | None
    count: int = 0

    def __call__(self, gradients: list[Tensor], lr: float) -> None:
        """Take one step. The gradients may be overwritten."""
        self.move(gradients, self.factors(lr))

    def factors(self, lr: float) -> list[float]:
        """Count a step; return its factors, the numbers that change between steps."""
        self.count += 1
        return self._factors(lr)

    @abstractmethod
    def _factors(self, lr: float) -> list[float]:
        """The factors of the current step."""

    @abstractmethod
    def move(self, gradients: list[Tensor], factors: Sequence[Factor]) -> None:
        """Take the step with these factors. The gradients may be overwritten."""

    @abstractmethod
    def vectors(self) -> dict[str, list[Tensor]]:
        """The state, in the parts of theta."""

    def moments(self, spread: Callable[[list[Tensor]], Tensor] = flat) -> Moments:
        """The state, as a copy; ``spread`` makes a vector [D] from the parts."""
        return {**{name: spread(parts) for name, parts in self.vectors().items()}, "count": torch.tensor(self.count)}

    def resume(self, moments: Mapping[str, Tensor], compact: Callable[[Tensor], list[Tensor]] | None = None) -> None:
        """Set the state to ``moments``; ``compact`` maps a vector [D] to the parts."""
        for name, parts in self.vectors().items():
            found = compact(moments[name]) if compact else moments[name].split([p.numel() for p in parts])
            for part, value in zip(parts, found, strict=True):
                part.copy_(value.view_as(part))
        self.count = int(moments["count"])

    def restrict(self, mask: list[Tensor]) -> None:
        """Continue under a nested mask; the state becomes exactly 0 outside it."""
        self.mask = mask
        for parts in self.vectors().values():
            for part, kept in zip(parts, mask, strict=True):
                part.masked_fill_(kept == 0, 0.0)


class Sgd(Update):
    """Masked SGD with momentum: `sublevel.train.step.step`."""

    def __init__(self, recipe: Recipe, theta: list[Tensor], mask: list[Tensor] | None) -> None:
        self.recipe, self.theta, self.mask = recipe, theta, mask
        self.velocity = [torch.zeros_like(part) for part in theta]

    def vectors(self) -> dict[str, list[Tensor]]:
        """The velocity."""
        return {"velocity": self.velocity}

    def _factors(self, lr: float) -> list[float]:
        return [lr]

    @torch.no_grad()
    def move(self, gradients: list[Tensor], factors: Sequence[Factor]) -> None:
        """Take the step. Pruned weights are 0, so weight decay adds nothing to them."""
        r = self.recipe
        gradients = [g.contiguous() for g in gradients]  # convolutions return them in the memory layout of their images
        if self.mask is not None:
            torch._foreach_mul_(gradients, self.mask)
        (rate,) = factors
        if isinstance(rate, Tensor) and rate.is_cuda and rate.dtype != torch.float32:
            self._by_tensor(gradients, rate)
            return
        velocity = self.velocity if r.momentum else []  # the kernel takes [] for no momentum
        torch._fused_sgd_(
            self.theta, gradients, velocity, weight_decay=r.weight_decay, momentum=r.momentum, lr=rate,
            dampening=0.0, nesterov=r.nesterov, maximize=False, is_first_step=False,
        )  # fmt: skip

    def _by_tensor(self, gradients: list[Tensor], rate: Tensor) -> None:
        """The same for a rate in float64 on a GPU, where the fused kernel takes a rate in float32 only."""
        r, moved = self.recipe, gradients
        torch._foreach_add_(gradients, self.theta, alpha=r.weight_decay)
        if r.momentum:
            torch._foreach_mul_(self.velocity, r.momentum)
            torch._foreach_add_(self.velocity, gradients)
            moved = self.velocity
            if r.nesterov:
                moved = list(torch._foreach_add(gradients, self.velocity, alpha=r.momentum))
        torch._foreach_sub_(self.theta, list(torch._foreach_mul(moved, rate)))


class Adam(Update):
    """Masked Adam and AdamW: `sublevel.train.step.adam_step`."""

    def __init__(self, recipe: Recipe, theta: list[Tensor], mask: list[Tensor] | None) -> None:
        self.recipe, self.theta, self.mask = recipe, theta, mask
        self.first = [torch.zeros_like(part) for part in theta]
        self.second = [torch.zeros_like(part) for part in theta]

    def vectors(self) -> dict[str, list[Tensor]]:
        """Both moments."""
        return {"first": self.first, "second": self.second}

    def _factors(self, lr: float) -> list[float]:
        r = self.recipe
        return [-lr / (1 - r.momentum**self.count), 1 - r.beta2**self.count, 1 - lr * r.weight_decay]

    @torch.no_grad()
    def move(self, gradients: list[Tensor], factors: Sequence[Factor]) -> None:
        """The step."""
        r, (rate, correction, shrink) = self.recipe, factors
        decoupled = r.optimizer == "adamw"
        if r.weight_decay and not decoupled:
            torch._foreach_add_(gradients, self.theta, alpha=r.weight_decay)
        if self.mask is not None:
            torch._foreach_mul_(gradients, self.mask)
        if r.weight_decay and decoupled:
            torch._foreach_mul_(self.theta, shrink)
        torch._foreach_mul_(self.first, r.momentum)
        torch._foreach_add_(self.first, gradients, alpha=1 - r.momentum)
        torch._foreach_mul_(self.second, r.beta2)
        torch._foreach_addcmul_(self.second, gradients, gradients, value=1 - r.beta2)
        scale = torch._foreach_div(self.second, correction)
        torch._foreach_sqrt_(scale)
        torch._foreach_add_(scale, r.eps)
        if isinstance(rate, Tensor):
            torch._foreach_add_(self.theta, list(torch._foreach_mul(torch._foreach_div(self.first, scale), rate)))
        else:
            torch._foreach_addcdiv_(self.theta, self.first, scale, value=rate)
