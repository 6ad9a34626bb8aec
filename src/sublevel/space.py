"""A network as a point in R^D.

A `Space` reads a module once: the order of its trainable parameters in the flat vector theta, its prunable coordinates,
its layers and filters, and the buffers that belong to a theta without being coordinates (BatchNorm's running
statistics). Rewinding is then copying a vector, pruning is multiplying by a mask, a path is a lerp, and no other module
needs to know about layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

import torch
from torch import nn

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ModelError
from sublevel.inputs import Inputs, as_dtype, call
from sublevel.layers import Choice, Layer, Prunable, layers_of
from sublevel.probes import Probe

__all__ = ["Choice", "Layer", "Point", "Prunable", "Space", "as_point", "check_mask", "lerp", "project"]

STATISTICS = nn.modules.batchnorm._BatchNorm


@dataclass(frozen=True, eq=False)
class Point:
    """A vector theta with the buffers that belong to it.

    ``theta`` has shape [D]; ``buffers`` maps names of buffers to tensors, and names of frozen parameters for which a
    checkpoint has another value than the network. Points are never written in place.
    """

    theta: Float[Tensor, "D"]
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    def project(self, mask: Bool[Tensor, "D"]) -> Point:
        """``m * theta`` with the same buffers: the pruning step, under stale statistics."""
        return replace(self, theta=project(self.theta, mask))

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Point:
        """A copy on ``device``; floating-point entries become ``dtype``."""
        buffers = {name: as_dtype(b.to(device=device), dtype) for name, b in self.buffers.items()}
        return Point(self.theta.to(device=device, dtype=dtype), buffers)


def as_point(at: object) -> Point:
    """A `Point` from a point or a plain vector, for fields that have no buffers; TypeError for anything else."""
    if isinstance(at, Point):
        return at
    if not isinstance(at, Tensor):
        raise TypeError(
            f"a point is a Point or a vector [D], got {type(at).__name__}: problem.init, ticket.end, result.point and "
            "space.point(module) give points, and a training has its own in .end"
        )
    return Point(at)


def project(theta: Float[Tensor, "D"], mask: Bool[Tensor, "D"]) -> Float[Tensor, "D"]:
    """``m * theta``, exactly 0 (not -0 or nan) outside the mask.

    >>> project(torch.tensor([1.0, -2.0]), torch.tensor([True, False]))
    tensor([1., 0.])
    """
    return torch.where(mask, theta, theta.new_zeros(()))


def lerp(a: Point, b: Point, alpha: float) -> Point:
    """``(1 - alpha) a + alpha b`` in theta and in every floating-point buffer; other buffers are a's.

    ``alpha`` 0 and 1 return the end points themselves. Buffers that only one end has are omitted: a field that reads
    them refuses the point.
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
class Space:
    """R^D of one network: its coordinates in ``named_parameters()`` order, and its buffers.

    A tied parameter is one set of coordinates, under its first name; parameters that do not require a gradient are
    constants of the network, not coordinates.
    """

    layers: tuple[Layer, ...]
    buffers: tuple[str, ...]
    statistics: tuple[str, ...]
    """Names of the BatchNorm modules that keep running statistics."""
    probe: Probe | None = field(default=None, compare=False, repr=False)
    """The network on a few inputs, if it is known."""

    @classmethod
    def of(cls, module: nn.Module, prunable: Choice | None = None) -> Space:
        """Read the space of ``module``.

        ``prunable(name, owner, parameter) -> bool`` chooses the prunable weights. It may also be a list of names of
        parameters with shell wildcards (``"blocks.*.weight"``), of module classes, for their weights (``"Embedding"``,
        ``"LSTM"``), and of the words ``"default"`` (the weights of every convolution and linear layer, also the default
        here) and ``"matrices"`` (these, recurrent weights, attention's in_proj and GPT-2's Conv1D).

        Raises ModelError for a network without trainable or prunable weights, a complex parameter, or a name without a
        match.
        """
        layers = layers_of(module, prunable)
        if not layers:
            raise ModelError(f"{type(module).__name__} has no trainable parameter")
        if not any(layer.prunable for layer in layers):
            names = ", ".join(layer.name for layer in layers[:5])
            raise ModelError(
                f"{type(module).__name__} has no prunable weight among its parameters ({names}, ...); "
                "prunable='matrices' includes recurrent and attention weights, a list names parameters"
            )
        norms = ((name, m) for name, m in module.named_modules() if isinstance(m, STATISTICS))
        normalised = [name for name, m in norms if m.running_mean is not None]
        buffers = tuple(name for name, _ in module.named_buffers())
        return cls(tuple(layers), buffers, tuple(normalised), Probe(module))

    @cached_property
    def dim(self) -> int:
        """D, the number of trainable parameters."""
        return sum(layer.size for layer in self.layers)

    @cached_property
    def prunable(self) -> Bool[Tensor, "D"]:
        """1 at prunable coordinates (CPU)."""
        return torch.cat([torch.full((layer.size,), layer.prunable) for layer in self.layers])

    @property
    def prunable_layers(self) -> Iterator[Layer]:
        """The layers with prunable weights."""
        return (layer for layer in self.layers if layer.prunable)

    @property
    def kinds(self) -> dict[str, tuple[int, int]]:
        """For every kind of module, the numbers of its prunable and of all its trainable parameters."""
        found: dict[str, tuple[int, int]] = {}
        for layer in self.layers:
            prunable, every = found.get(layer.kind, (0, 0))
            found[layer.kind] = prunable + layer.size * layer.prunable, every + layer.size
        return found

    def describe_prunable(self) -> str:
        """Say how many trainable parameters are prunable, by kind of module.

        >>> Space.of(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))).describe_prunable()
        '6 of 15 trainable parameters are prunable (Linear 6 of 9, BatchNorm1d 0 of 6)'
        """
        kinds = ", ".join(f"{kind or 'others'} {some} of {every}" for kind, (some, every) in self.kinds.items())
        return f"{int(self.prunable.sum())} of {self.dim} trainable parameters are prunable ({kinds})"

    def indicator(self, name: str) -> Bool[Tensor, "D"]:
        """1 on the coordinates of the layer of that name (CPU)."""
        out = torch.zeros(self.dim, dtype=torch.bool)
        out[next(layer for layer in self.layers if layer.name == name).coordinates] = True
        return out

    def block(self, names: str | Sequence[str]) -> Bool[Tensor, "D"]:
        """1 on the coordinates of the layers of these names, with shell wildcards (CPU).

        Raises ModelError for a name without a match.

        >>> space = Space.of(nn.Sequential(nn.Linear(2, 1), nn.Linear(1, 1)))
        >>> space.block("0.*").tolist()
        [True, True, True, False, False]
        """
        chosen = [layer.name for layer in self._within(names)]
        return torch.cat([torch.full((layer.size,), layer.name in chosen) for layer in self.layers])

    def _within(self, names: str | Sequence[str]) -> list[Layer]:
        """The layers of these names."""
        patterns = [names] if isinstance(names, str) else list(names)
        for pattern in patterns:
            if not any(fnmatchcase(layer.name, pattern) for layer in self.layers):
                known = ", ".join(layer.name for layer in self.layers[:8]) + (", ..." if len(self.layers) > 8 else "")
                raise ModelError(f"block {pattern!r} matches no trainable parameter; they are {known}")
        return [layer for layer in self.layers if any(fnmatchcase(layer.name, p) for p in patterns)]

    def restricted(self, names: str | Sequence[str]) -> Space:
        """The space of these layers alone; all other parameters are constants (see `within`)."""
        start, found = 0, []
        for layer in self._within(names):
            found.append(replace(layer, start=start))
            start += layer.size
        return replace(self, layers=tuple(found), probe=None)

    def within(self, point: Point, whole: Space) -> Point:
        """A point of the ``whole`` space as one of this part of it: other parameters are among its buffers."""
        views, own = whole.views(point.theta), {layer.name for layer in self.layers}
        theta = torch.cat([views[layer.name].reshape(-1) for layer in self.layers])
        return Point(theta, {**point.buffers, **{name: v for name, v in views.items() if name not in own}})

    def full_mask(self) -> Bool[Tensor, "D"]:
        """The mask of the dense network (CPU)."""
        return torch.ones(self.dim, dtype=torch.bool)

    def remaining(self, mask: Bool[Tensor, "D"]) -> int:
        """The number of prunable weights in the mask."""
        return int((mask.cpu() & self.prunable).sum())

    def density(self, mask: Bool[Tensor, "D"]) -> float:
        """The share of the prunable weights in the mask."""
        return self.remaining(mask) / int(self.prunable.sum())

    def point(self, module: nn.Module | object) -> Point:
        """The point of ``module``'s weights, as a copy; weights under ``torch.nn.utils.prune`` are masked.

        Raises ModelError unless ``module`` is a network with these parameters.
        """
        if not isinstance(module, nn.Module):
            raise ModelError(
                f"a point is read from a network, got {type(module).__name__}; Problem.point reads state dicts and "
                "files"
            )
        parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
        pruned = [n.removesuffix("_mask") for n in buffers if n.endswith("_mask") and n not in self.buffers]
        for name in pruned:
            if f"{name}_orig" in parameters:
                parameters[name] = nn.Parameter(parameters[f"{name}_orig"].detach() * buffers.pop(f"{name}_mask"))
        for layer in self.layers:
            if layer.name not in parameters:
                raise ModelError(f"{type(module).__name__} has no parameter {layer.name!r}, which the space has")
        theta = torch.cat([parameters[layer.name].detach().reshape(-1) for layer in self.layers])
        return Point(theta, {name: b.detach().clone() for name, b in buffers.items()})

    def views(self, theta: Float[Tensor, "D"]) -> dict[str, Tensor]:
        """The parameters as views of theta, by one split (so that the gradient of theta arrives flat)."""
        parts = theta.split([layer.size for layer in self.layers])
        return {layer.name: part.view(layer.shape) for layer, part in zip(self.layers, parts, strict=True)}

    def call(self, module: nn.Module, theta: Float[Tensor, "D"], buffers: Mapping[str, Tensor], x: Inputs) -> Tensor:
        """The network's output at theta; a module in train mode writes ``buffers`` in place."""
        return call(module, {**self.views(theta), **buffers}, x)

    def outputs(self, points: Sequence[Point]) -> list[Tensor] | None:
        """The network's outputs at points on the inputs of its `Probe`; None if no network or inputs are known."""
        return self.probe and self.probe([{**self.views(p.theta), **p.buffers} for p in points])

    def write(self, module: nn.Module, point: Point) -> None:
        """Copy the point into ``module``."""
        with torch.no_grad():
            parameters, buffers = dict(module.named_parameters()), dict(module.named_buffers())
            for name, view in self.views(point.theta).items():
                parameters[name].copy_(view)
            for name, buffer in point.buffers.items():
                (buffers[name] if name in buffers else parameters[name]).copy_(buffer)

    def filters(self, mask: Bool[Tensor, "D"]) -> Iterator[tuple[Layer, Bool[Tensor, "units"]]]:
        """For every prunable layer, the filters (output channels, units) with a weight left."""
        for layer in self.prunable_layers:
            yield layer, layer.by_filter(mask[layer.coordinates]).any(dim=1)

    def dead(self, mask: Bool[Tensor, "D"]) -> Bool[Tensor, "D"]:
        """Coordinates of filters with no weight left.

        BatchNorm after such a filter has a variance near 0 and a gain near 1/sqrt(eps) = 316. One dead filter can raise
        the largest eigenvalue in R^D by four orders of magnitude, so curvature may omit these coordinates.
        """
        out = torch.zeros_like(mask)
        for layer, alive in self.filters(mask):
            out[layer.coordinates] = layer.from_filters((~alive)[:, None].expand(-1, layer.fan_in))
        return out


def check_mask(space: Space, mask: Bool[Tensor, "D"], parent: Bool[Tensor, "D"] | None, count: int) -> None:
    """Check the invariants of a new mask: exact count, nested in its parent, no unprunable coordinate removed.

    Raises ModelError with the broken invariant.
    """
    left = space.remaining(mask)
    if left != count:
        raise ModelError(f"mask leaves {left} prunable weights where {count} were asked for")
    if not bool(mask.cpu()[~space.prunable].all()):
        raise ModelError("mask removes a coordinate that is not prunable")
    if parent is not None and bool((mask & ~parent).any()):
        raise ModelError("mask is not nested: it restores a weight that its parent had removed")
