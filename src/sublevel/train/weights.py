"""The loss with its gradient at theta, and masked training steps of the weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from sublevel._types import Bool, Float, Tensor
from sublevel.codec import under, within
from sublevel.heads import deferred, large_heads
from sublevel.inputs import call
from sublevel.space import Point, project
from sublevel.train.resume import State, overwrite
from sublevel.train.setup import TrainingSetup
from sublevel.train.team import team
from sublevel.train.update import Moments, flat, update


class LossAndGrad:
    """The mean loss of a batch and its gradient, at a vector ``theta`` [D] that is changed in place.

    If several processes train together (see `sublevel.train.team`), each passes its share of the batch and receives
    the mean and the gradient of the whole; with ``synchronised``, BatchNorm uses the whole batch too.

    Every parameter is a leaf that shares the memory of its range of theta, so gradients are not copied into one vector.
    That copy and a boolean fill for the mask would cost a third of a small network's step on a CPU.
    """

    def __init__(self, setup: TrainingSetup, start: Point) -> None:
        self._team, self._synchronised, self._bf16 = team(), setup.recipe.synchronised, setup.recipe.bf16
        self.space, self.module, self.prepare, self.loss = setup.space, setup.module, setup.prepare, setup.loss
        self._heads = large_heads(setup.module)
        self.theta = start.theta.detach().clone()
        self.buffers = _copy(start.buffers)
        moved = self.compact(self.theta)
        self._leaves = {name: part.detach().requires_grad_() for name, part in moved.items()}
        self.parts = list(moved.values())
        """The tensors that the optimizer updates, one per parameter, in the memory of theta."""

    def compact(self, vector: Float[Tensor, "D"]) -> dict[str, Tensor]:
        """The entries of a vector that the optimizer moves, by parameter."""
        return self.space.views(vector)

    def spread(self, parts: list[Tensor]) -> Float[Tensor, "D"]:
        """Inverse of `compact`: a new vector."""
        return flat(parts)

    def __call__(self, x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The mean loss, and its gradient in the parts of theta; updates the buffers as in training."""
        tensors = {**self._leaves, **self.buffers}
        if self._team.size > 1:
            return self._together(tensors, x, y)
        mean = self._losses(tensors, x, y).mean()
        gradients = list(torch.autograd.grad(mean, list(self._leaves.values()), materialize_grads=True))
        self._moved(tensors)
        return mean.detach(), gradients

    def _together(self, tensors: dict[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The same for a batch shared by processes; averages their statistics, weighted by examples."""
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
            with deferred(self._heads):
                outputs = call(self.module, tensors, inputs)
            return self.loss(outputs, y)
        with torch.autocast(self.theta.device.type, torch.bfloat16):
            outputs = call(self.module, tensors, inputs)
        return self.loss(outputs.to(self.theta.dtype), y)

    def _moved(self, tensors: Mapping[str, Tensor]) -> None:
        """Adopt the buffers that the module has replaced."""
        self.buffers |= {name: tensors[name].detach() for name, b in self.buffers.items() if tensors[name] is not b}

    def point(self) -> Point:
        """The current point, as a copy."""
        return Point(self.spread(self.parts), _copy(self.buffers))

    def restore(self, theta: Float[Tensor, "D"], buffers: State) -> None:
        """Set theta and the buffers."""
        self.theta.copy_(theta)
        overwrite(self.buffers, buffers)


class Weights:
    """Masked training steps of the weights, in place, with the recipe's optimizer."""

    def __init__(self, setup: TrainingSetup, start: Point, mask: Bool[Tensor, "D"] | None) -> None:
        self._loss_and_grad = self.make_loss_and_grad(setup, start if mask is None else start.project(mask), mask)
        self.point = self._loss_and_grad.point
        kept = None if mask is None or bool(mask.all()) else self._parts(mask)
        self.optimizer = update(setup.recipe, self._loss_and_grad.parts, kept)

    def make_loss_and_grad(self, setup: TrainingSetup, start: Point, mask: Bool[Tensor, "D"] | None) -> LossAndGrad:
        """The loss and gradient for a fixed mask."""
        return LossAndGrad(setup, start)

    def step(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """Take one step; return the mean loss before it."""
        mean, gradients = self._loss_and_grad(x, y)
        self.optimizer(gradients, lr)
        return mean

    def state(self) -> State:
        """Weights, buffers and momentum."""
        at = self.point()
        return {"theta": at.theta, **under("buffer", at.buffers), **under("moment", self.moments())}

    def restore(self, state: State) -> None:
        """Restore a state."""
        self._loss_and_grad.restore(state["theta"], within("buffer", state))
        self.resume(within("moment", state))

    def moments(self) -> Moments:
        """The optimizer's state: vectors [D], and the number of steps."""
        return self.optimizer.moments(self._loss_and_grad.spread)

    def resume(self, moments: Mapping[str, Tensor]) -> None:
        """Set the optimizer's state."""
        self.optimizer.resume(moments, self._compacted)

    def restrict(self, mask: Bool[Tensor, "D"], theta: Float[Tensor, "D"]) -> None:
        """Continue from ``theta`` under a nested mask; theta and momentum are exactly 0 outside it."""
        self._loss_and_grad.theta.copy_(project(theta, mask))
        self.optimizer.restrict(self._parts(mask))

    def _parts(self, mask: Bool[Tensor, "D"]) -> list[Tensor]:
        """The mask as 0 and 1, in the parts of theta."""
        return self._compacted(mask.to(self._loss_and_grad.theta.dtype))

    def _compacted(self, vector: Float[Tensor, "D"]) -> list[Tensor]:
        return list(self._loss_and_grad.compact(vector).values())


def _copy(buffers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: b.clone() for name, b in buffers.items()}
