"""Run times of cells on this machine, for the plan, the order of cells and the time left.

The file lies in the folder of runs. Results do not depend on it; if it is lost or damaged, times are estimated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from sublevel.engine.events import Event
from sublevel.engine.graph import Node
from sublevel.engine.store import canonical, digest
from sublevel.errors import StoreError
from sublevel.files import write_text
from sublevel.foreign import read_json
from sublevel.study.machine import processor

NAME = ".costs.json"

FADING = 0.5
"""The weight of earlier runs relative to a new one, since a machine changes."""

CostModel = Callable[[Node], float]
Pair = tuple[float, float]
"""Seconds, and the passes that they took."""


class CostHistory:
    """Seconds by kind of cell, and the passes of one example (`sublevel.study.costs.units`) that they took.

    ``of`` identifies what a cell's time depends on besides its kind and the processor: the problem, the numerics class.
    """

    def __init__(self, folder: Path, of: Mapping[str, Any], units: CostModel) -> None:
        self._path, self._units = folder / NAME, units
        self._of = digest(canonical({"processor": processor(), **of}))
        self._known = _pairs(_whole(self._path).get(self._of))
        self._new: dict[str, Pair] = {}

    @property
    def rate(self) -> float | None:
        """Training examples per second of one job; None before the first training."""
        seconds, work = self._known.get("train", (0.0, 0.0))
        return work / seconds if seconds > 0 < work else None

    def model(self) -> CostModel:
        """The cost of a cell in passes of training, corrected by the run times of its kind, if there are any."""
        rate = self.rate
        if rate is None:
            return self._units
        factors = {kind: rate * seconds / work for kind, (seconds, work) in self._known.items() if work > 0}
        return lambda node: self._units(node) * factors.get(node.kind, 1.0)

    def __call__(self, event: Event) -> None:
        """Count a computed cell; save the counts when the run ends."""
        outcome = event.outcome
        if outcome and outcome.status == "done":
            seconds, work = self._new.get(outcome.node.kind, (0.0, 0.0))
            self._new[outcome.node.kind] = seconds + outcome.entry["seconds"], work + self._units(outcome.node)
        elif event.what == "end" and self._new:
            self._keep()

    def _keep(self) -> None:
        """Add the counts to the file, which other runs may have changed meanwhile."""
        whole = _whole(self._path)
        kept = _pairs(whole.get(self._of))
        for kind, (seconds, work) in self._new.items():
            old = kept.get(kind, (0.0, 0.0))
            kept[kind] = round(FADING * old[0] + seconds, 3), round(FADING * old[1] + work, 3)
        self._known = kept
        with suppress(StoreError):
            write_text(self._path, json.dumps({**whole, self._of: kept}, indent=1, sort_keys=True) + "\n")


def _whole(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _pairs(found: Any) -> dict[str, Pair]:
    def sound(pair: Any) -> bool:
        return isinstance(pair, list) and len(pair) == 2 and all(isinstance(n, int | float) and n >= 0 for n in pair)

    pairs = found.items() if isinstance(found, dict) else ()
    return {kind: (float(pair[0]), float(pair[1])) for kind, pair in pairs if sound(pair)}
