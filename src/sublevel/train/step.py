"""The definition of a training step. Engines are faster and must compute the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from sublevel._types import Bool, Float, Tensor
from sublevel.space import Space, project

Loss = Callable[[Tensor, Tensor], Float[Tensor, "batch"]]


@dataclass(frozen=True, eq=False)
class State:
    """Where training stands: theta and velocity [D], and the buffers."""

    theta: Float[Tensor, "D"]
    velocity: Float[Tensor, "D"]
    buffers: Mapping[str, Tensor]


def step(
    space: Space,
    module: nn.Module,
    state: State,
    mask: Bool[Tensor, "D"],
    batch: tuple[Tensor, Tensor],
    *,
    loss: Loss,
    lr: float,
    momentum: float,
    weight_decay: float,
    nesterov: bool = False,
) -> tuple[State, Float[Tensor, ""]]:
    """One step of masked SGD in PyTorch's form; returns the new state and the mean loss before it.

    g = m * (grad L + wd theta); v <- mu v + g; theta <- theta - lr v (with Nesterov: theta - lr (g + mu v)).
    Gradient, velocity and theta are exactly 0 where the mask is.
    """
    theta = state.theta.detach().requires_grad_()
    buffers = {name: b.clone() for name, b in state.buffers.items()}
    mean = loss(space.call(module.train(), theta, buffers, batch[0]), batch[1]).mean()
    (gradient,) = torch.autograd.grad(mean, theta)
    with torch.no_grad():
        g = project(gradient + weight_decay * theta, mask)
        velocity = momentum * state.velocity + g
        theta = theta - lr * (g + momentum * velocity if nesterov else velocity)
    return State(theta, velocity, buffers), mean.detach()
