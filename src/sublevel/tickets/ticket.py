"""A ticket: a mask, the point to which its survivors were rewound, and their end point."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import prune

from sublevel._types import Bool, Tensor
from sublevel.checkpoints import Source
from sublevel.checkpoints import read as read_checkpoint
from sublevel.display import Shown
from sublevel.errors import DataError, ModelError
from sublevel.space import Choice, Point, Space
from sublevel.tickets import file
from sublevel.tickets.architecture import check_fits, owners


@dataclass(frozen=True, eq=False, repr=False)
class Ticket(Shown):
    """A self-contained sparse solution, from a study or a file.

    ``mask`` [D] is 1 where a weight remains. ``points`` holds ``start``, the unmasked rewind point, and ``end`` if
    known. ``space`` maps coordinates to weights. ``constants`` are the parameters that were not trained, by name;
    ``about`` is the recipe and the provenance, as JSON. ``network`` builds a module if the ticket comes from a problem.

    Raises ModelError if mask, points and space do not fit together.

    >>> net = nn.Linear(2, 1)
    >>> space = Space.of(net)
    >>> mask = torch.tensor([True, False, True])
    >>> ticket = Ticket(mask, {"start": Point(torch.tensor([1.0, 2.0, 3.0]))}, space)
    >>> ticket.apply(net).weight.tolist(), ticket.density
    ([[1.0, 0.0]], 0.5)
    """

    mask: Bool[Tensor, "D"]
    points: Mapping[str, Point]
    space: Space
    constants: Mapping[str, Tensor] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    network: Callable[[], nn.Module] | None = None

    def __post_init__(self) -> None:
        if "start" not in self.points:
            raise ModelError(f"a ticket needs the point 'start', got {', '.join(self.points) or 'none'}")
        for name, vector in {"mask": self.mask, **{at: point.theta for at, point in self.points.items()}}.items():
            if tuple(vector.shape) != (self.space.dim,):
                raise ModelError(f"the {name} has shape {list(vector.shape)}, the network's is [{self.space.dim}]")
        for at, point in self.points.items():
            if set(point.buffers) != set(self.space.buffers) or _types(point) != _types(self.start):
                raise ModelError(f"the point {at!r} does not have the buffers of the network, or not the start's types")
        if self.mask.dtype != torch.bool:
            raise ModelError(f"a mask is of type bool, got {str(self.mask.dtype).removeprefix('torch.')}")
        for layer in self.space.layers:
            if not layer.prunable and not bool(self.mask[layer.coordinates].all()):
                raise ModelError(f"the mask removes weights of {layer.name!r}, which is not prunable")

    @classmethod
    def of_checkpoints(
        cls,
        network: nn.Module,
        start: Source,
        end: Source | None = None,
        mask: Source | None = None,
        *,
        prunable: Choice | None = None,
    ) -> Ticket:
        """A ticket from checkpoints made elsewhere: files, state dicts or networks of the architecture ``network``.

        ``mask`` is a file or dict of 0/1 tensors by weight, or ``"zeros"``. Without one, the ``torch.nn.utils.prune``
        mask of the end, or of the start, is used. Raises DataError as `sublevel.checkpoints.read` does, and if start
        and end differ in frozen parameters.
        """
        space = Space.of(network, prunable)
        first = read_checkpoint(start, network, space, mask if end is None else None)
        last = first if end is None else read_checkpoint(end, network, space, mask)
        for name, tensor in last.constants.items():
            if not torch.equal(tensor, first.constants[name]):
                raise DataError(f"the frozen parameter {name!r} differs between start and end")
        points = {
            at: Point(c.point.theta, {name: c.point.buffers[name] for name in space.buffers}).to("cpu")
            for at, c in {"start": first, **({} if end is None else {"end": last})}.items()
        }
        whole = space.full_mask() if last.mask is None else last.mask
        return cls(whole, points, space, last.constants, network=lambda: copy.deepcopy(network))

    @property
    def start(self) -> Point:
        """The rewind point of the survivors, before masking."""
        return self.points["start"]

    @property
    def end(self) -> Point:
        """The end point. Raises ModelError if the ticket does not have it."""
        return self._stored("end")

    @property
    def density(self) -> float:
        """The share of the prunable weights that remain."""
        return self.space.density(self.mask)

    def point(self, at: str | None = None) -> Point:
        """``m * theta`` at ``start`` or ``end``; None is the end if the ticket has it, otherwise the start."""
        return self._stored(at or ("end" if "end" in self.points else "start")).project(self.mask)

    def module(self, net: nn.Module | None = None, at: str | None = None) -> nn.Module:
        """A plain module with the masked weights of ``point(at)``, in evaluation mode; ``net`` itself does not change.

        Raises ModelError if the ticket comes from a file and ``net`` is absent, or if ``net`` does not fit.
        """
        if net is not None:
            self.check_fits(net)
            return self.apply(copy.deepcopy(net), at).eval()
        if self.network is None:
            raise ModelError("a ticket from a file holds weights and no code: give the network, as module(net)")
        return self.apply(self.network(), at).eval()

    def apply(self, module: nn.Module, at: str | None = None) -> nn.Module:
        """Write the masked weights and the buffers into ``module``, in its own precision, and return it.

        Raises ModelError naming the first parameter or buffer that differs; in that case nothing is written.
        """
        point = self.point(at)
        self.check_fits(module)
        self.space.write(module, point)
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            for name, value in self.constants.items():
                parameters[name].copy_(value)
        return module

    def to_torch_prune(self, module: nn.Module, at: str | None = None) -> nn.Module:
        """`apply`, and put every prunable weight under ``torch.nn.utils.prune``, so that its mask persists.

        The module then holds ``NAME_orig`` and ``NAME_mask`` (``CustomFromMask``); a tied weight is masked in every
        owner.
        """
        self.apply(module, at)
        masks = self.masks()
        for name, owner, local in owners(module, masks):
            prune.custom_from_mask(owner, local, masks[name].to(getattr(owner, local).device))
        return module

    def masks(self) -> dict[str, Tensor]:
        """The mask of every prunable weight by its name, in the weight's shape."""
        layers = self.space.prunable_layers
        return {layer.name: self.mask[layer.coordinates].view(layer.shape).cpu() for layer in layers}

    def save(self, path: str | Path, end: bool = False) -> Path:
        """Write the ticket as one safetensors file, optionally with the end weights (see `sublevel.tickets`).

        One ticket gives the same bytes everywhere. Raises StoreError if the file cannot be written; an existing file
        then stays unchanged.
        """
        names = ("start", "end") if end else ("start",)
        points = {name: self._stored(name) for name in names}
        contents = file.Contents(self.space, self.mask, points, self.constants, self.about)
        return file.write(Path(path), file.serialised(contents))

    @classmethod
    def load(cls, path: str | Path) -> Ticket:
        """Read a ticket, running no code; every tensor is checked against its SHA-256.

        Raises DataError in one sentence: no such file, not a ticket, truncated, damaged (with the tensor's name), or a
        newer format.
        """
        c = file.read(Path(path))
        try:
            return cls(c.mask, c.points, c.space, c.constants, c.about)
        except ModelError as error:
            raise DataError(f"{path}: the parts of the ticket do not fit together: {error}") from None

    def check_fits(self, module: nn.Module) -> None:
        """ModelError, naming the first that differs, where a network has other parameters or buffers."""
        buffers = {name: self.start.buffers[name] for name in self.space.buffers}
        check_fits(self.space, buffers, self.constants, module)

    def _stored(self, at: str) -> Point:
        if at not in self.points:
            raise ModelError(
                f"the ticket does not hold {at!r}; it holds {', '.join(self.points)}"
                + (" (a file has the end weights if it was saved with end=True)" if at == "end" else "")
            )
        return self.points[at]

    def _facts(self) -> dict[str, object]:
        prunable = self.space.prunable
        whose = [f"{name} {self.about[name]}" for name in ("branch", "level", "seed") if name in self.about]
        return {
            "": ", ".join(whose),
            "weights:": f"{int(self.mask[prunable].sum()):,} of {int(prunable.sum()):,} left ({self.density:.3%})",
            "points:": list(self.points),
            "network:": "" if self.network else "not known: give it, as module(net)",
        }


def _types(point: Point) -> dict[str, tuple[object, ...]]:
    return {name: (t.shape, t.dtype) for name, t in {"theta": point.theta, **point.buffers}.items()}
