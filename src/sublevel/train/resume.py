"""Resume an interrupted training from its last snapshot, to the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from sublevel._types import Tensor
from sublevel.codec import point_of, point_tensors, under, within
from sublevel.space import Point

State = dict[str, Tensor]
"""All tensors that a training step changes, by name."""


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The state of a training between two steps: tensors, step, history and stored points.

    ``total`` is the sum of the losses of the ``seen`` examples in an unfinished epoch.
    """

    state: State
    step: int
    total: float = 0.0
    seen: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    saved: Mapping[int, Point] = field(default_factory=dict)


@runtime_checkable
class Checkpointer(Protocol):
    """Saves snapshots, so that a training can resume after its process ends."""

    def due(self) -> bool:
        """Whether to save a snapshot now; called after every step."""
        ...

    def save(self, snapshot: Snapshot) -> None:
        """Save the snapshot; replace the previous one."""
        ...

    def load(self) -> Snapshot | None:
        """The last snapshot; None if there is none or it is damaged."""
        ...


def tensors(snapshot: Snapshot) -> State:
    """The tensors of a snapshot by name, to write a file; `points` and `state` read them back."""
    found = under("state", snapshot.state)
    for step, point in snapshot.saved.items():
        found |= under(f"saved:{step}", point_tensors(point))
    return {name: t.detach().contiguous() for name, t in found.items()}


def points(found: Mapping[str, Tensor]) -> dict[int, Point]:
    """The points among named tensors, by step."""
    steps = [name.split(":")[1] for name in found if name.startswith("saved:") and name.endswith(":theta")]
    return {int(step): point_of(within(f"saved:{step}", found)) for step in steps}


def state(found: Mapping[str, Tensor]) -> State:
    """The training's state among named tensors."""
    return within("state", found)


def overwrite(at: dict[str, Tensor], found: Mapping[str, Tensor]) -> None:
    """Copy the found values into the tensors of ``at``, in place."""
    for name, tensor in at.items():
        tensor.copy_(found[name])
