"""A training that was cut short goes on from where it was last kept, to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from sublevel._types import Tensor
from sublevel.codec import point_of, point_tensors, under, within
from sublevel.space import Point

State = dict[str, Tensor]
"""All that a run moves, by name."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """Where a run stands between two steps: what it moves, how far it is, and what it has told and kept so far.

    ``total`` is the sum of the losses of the ``seen`` examples of an epoch that is not over.
    """

    state: State
    step: int
    total: float = 0.0
    seen: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    saved: Mapping[int, Point] = field(default_factory=dict)


@runtime_checkable
class Checkpointer(Protocol):
    """What keeps a standing for the case that the process ends before the run does."""

    def due(self) -> bool:
        """Whether it is time to keep one. Asked after every step."""
        ...

    def save(self, snapshot: Snapshot) -> None:
        """Keep it in place of the one before."""
        ...

    def load(self) -> Snapshot | None:
        """The last one; None where there is none that is whole."""
        ...


def tensors(snapshot: Snapshot) -> State:
    """A standing's tensors by name, the way to a file; see `points` and `state` for the way back."""
    found = under("state", snapshot.state)
    for step, point in snapshot.saved.items():
        found |= under(f"saved:{step}", point_tensors(point))
    return {name: t.detach().contiguous() for name, t in found.items()}


def points(found: Mapping[str, Tensor]) -> dict[int, Point]:
    """The points among named tensors, by step."""
    steps = [name.split(":")[1] for name in found if name.startswith("saved:") and name.endswith(":theta")]
    return {int(step): point_of(within(f"saved:{step}", found)) for step in steps}


def state(found: Mapping[str, Tensor]) -> State:
    """What the run moves, among named tensors."""
    return within("state", found)


def overwrite(at: dict[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Write the found values over those in ``at``, where they stand."""
    for name, tensor in at.items():
        tensor.copy_(found[name])
