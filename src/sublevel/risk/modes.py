"""Whose statistics BatchNorm uses, and how they are recomputed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sublevel._types import Tensor
from sublevel.inputs import Inputs, examples
from sublevel.space import STATISTICS, Point, Space

POLICIES = ("stored", "batch", "recomputed")


def policy_of(asked: str, space: Space, module: nn.Module) -> str:
    """The policy that the network leaves of the one asked for: ``none`` where it has no statistics."""
    if space.statistics:
        return asked
    return "batch" if any(isinstance(m, STATISTICS) for m in module.modules()) else "none"


def recomputed_statistics(
    space: Space, module: nn.Module, point: Point, batches: Iterator[Inputs]
) -> dict[str, Tensor]:
    """BatchNorm statistics of the point: each batch's mean and unbiased variance, averaged by batch size."""
    names = [f"{m}.{kind}" for m in space.statistics for kind in ("running_mean", "running_var")]
    scratch = {name: torch.zeros_like(b) if name in names else b.clone() for name, b in point.buffers.items()}
    sums = {name: torch.zeros_like(scratch[name], dtype=torch.float64) for name in names}
    seen = 0
    with torch.no_grad(), fixed_mode(module, statistics=True, momentum=1.0):
        for x in batches:
            space.call(module, point.theta, scratch, x)
            seen += examples(x)
            for name in names:
                sums[name] += scratch[name].double() * examples(x)
    averaged = {name: (total / seen).to(scratch[name].dtype) for name, total in sums.items()}
    return {**point.buffers, **averaged}


@contextmanager
def fixed_mode(module: nn.Module, *, statistics: bool, momentum: float | None = None) -> Iterator[None]:
    """Evaluation mode, but for BatchNorm where ``statistics``; modes and momenta are put back."""
    modes = [(m, m.training) for m in module.modules()]
    normalised = [m for m in module.modules() if isinstance(m, STATISTICS)]
    momenta = [m.momentum for m in normalised]
    try:
        for m, _ in modes:
            m.training = False
        for m in normalised:
            m.training = statistics
            m.momentum = m.momentum if momentum is None else momentum
        yield
    finally:
        for m, training in modes:
            m.training = training
        for m, value in zip(normalised, momenta, strict=True):
            m.momentum = value
