"""BatchNorm's statistics: the policies, the buffers of a point, and recomputed statistics."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from sublevel._types import Tensor
from sublevel.data.batches import spans
from sublevel.data.streamed import Rows
from sublevel.errors import ModelError
from sublevel.inputs import Inputs
from sublevel.risk.sums import Prepared
from sublevel.space import STATISTICS, Point, Space

POLICIES = ("stored", "batch", "recomputed")
LEAST = 2
"""Fewest examples of a batch with statistics: a single one has no variance."""
SINGLE = "more than 1 value per channel"
"""PyTorch's words for a batch without a variance."""


def policy_of(asked: str, space: Space, module: nn.Module) -> str:
    """The policy of a network: the one asked for, ``batch`` without running statistics, ``none`` without BatchNorm."""
    if space.statistics:
        return asked
    return "batch" if any(isinstance(m, STATISTICS) for m in module.modules()) else "none"


def least_of(policy: str) -> int:
    """The fewest examples of a batch under a policy."""
    return LEAST if policy == "batch" else 1


def check_batch_size(policy: str, batch_size: int) -> None:
    """Raise ValueError for batches of one example if BatchNorm takes statistics of batches."""
    if batch_size < LEAST and policy in ("batch", "recomputed"):
        raise ValueError(
            f"BatchNorm under the policy {policy!r} takes statistics of batches: batch_size must be at least "
            f"{LEAST}, got {batch_size}"
        )


class Completed:
    """Completes points with the buffers of a network.

    Buffers that may differ between points belong to the point: floating-point buffers in the network's state dict, such
    as BatchNorm's running statistics. All others (counters, index masks, buffers outside the state dict) are constants,
    and a point without them takes the network's own.
    """

    def __init__(self, space: Space, module: nn.Module) -> None:
        self.module, self.names = module, frozenset(space.buffers)
        kept = module.state_dict().keys()
        self._own = {n for n, b in module.named_buffers() if b.is_floating_point() and n in kept}
        self._statistics = {f"{m}.{kind}" for m in space.statistics for kind in ("running_mean", "running_var")}

    def __call__(self, point: Point, policy: str) -> Point:
        """The point with all buffers; raises ModelError if it lacks one that the policy reads."""
        missing = self.names - point.buffers.keys()
        if not missing:
            return point
        read = self._own if policy == "stored" else self._own - self._statistics
        if needed := sorted(missing & read):
            raise MissingBuffers(needed, policy, self._statistics.intersection(needed))
        own = {name: b.detach().clone() for name, b in self.module.named_buffers() if name in missing}
        return Point(point.theta, {**own, **point.buffers})


class MissingBuffers(ModelError, ValueError):
    """A vector without the buffers that the loss depends on."""

    def __init__(self, names: Sequence[str], policy: str, statistics: Collection[str]) -> None:
        some = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
        other = ", or take a field with policy='recomputed', which recomputes the statistics" if statistics else ""
        super().__init__(
            f"the loss of this network depends on buffers that the point does not have ({some}; policy {policy!r}): "
            "pass a Point, as problem.init, ticket.end, result.point and space.point(module) give it, or "
            f"Point(theta, point.buffers) in place of a plain vector{other}"
        )


class Calibration:
    """The examples from which statistics are recomputed, and a cache of recomputed statistics.

    Fields share one, so that the training and the test loss at a point cost one pass over these examples and not two.
    The cache holds the ``memory`` most recent points, by the content of theta. ``prepare`` and ``batch_size`` are as in
    `EmpiricalRisk`.
    """

    def __init__(
        self,
        space: Space,
        module: nn.Module,
        x: Rows,
        prepare: Callable[[Tensor], Inputs],
        batch_size: int,
        memory: int = 512,
    ) -> None:
        self.space, self.module, self.x, self.prepare, self.batch_size = space, module, x, prepare, batch_size
        self.memory = memory
        self._names = {f"{m}.{kind}" for m in space.statistics for kind in ("running_mean", "running_var")}
        self._known: OrderedDict[bytes, dict[str, Tensor]] = OrderedDict()

    def at(self, points: Sequence[Point]) -> list[Point]:
        """The points with recomputed statistics; one pass serves all points that are not in the cache."""
        keys = [self._key(point) for point in points]
        unknown = {key: point for key, point in zip(keys, points, strict=True) if key not in self._known}
        fresh = dict(zip(unknown, self._statistics(list(unknown.values())), strict=True))
        self._known.update(fresh)
        for key in keys:
            self._known.move_to_end(key)
        found = [self._known[key] for key in keys]
        while len(self._known) > self.memory:
            self._known.popitem(last=False)
        return [Point(p.theta, {**p.buffers, **statistics}) for p, statistics in zip(points, found, strict=True)]

    def _statistics(self, points: Sequence[Point]) -> list[dict[str, Tensor]]:
        """Each batch's mean and unbiased variance, averaged by batch size."""
        walks = [_Walk(point, self._names) for point in points]
        with torch.no_grad(), fixed_mode(self.module, statistics=True, momentum=1.0):
            for span in spans(len(self.x), self.batch_size, LEAST) if walks else ():
                rows = slice(*span)
                inputs = Prepared(lambda rows=rows: self.prepare(self.x[rows]))
                for walk in walks:
                    self.space.call(self.module, walk.theta, walk.buffers, inputs())
                    walk.add(rows.stop - rows.start)
        return [walk.averages() for walk in walks]

    def _key(self, point: Point) -> bytes:
        """A digest of everything that the statistics depend on."""
        rest = [t for t in (self.x, *self.module.parameters()) if isinstance(t, Tensor)]
        digest = hashlib.sha256(str([(t.data_ptr(), t._version) for t in rest]).encode())
        for name, tensor in (("", point.theta), *sorted(point.buffers.items())):
            if name not in self._names:
                digest.update(f"{name} {tensor.dtype}\n".encode())
                digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return digest.digest()


class _Walk:
    """One point during the pass: the buffers that the network writes, and their sums."""

    def __init__(self, point: Point, names: set[str]) -> None:
        self.theta = point.theta
        self.buffers = {n: torch.zeros_like(b) if n in names else b.clone() for n, b in point.buffers.items()}
        self._sums = {n: torch.zeros_like(b, dtype=torch.float64) for n, b in self.buffers.items() if n in names}
        self._seen = 0

    def add(self, size: int) -> None:
        """Add the statistics of a batch."""
        self._seen += size
        for name, total in self._sums.items():
            total += self.buffers[name].double() * size

    def averages(self) -> dict[str, Tensor]:
        """The averages over the batches, by name."""
        return {name: (total / self._seen).to(self.buffers[name].dtype) for name, total in self._sums.items()}


@contextmanager
def fixed_mode(module: nn.Module, *, statistics: bool, momentum: float | None = None) -> Iterator[None]:
    """Evaluation mode inside the block, except BatchNorm if ``statistics``; modes and momenta are restored."""
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
    except ValueError as error:
        if SINGLE not in str(error):
            raise
        raise ModelError(
            f"BatchNorm cannot take the variance of one example ({error}): give the field two examples or more, "
            "or policy='stored'"
        ) from error
    finally:
        for m, training in modes:
            m.training = training
        for m, value in zip(normalised, momenta, strict=True):
            m.momentum = value
