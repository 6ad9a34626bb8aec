"""The definition of a training step. Engines compute the same step faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from sublevel._types import Bool, Float, Tensor
from sublevel.inputs import Inputs, call
from sublevel.space import Space, project

Loss = Callable[[Tensor, Tensor], Float[Tensor, "batch"]]


@dataclass(frozen=True, eq=False)
class StepState:
    """The state of a training: theta and velocity [D] (Adam's first moment), and the buffers.

    ``second`` [D] is Adam's second moment, ``count`` the number of steps in both moments.
    """

    theta: Float[Tensor, "D"]
    velocity: Float[Tensor, "D"]
    buffers: Mapping[str, Tensor]
    second: Float[Tensor, "D"] | None = None
    count: int = 0


def step(
    space: Space,
    module: nn.Module,
    state: StepState,
    mask: Bool[Tensor, "D"],
    batch: tuple[Inputs, Tensor],
    *,
    loss: Loss,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool = False,
) -> tuple[StepState, Float[Tensor, ""]]:
    """Take one step of masked SGD in PyTorch's form; return the new state and the mean loss before it.

    g = m * (grad L + wd theta); v <- mu v + g; theta <- theta - lr v (with Nesterov: theta - lr (g + mu v)).
    Gradient, velocity and theta are exactly 0 where the mask is.
    """
    theta, gradient, buffers, mean = _gradient(space, module, state, batch, loss)
    g = project(gradient + weight_decay * theta, mask)
    velocity = momentum * state.velocity + g
    theta = theta - lr * (g + momentum * velocity if nesterov else velocity)
    return StepState(theta, velocity, buffers), mean


def adam_step(
    space: Space,
    module: nn.Module,
    state: StepState,
    mask: Bool[Tensor, "D"],
    batch: tuple[Inputs, Tensor],
    *,
    loss: Loss,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool = False,
) -> tuple[StepState, Float[Tensor, ""]]:
    """Take one step of masked Adam (Kingma and Ba 1412.6980, algorithm 1), or of AdamW if ``decoupled``.

    g = m * (grad L + wd theta); v <- b1 v + (1 - b1) g; s <- b2 s + (1 - b2) g^2; with the moments' bias corrected,
    theta <- theta - lr v / (sqrt(s) + eps). AdamW leaves wd out of g and subtracts lr wd theta from theta instead
    (Loshchilov and Hutter 1711.05101). Gradient, moments and theta are exactly 0 where the mask is.
    """
    theta, gradient, buffers, mean = _gradient(space, module, state, batch, loss)
    g = project(gradient if decoupled else gradient + weight_decay * theta, mask)
    before = torch.zeros_like(g) if state.second is None else state.second
    velocity, second, count = (
        beta1 * state.velocity + (1 - beta1) * g,
        beta2 * before + (1 - beta2) * g**2,
        state.count + 1,
    )
    shrunk = theta * (1 - lr * weight_decay) if decoupled else theta
    scale = (second / (1 - beta2**count)).sqrt() + eps
    return StepState(shrunk - lr * velocity / (1 - beta1**count) / scale, velocity, buffers, second, count), mean


def _gradient(
    space: Space, module: nn.Module, state: StepState, batch: tuple[Inputs, Tensor], loss: Loss
) -> tuple[Tensor, Tensor, dict[str, Tensor], Tensor]:
    """Theta, the gradient of the mean loss there, the buffers after the forward pass, and the loss."""
    theta = state.theta.detach().requires_grad_()
    tensors = {**space.views(theta), **{name: b.clone() for name, b in state.buffers.items()}}
    mean = loss(call(module.train(), tensors, batch[0]), batch[1]).mean()
    (gradient,) = torch.autograd.grad(mean, theta)
    return theta.detach(), gradient, {name: tensors[name].detach() for name in state.buffers}, mean.detach()
