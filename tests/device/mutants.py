"""Faults that only a GPU would show, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sublevel.data.batches import EpochPlan
from sublevel.train.graph import Graphed
from sublevel.train.weights import Weights

parts, stepped, replayed = Weights._parts, Weights.step, Graphed.step


def mask_on_the_host(self: Any, mask: Any) -> Any:
    return [part.cpu() for part in parts(self, mask)]


def plan_on_the_host(self: Any, device: Any) -> Any:
    return self


def wait_in_every_step(self: Any, x: Any, y: Any, lr: float) -> Any:
    mean = replayed(self, x, y, lr)
    float(mean)
    return mean


def rate_in_the_graph(self: Any, x: Any, y: Any, lr: float) -> Any:
    """The first rate is what every replay takes."""
    self.first = getattr(self, "first", lr)
    return replayed(self, x, y, self.first)


def batch_not_copied(self: Any, x: Any, y: Any, lr: float) -> Any:
    """Every replay sees the batch of the capture."""
    at = self._captured.get(tuple(x.shape))
    return replayed(self, at.x if at else x, at.y if at else y, lr)


MUTANTS: dict[str, tuple[type, str, Any]] = {
    "mask-on-the-host": (Weights, "_parts", mask_on_the_host),
    "plan-on-the-host": (EpochPlan, "to", plan_on_the_host),
    "wait-in-every-step": (Graphed, "step", wait_in_every_step),
    "rate-in-the-graph": (Graphed, "step", rate_in_the_graph),
    "batch-not-copied": (Graphed, "step", batch_not_copied),
}


@contextmanager
def made(name: str) -> Iterator[None]:
    """The package with that fault; with none where the name is ``none``."""
    if name == "none":
        yield
        return
    owner, attribute, fault = MUTANTS[name]
    before = getattr(owner, attribute)
    setattr(owner, attribute, fault)
    try:
        yield
    finally:
        setattr(owner, attribute, before)
