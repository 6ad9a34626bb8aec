"""Tickets made by hand, and a network with everything that is easy to forget."""

from __future__ import annotations

import torch
from torch import nn

from sublevel.space import Point, Space
from sublevel.tickets import Ticket


class Odd(nn.Module):
    """Tied weights, a parameter that is not trained, BatchNorm, a buffer that no state dict holds."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.first = nn.Linear(width, width, bias=False)
        self.second = nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.frozen = nn.Parameter(torch.randn(width), requires_grad=False)
        self.norm = nn.BatchNorm1d(width)
        self.last = nn.Linear(width, 3)
        self.register_buffer("scale", torch.randn(width), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.second(self.first(x * self.scale).tanh()) + self.frozen))


def odd(seed: int, dtype: torch.dtype = torch.float32) -> Odd:
    """A network of its own, its running statistics moved, in evaluation mode."""
    torch.manual_seed(seed)
    net = Odd().to(dtype)
    net(torch.randn(20, 6, dtype=dtype))
    return net.eval()


def half(space: Space, seed: int = 0) -> torch.Tensor:
    """A mask of about half the prunable weights."""
    kept = torch.rand(space.dim, generator=torch.Generator().manual_seed(seed)) < 0.5
    return kept | ~space.prunable


def ticket_of(start: nn.Module, end: nn.Module, about: dict | None = None) -> Ticket:
    """A ticket between two networks, whose end is masked."""
    space = Space.of(start)
    mask = half(space)
    constants = {n: p.detach().clone() for n, p in end.named_parameters() if not p.requires_grad}
    points: dict[str, Point] = {"start": space.point(start), "end": space.point(end).project(mask)}
    return Ticket(mask, points, space, constants, about or {})
