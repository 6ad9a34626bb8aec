"""What a training moves: the slope of the loss at theta, and masked descent along it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from sublevel._types import Bool, Float, Tensor
from sublevel.codec import under, within
from sublevel.inputs import Inputs, call
from sublevel.space import Point, Space, project
from sublevel.train.recipe import Recipe
from sublevel.train.resume import State, overwrite
from sublevel.train.step import Loss
from sublevel.train.team import team
from sublevel.train.update import Moments, flat, update


class LossAndGrad:
    """The mean loss of a batch and its gradient, at a vector ``theta`` [D] that is changed in place.

    Where several processes train together (see `sublevel.train.team`), each gives its share of the batch and gets the
    mean and the gradient of the whole; ``synchronised`` says whether BatchNorm sees the whole too.

    Every parameter is a leaf that shares the memory of its range of theta, so gradients need not be copied into one
    vector: that copy, and a boolean fill for the mask, cost a third of a small network's step on a CPU.
    """

    def __init__(
        self,
        space: Space,
        module: nn.Module,
        start: Point,
        prepare: Callable[[Tensor], Inputs],
        loss: Loss,
        recipe: Recipe,
    ) -> None:
        self._team, self._synchronised, self._bf16 = team(), recipe.synchronised, recipe.bf16
        self.space, self.module, self.prepare, self.loss = space, module, prepare, loss
        self.theta = start.theta.detach().clone()
        self.buffers = _copy(start.buffers)
        moved = self.compact(self.theta)
        self._leaves = {name: part.detach().requires_grad_() for name, part in moved.items()}
        self.parts = list(moved.values())
        """What an optimizer moves, parameter by parameter: the memory of theta."""

    def compact(self, vector: Float[Tensor, "D"]) -> dict[str, Tensor]:
        """A vector's numbers where an optimizer moves something, by parameter."""
        return self.space.views(vector)

    def spread(self, parts: list[Tensor]) -> Float[Tensor, "D"]:
        """The way back: a vector of its own."""
        return flat(parts)

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The mean loss, and its gradient in the parts of theta; the buffers move as in training."""
        tensors = {**self._leaves, **self.buffers}
        if self._team.size > 1:
            return self._together(tensors, x, y)
        mean = self._losses(tensors, x, y).mean()
        gradients = list(torch.autograd.grad(mean, list(self._leaves.values()), materialize_grads=True))
        self._moved(tensors)
        return mean.detach(), gradients

    def _together(self, tensors: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same of a batch that is shared; statistics of shares are averaged as their examples count."""
        with self._team.of_whole_batch(self.module if self._synchronised else nn.Module()):
            losses = self._losses(tensors, x, y)
            total, count = losses.sum(), losses.new_full((), float(losses.numel()))
            gradients = torch.autograd.grad(total, list(self._leaves.values()), materialize_grads=True)
        self._moved(tensors)
        own = [] if self._synchronised else [b for b in self.buffers.values() if b.is_floating_point()]
        n, added, *rest = self._team.add([count, total.detach(), *gradients, *(b * count for b in own)])
        for buffer, sums in zip(own, rest[len(gradients) :], strict=True):
            buffer.copy_(sums / n)
        return added / n, [g / n for g in rest[: len(gradients)]]

    def _losses(self, tensors: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        inputs = self.prepare(x)
        if not self._bf16:
            return self.loss(call(self.module, tensors, inputs), y)
        with torch.autocast(self.theta.device.type, torch.bfloat16):
            outputs = call(self.module, tensors, inputs)
        return self.loss(outputs.to(self.theta.dtype), y)

    def _moved(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the buffers that the module has replaced."""
        self.buffers |= {name: tensors[name].detach() for name, b in self.buffers.items() if tensors[name] is not b}

    def point(self) -> Point:
        """Where it stands, as a copy."""
        return Point(self.spread(self.parts), _copy(self.buffers))

    def restore(self, theta: Float[Tensor, "D"], buffers: State) -> None:
        """Stand where theta and the buffers say."""
        self.theta.copy_(theta)
        overwrite(self.buffers, buffers)


class Weights:
    """Masked descent of the weights in place, with the recipe's optimizer."""

    def __init__(
        self,
        space: Space,
        module: nn.Module,
        start: Point,
        mask: Bool[Tensor, "D"] | None,
        recipe: Recipe,
        prepare: Callable[[Tensor], Inputs],
        loss: Loss,
    ) -> None:
        projected = start if mask is None else start.project(mask)
        self._loss_and_grad = self.make_loss_and_grad(mask, space, module, projected, prepare, loss, recipe)
        self.point = self._loss_and_grad.point
        kept = None if mask is None or bool(mask.all()) else self._parts(mask)
        self.optimizer = update(recipe, self._loss_and_grad.parts, kept)

    def make_loss_and_grad(self, mask: Bool[Tensor, "D"] | None, *given: Any) -> LossAndGrad:
        """The slope to go down, under a mask that stays; all else as `LossAndGrad` takes it."""
        return LossAndGrad(*given)

    def step(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """One step; the mean loss before it."""
        mean, gradients = self._loss_and_grad(x, y)
        self.optimizer(gradients, lr)
        return mean

    def state(self) -> State:
        """Weights, buffers and momentum."""
        at = self.point()
        return {"theta": at.theta, **under("buffer", at.buffers), **under("moment", self.moments())}

    def restore(self, state: State) -> None:
        """Go on from a state."""
        self._loss_and_grad.restore(state["theta"], within("buffer", state))
        self.resume(within("moment", state))

    def moments(self) -> Moments:
        """What the optimizer remembers: vectors [D], and the number of steps."""
        return self.optimizer.moments(self._loss_and_grad.spread)

    def resume(self, moments: Mapping[str, Tensor]) -> None:
        """Go on with what an optimizer remembers of the steps before."""
        self.optimizer.resume(moments, self._compacted)

    def restrict(self, mask: Bool[Tensor, "D"], theta: Float[Tensor, "D"]) -> None:
        """Go on from ``theta`` under a mask nested in the one so far; theta and momentum are exactly 0 outside."""
        self._loss_and_grad.theta.copy_(project(theta, mask))
        self.optimizer.restrict(self._parts(mask))

    def _parts(self, mask: Bool[Tensor, "D"]) -> list[Tensor]:
        """0 and 1 for every part that is moved."""
        return self._compacted(mask.to(self._loss_and_grad.theta.dtype))

    def _compacted(self, vector: Float[Tensor, "D"]) -> list[Tensor]:
        return list(self._loss_and_grad.compact(vector).values())


def _copy(buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in buffers.items()}
