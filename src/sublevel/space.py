"""A network as a point in R^D.

A `Space` reads a module once: the order of its trainable parameters in the flat vector theta, which
coordinates may be pruned, which of them form a layer and a filter, and the buffers that go with a theta
without being coordinates (BatchNorm's running statistics). After that, rewinding is copying a vector, pruning
is multiplying by a mask and a path is a lerp, and no other module needs to know about layers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod

import torch
from torch import nn

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ModelError
from sublevel.inputs import Inputs, call

PRUNABLE = (nn.modules.conv._ConvNd, nn.Linear)
STATISTICS = nn.modules.batchnorm._BatchNorm

Prunable = Callable[[str, nn.Module, nn.Parameter], bool]
Choice = Prunable | str | Sequence[str]
"""Which weights may be pruned: a function, or names of parameters (with wildcards) and of module classes."""


@dataclass(frozen=True, eq=False)
class Point:
    """A vector theta with the buffers that belong to it.

    ``theta`` has shape [D]; ``buffers`` maps a buffer's name to its tensor. Nothing here is written in place.
    """

    theta: Float[Tensor, "D"]
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    def project(self, mask: Bool[Tensor, "D"]) -> Point:
        """``m * theta`` with the same buffers: the pruning step, under stale statistics."""
        return replace(self, theta=project(self.theta, mask))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Point:
        """A copy on ``device``; floating-point entries become ``dtype``."""
        buffers = {
            name: b.to(device=device, dtype=dtype if b.is_floating_point() else None)
            for name, b in self.buffers.items()
        }
        return Point(self.theta.to(device=device, dtype=dtype), buffers)


def as_point(at: Point | Tensor) -> Point:
    """A `Point` from a point or a plain vector, for fields that have no buffers."""
    return at if isinstance(at, Point) else Point(at)


def project(theta: Float[Tensor, "D"], mask: Bool[Tensor, "D"]) -> Float[Tensor, "D"]:
    """``m * theta``, exactly 0 (never -0 or nan) where the mask is 0.

    >>> project(torch.tensor([1.0, -2.0]), torch.tensor([True, False]))
    tensor([1., 0.])
    """
    return torch.where(mask, theta, theta.new_zeros(()))


def lerp(a: Point, b: Point, alpha: float) -> Point:
    """``(1 - alpha) a + alpha b`` in theta and in every floating-point buffer; other buffers are a's.

    The ends are returned as they are, so a path starts and stops at the very points it joins. What only one end has is
    left out: a field that reads it refuses the point.
    """
    if alpha in (0.0, 1.0):
        return b if alpha else a
    mixed = {
        name: torch.lerp(buffer, b.buffers[name], alpha) if buffer.is_floating_point() else buffer
        for name, buffer in a.buffers.items()
        if name in b.buffers
    }
    return Point(torch.lerp(a.theta, b.theta, alpha), mixed)


@dataclass(frozen=True)
class Layer:
    """One trainable tensor as a range of coordinates."""

    name: str
    shape: tuple[int, ...]
    start: int
    prunable: bool

    @property
    def size(self) -> int:
        """Number of coordinates."""
        return prod(self.shape)

    @property
    def coordinates(self) -> slice:
        """Where the tensor stands in theta."""
        return slice(self.start, self.start + self.size)


@dataclass(frozen=True)
class Space:
    """R^D of one network: its coordinates in ``named_parameters()`` order, and its buffers.

    A tied parameter is one set of coordinates, under the name it is met first; parameters that do not require a
    gradient are constants of the network, not coordinates.
    """

    layers: tuple[Layer, ...]
    buffers: tuple[str, ...]
    statistics: tuple[str, ...]
    """Names of the BatchNorm modules that keep running statistics."""

    @classmethod
    def of(cls, module: nn.Module, prunable: Choice | None = None) -> Space:
        """Read the space of ``module``.

        ``prunable(name, owner, parameter) -> bool`` chooses the weights that may be pruned, or a list of parameters'
        names with shell wildcards (``"blocks.*.weight"``) and of module classes, whose ``weight`` it means
        (``"Embedding"``); by default the weights of every convolution and linear layer.

        Raises ModelError if there is nothing to train, nothing to prune, or a name that matches nothing.
        """
        choose = _chooser(module, prunable)
        owners = _owners(module)
        layers, start = [], 0
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                chosen = any(choose(name, owner, parameter) for owner in owners[parameter])
                layers.append(Layer(name, tuple(parameter.shape), start, chosen))
                start += parameter.numel()
        if not layers:
            raise ModelError(f"{type(module).__name__} has no trainable parameter")
        if not any(layer.prunable for layer in layers):
            names = ", ".join(layer.name for layer in layers[:5])
            raise ModelError(f"{type(module).__name__} has no prunable weight among its parameters ({names}, ...)")
        normalised = [name for name, m in module.named_modules() if _keeps_statistics(m)]
        return cls(tuple(layers), tuple(name for name, _ in module.named_buffers()), tuple(normalised))

    @cached_property
    def dim(self) -> int:
        """D, the number of trainable parameters."""
        return sum(layer.size for layer in self.layers)

    @cached_property
    def prunable(self) -> Bool[Tensor, "D"]:
        """1 where a coordinate may be pruned (CPU)."""
        return torch.cat([torch.full((layer.size,), layer.prunable) for layer in self.layers])

    @property
    def prunable_layers(self) -> Iterator[Layer]:
        """The layers whose weights may be pruned."""
        return (layer for layer in self.layers if layer.prunable)

    def indicator(self, name: str) -> Bool[Tensor, "D"]:
        """1 on the coordinates of the layer of that name (CPU)."""
        out = torch.zeros(self.dim, dtype=torch.bool)
        out[next(layer for layer in self.layers if layer.name == name).coordinates] = True
        return out

    def full_mask(self) -> Bool[Tensor, "D"]:
        """The mask of the dense network (CPU)."""
        return torch.ones(self.dim, dtype=torch.bool)

    def remaining(self, mask: Bool[Tensor, "D"]) -> int:
        """How many prunable weights the mask leaves."""
        return int((mask.cpu() & self.prunable).sum())

    def density(self, mask: Bool[Tensor, "D"]) -> float:
        """The share of the prunable weights that the mask leaves."""
        return self.remaining(mask) / int(self.prunable.sum())

    def point(self, module: nn.Module) -> Point:
        """The point that ``module`` stands at, as a copy."""
        parameters = dict(module.named_parameters())
        theta = torch.cat([parameters[layer.name].detach().reshape(-1) for layer in self.layers])
        return Point(theta, {name: b.detach().clone() for name, b in module.named_buffers()})

    def views(self, theta: Float[Tensor, "D"]) -> dict[str, Tensor]:
        """The parameters as views of theta, by one split (so that the gradient of theta arrives flat)."""
        parts = theta.split([layer.size for layer in self.layers])
        return {layer.name: part.view(layer.shape) for layer, part in zip(self.layers, parts, strict=True)}

    def call(self, module: nn.Module, theta: Float[Tensor, "D"], buffers: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """The network's output at theta; ``buffers`` are written in place where the module is in train mode."""
        return call(module, {**self.views(theta), **buffers}, x)

    def write(self, module: nn.Module, point: Point) -> None:
        """Copy the point into ``module``: the way back to an ordinary PyTorch network."""
        with torch.no_grad():
            parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
            for name, view in self.views(point.theta).items():
                parameters[name].copy_(view)
            for name, buffer in point.buffers.items():
                buffers[name].copy_(buffer)

    def filters(self, mask: Bool[Tensor, "D"]) -> Iterator[tuple[Layer, Bool[Tensor, "rows"]]]:
        """For every prunable layer, which of its rows (output channels, units) have a weight left."""
        for layer in self.prunable_layers:
            yield layer, mask[layer.coordinates].view(layer.shape[0], -1).any(dim=1)

    def dead(self, mask: Bool[Tensor, "D"]) -> Bool[Tensor, "D"]:
        """Coordinates of filters with no weight left.

        Behind such a filter BatchNorm's variance is near 0 and its gain near 1/sqrt(eps) = 316: one of them can
        raise the largest eigenvalue in R^D by four orders of magnitude. Curvature can leave these coordinates out.
        """
        out = torch.zeros_like(mask)
        for layer, alive in self.filters(mask):
            rows = (~alive).repeat_interleave(layer.size // layer.shape[0])
            out[layer.coordinates] = rows
        return out


def check_mask(space: Space, mask: Bool[Tensor, "D"], parent: Bool[Tensor, "D"] | None, count: int) -> None:
    """Hold a new mask to its invariants: exact count, nested in its parent, nothing unprunable removed.

    Raises ModelError naming the one that is broken.
    """
    left = space.remaining(mask)
    if left != count:
        raise ModelError(f"mask leaves {left} prunable weights where {count} were asked for")
    if not bool(mask.cpu()[~space.prunable].all()):
        raise ModelError("mask removes a coordinate that is not prunable")
    if parent is not None and bool((mask & ~parent).any()):
        raise ModelError("mask is not nested: it restores a weight that its parent had removed")


def _chooser(module: nn.Module, chosen: Choice | None) -> Prunable:
    if chosen is None:
        return _default_prunable
    if callable(chosen):
        return chosen
    names = [chosen] if isinstance(chosen, str) else list(chosen)
    trained = [(name, o, p) for p, owners in _owners(module).items() for o in owners for name in _names(module, p)]
    for name in names:
        if not any(_matches(name, *each) for each in trained):
            known = ", ".join(dict.fromkeys(n for n, _, _ in trained))
            raise ModelError(f"prunable: {name!r} matches no parameter and no module class; the parameters are {known}")
    return lambda *each: any(_matches(name, *each) for name in names)


def _matches(pattern: str, name: str, owner: nn.Module, parameter: nn.Parameter) -> bool:
    of_class = type(owner).__name__ == pattern and parameter is getattr(owner, "weight", None)
    return of_class or fnmatchcase(name, pattern)


def _names(module: nn.Module, parameter: nn.Parameter) -> list[str]:
    return [name for name, p in module.named_parameters() if p is parameter]


def _default_prunable(name: str, owner: nn.Module, parameter: nn.Parameter) -> bool:
    return isinstance(owner, PRUNABLE) and parameter is owner.weight


def _owners(module: nn.Module) -> dict[nn.Parameter, list[nn.Module]]:
    owners: dict[nn.Parameter, list[nn.Module]] = {}
    for owner in module.modules():
        for parameter in owner.parameters(recurse=False):
            owners.setdefault(parameter, []).append(owner)
    return owners


def _keeps_statistics(module: nn.Module) -> bool:
    return isinstance(module, STATISTICS) and module.running_mean is not None
