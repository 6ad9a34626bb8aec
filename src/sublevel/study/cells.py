"""Cells: what a kernel is given and gives back, and the key of its result.

The inputs of a cell are JSON in which every object is a digest, so its key says exactly what it was computed from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from sublevel._types import Bool, Tensor
from sublevel.engine.store import Store, canonical, digest
from sublevel.errors import unknown
from sublevel.problem import Problem
from sublevel.space import Point
from sublevel.train.engines import ENGINE
from sublevel.train.resume import Keeper

Json = Any

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]
"""(table, row) pairs."""

BESIDE = "levels (more columns)"
"""The table of what a cell adds to the row of a solution that another cell makes."""


@dataclass(frozen=True)
class Output:
    """What a kernel returns: JSON ``values`` and named ``objects`` of tensors."""

    values: dict[str, Json] = field(default_factory=dict)
    objects: dict[str, dict[str, Tensor]] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """Where a kernel runs: its problem, the store it loads from, whom it tells about its progress, and what keeps a
    long training for the case that it is cut short.
    """

    problem: Problem
    store: Store
    progress: Callable[[dict[str, Json]], None] = lambda row: None
    keeper: Keeper | None = None

    def point(self, name: str, mask: str | None = None) -> Point:
        """A stored point on the problem's device, projected if a mask is given."""
        point = stored_point(self.store, name).to(self.problem.device)
        chosen = self.mask(mask)
        return point if chosen is None else point.project(chosen)

    def mask(self, name: str | None) -> Bool[Tensor, "D"] | None:
        """A stored mask on the problem's device; None is the dense one."""
        return None if name is None else stored_mask(self.store, name).to(self.problem.device)


Kernel = Callable[..., Output]
KERNELS: dict[str, tuple[Kernel, int]] = {}
TRAININGS: set[str] = set()
"""Kinds of cells that train: those that several processes may carry out together."""


def kernel(kind: str, version: int, *, trains: bool = False) -> Callable[[Kernel], Kernel]:
    """Register the kernel of a kind of cell, with the version that is part of its key, and whether it ``trains``."""

    def register(function: Kernel) -> Kernel:
        KERNELS[kind] = (function, version)
        if trains:
            TRAININGS.add(kind)
        return function

    return register


Extract = Callable[[Mapping[str, Any], Row, Row], Rows]
EXTRACT: dict[str, Extract] = {}


def rows(kind: str) -> Callable[[Extract], Extract]:
    """Register how an entry becomes rows: ``(resolved study, labels, entry) -> rows``."""

    def register(extract: Extract) -> Extract:
        EXTRACT[kind] = extract
        return extract

    return register


Cost = Callable[[Mapping[str, Any], Mapping[str, int]], float]
COSTS: dict[str, Cost] = {}


def cost(kind: str) -> Callable[[Cost], Cost]:
    """Register what a cell costs: ``(inputs, sizes of the splits) ->`` forward and backward passes of one example.

    A kind without a registered cost takes no time to speak of.
    """

    def register(weigh: Cost) -> Cost:
        COSTS[kind] = weigh
        return weigh

    return register


def register() -> None:
    """Make every kind of cell known."""
    from sublevel.study import given, gradual, kernels, learned, measurements, starts  # noqa: F401


def numerics(device: str, dtype: str, threads: int, processes: int = 1) -> dict[str, Json]:
    """The numerics class: bits are promised within one of these, on one kind of processor.

    ``processes`` train together; sums over several are rounded otherwise.
    """
    together = {"processes": processes} if processes > 1 else {}
    return together | {
        "device": torch.device(device).type,
        "dtype": dtype,
        "tf32": False,
        "torch": ".".join(torch.__version__.split(".")[:2]),
        "engine": ENGINE,
        "threads": threads,
    }


def key(kind: str, inputs: Json, problem: Json, numerics: Json) -> str:
    """A cell's key: SHA-256 of everything its result depends on."""
    register()
    if kind not in KERNELS:
        raise unknown("kind of cell", kind, KERNELS)
    document = {
        "kind": kind,
        "version": KERNELS[kind][1],
        "inputs": inputs,
        "problem": problem,
        "numerics": numerics,
    }
    return digest(canonical(document))


def point_tensors(point: Point) -> dict[str, Tensor]:
    """A point as named tensors."""
    return {"theta": point.theta, **{f"buffer:{name}": b for name, b in point.buffers.items()}}


def mask_tensors(mask: Bool[Tensor, "D"]) -> dict[str, Tensor]:
    """A mask as packed bits, first coordinate in the highest bit."""
    return {"bits": torch.from_numpy(np.packbits(mask.cpu().numpy())), "dim": torch.tensor(len(mask))}


def stored_point(store: Store, name: str) -> Point:
    """The way back from `point_tensors`, on the CPU."""
    return point_of(store.get_tensors(name))


def point_of(tensors: Mapping[str, Tensor]) -> Point:
    """A point from its named tensors."""
    return Point(tensors["theta"], {k.removeprefix("buffer:"): t for k, t in tensors.items() if k != "theta"})


def stored_mask(store: Store, name: str) -> Bool[Tensor, "D"]:
    """The way back from `mask_tensors`, on the CPU."""
    tensors = store.get_tensors(name)
    bits = np.unpackbits(tensors["bits"].numpy(), count=int(tensors["dim"]))
    return torch.from_numpy(bits.astype(bool))
