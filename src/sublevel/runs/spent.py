"""What cells have cost on this machine: kept beside the store, for the plan, the order of cells and the time left.

No number of a result depends on it, and a file that is lost or damaged costs nothing but a guess.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sublevel.runs.machine import processor
from sublevel.study.graph import Node
from sublevel.study.schedule import Listener, Outcome
from sublevel.study.store import canonical, digest

NAME = ".costs.json"

FADING = 0.5
"""What earlier runs count for beside a new one: a machine changes."""

Weigh = Callable[[Node], float]


class Spent(Listener):
    """Seconds by kind of cell, and the passes of one example (`sublevel.study.costs.units`) that they were spent on.

    ``of`` is what a cell's time depends on besides its kind: the problem, the numerics class. The processor is added.
    """

    def __init__(self, folder: Path, of: Mapping[str, Any], units: Weigh) -> None:
        self._path, self._units = folder / NAME, units
        self._of = digest(canonical({"processor": processor(), **of}))
        self._new: dict[str, list[float]] = {}

    @property
    def rate(self) -> float | None:
        """Training examples per second of one job; None where no training was seen."""
        seconds, work = self._before().get("train", (0.0, 0.0))
        return work / seconds if seconds > 0 < work else None

    def weigh(self) -> Weigh:
        """The cost of a cell in passes of training, corrected by what its kind has cost; as it stands where unknown."""
        known, rate = self._before(), self.rate
        if rate is None:
            return self._units
        factors = {kind: rate * seconds / work for kind, (seconds, work) in known.items() if work > 0}
        return lambda node: self._units(node) * factors.get(node.kind, 1.0)

    def finished(self, outcome: Outcome) -> None:
        """Count a cell that was computed."""
        if outcome.status == "done":
            kind = self._new.setdefault(outcome.node.kind, [0.0, 0.0])
            kind[0] += outcome.entry["seconds"]
            kind[1] += self._units(outcome.node)

    def ended(self, why: str) -> None:
        """Keep what was counted."""
        if not self._new:
            return
        whole, before = self._whole(), self._before()
        for kind, (seconds, work) in self._new.items():
            old = before.get(kind, (0.0, 0.0))
            before[kind] = (round(FADING * old[0] + seconds, 3), round(FADING * old[1] + work, 3))
        text = json.dumps({**whole, self._of: before}, indent=1, sort_keys=True)
        part = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        with suppress(OSError):
            part.write_text(text + "\n", encoding="utf-8")
            part.replace(self._path)

    def _before(self) -> dict[str, tuple[float, float]]:
        found = self._whole().get(self._of)
        pairs = found.items() if isinstance(found, dict) else ()
        return {kind: (float(p[0]), float(p[1])) for kind, p in pairs if _are_two_numbers(p)}

    def _whole(self) -> dict[str, Any]:
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def _are_two_numbers(pair: Any) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int | float) and n >= 0 for n in pair)
