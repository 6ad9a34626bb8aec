"""The SynFlow field: the response of a network with absolute weights to an input of ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from sublevel._types import Tensor
from sublevel.field import Autograd
from sublevel.inputs import Inputs, each
from sublevel.risk.batchnorm import fixed_mode
from sublevel.space import Space

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.RMSNorm)


def flow(space: Space, module: nn.Module, like: Inputs) -> Autograd:
    """``R(theta)``: the sum of the outputs at ``|theta|`` for inputs of ones with the shapes and types of ``like``.

    Biases are 0 and norms are the identity, so that R of a feed-forward ReLU network is linear in the weights of every
    layer (Tanaka et al. 2006.05467). Integer inputs, which are tokens, are 0. Frozen weights enter by their absolute
    values too. Everything is float64: take gradients at a float64 point.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    >>> theta = torch.tensor([1.0, -2.0, 3.0, 4.0, 9.0, 9.0, -5.0, 1.0, 9.0], dtype=torch.float64)
    >>> flow(Space.of(net), net, torch.zeros(1, 2)).loss(theta)
    22.0
    """
    weights = torch.cat([torch.full((x.size,), not _is_bias(x.name)) for x in space.layers])
    free = {layer.name for layer in space.layers}

    def constants(device: torch.device) -> dict[str, Tensor]:
        fixed = {name: p.detach() for name, p in module.named_parameters() if name not in free}
        given = {name: p.abs() * (not _is_bias(name)) for name, p in fixed.items()} | dict(module.named_buffers())
        return {k: v.to(device, torch.float64 if v.is_floating_point() else None) for k, v in given.items()}

    def response(theta: Tensor) -> Tensor:
        positive = theta.double().abs() * weights.to(theta.device)
        with fixed_mode(module, statistics=False), _without_norms(module):
            return space.call(module, positive, constants(theta.device), each(like, _ones)).sum()

    return Autograd(response, space.dim)


def _ones(x: Tensor) -> Tensor:
    if x.is_floating_point():
        return torch.ones_like(x, dtype=torch.float64)
    return torch.ones_like(x) if x.dtype == torch.bool else torch.zeros_like(x)


def _is_bias(name: str) -> bool:
    return name.rpartition(".")[2] == "bias"


@contextmanager
def _without_norms(module: nn.Module) -> Iterator[None]:
    """Make every norm the identity inside the block."""
    norms = [(m, m.__dict__.get("forward")) for m in module.modules() if isinstance(m, NORMS)]
    try:
        for m, _ in norms:
            m.__dict__["forward"] = lambda x: x
        yield
    finally:
        for m, own in norms:
            del m.__dict__["forward"]
            if own is not None:
                m.__dict__["forward"] = own
