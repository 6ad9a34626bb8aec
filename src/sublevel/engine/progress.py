"""The progress of a run, from the rows of its log: settled cells, running cells, and the time left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from sublevel.engine.events import Row

FIELDS: dict[str, dict[str, type]] = {
    "begin": {"cells": int, "cached": int, "work": float},
    "waits": {"cell": str},
    "started": {"cell": str},
    "progress": {"cell": str, "said": dict},
    "retried": {"cell": str, "error": dict},
    "finished": {"cell": str, "status": str, "work": float},
    "end": {"why": str},
}
"""The fields that a row of each event must have, besides its time; other rows are skipped."""

SOON = 5.0
"""Seconds from the beginning of a run without an estimate of its end."""


JUMP = 30 * 86_400.0
"""Seconds between two readings of the clock above which it was set in between."""

LONGEST = 10 * 365 * 86_400.0
"""Seconds of the longest time that is told."""


def number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a finite number of reasonable size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e15 < value < 1e15


def proper(row: object) -> bool:
    """Whether a row is valid: a log may be truncated, or come from anybody."""
    if not isinstance(row, dict) or not isinstance(row.get("event"), str):
        return False
    if not number(row.get("time")) or row["time"] < 0:
        return False
    fields = FIELDS.get(row["event"])
    if fields is None:
        return False
    allowed = {name: (int, float) if kind is float else kind for name, kind in fields.items()}
    numbers = [row.get(name) for name, kind in fields.items() if kind in (int, float)]
    return all(isinstance(row.get(name), kind) for name, kind in allowed.items()) and all(map(number, numbers))


@dataclass
class _Pace:
    """A running cell: its work, and its first and last reports as (time, step)."""

    since: float
    kind: str
    work: float
    first: tuple[float, float] | None = None
    last: tuple[float, float] | None = None
    steps: float = 0.0

    def reports(self, time: float, said: Mapping[str, Any]) -> None:
        """Add a report; one with fewer steps than before starts a new stretch."""
        step, steps = said.get("step"), said.get("steps")
        if not (number(step) and number(steps)) or step > steps:
            return
        if self.first is None or self.last is None or step < self.last[1] or steps != self.steps:
            self.first = (time, step)
        self.last, self.steps = (time, step), steps

    def remaining(self, now: float) -> float | None:
        """Seconds left at the cell's own pace; None with too few reports."""
        if self.first is None or self.last is None:
            return None
        if self.last[1] == self.steps:
            return 0.0
        begun = self.first if self.last[1] > self.first[1] else (self.since, 0.0)
        seconds, steps = self.last[0] - begun[0], self.last[1] - begun[1]
        if seconds <= 0 or steps <= 0:
            return None
        return max((self.steps - self.last[1]) * seconds / steps - (now - self.last[0]), 0.0)

    @property
    def done(self) -> tuple[float, float]:
        """The seconds until the last report, and the work done in them."""
        if self.last is None or (rest := self.remaining(self.last[0])) is None:
            return 0.0, 0.0
        seconds = self.last[0] - self.since
        return seconds, self.work * seconds / (seconds + rest) if seconds > 0 else 0.0


class RunProgress:
    """Counts the rows of a run.

    Its times, ``began``, ``now`` and ``since``, are those of a clock that never goes back: no time passes between two
    rows if the machine's clock was set back between them, or ahead by more than `JUMP`.
    """

    def __init__(self) -> None:
        self.cells = self.cached = self.done = self.failed = 0
        self.began = self.now = self._ahead = 0.0
        self.running: dict[str, Row] = {}
        self.elsewhere: set[str] = set()
        self.troubles: list[str] = []
        self.why: str | None = None
        self.about: Row = {}
        self._paces: dict[str, _Pace] = {}
        self._work: dict[str, float] = defaultdict(float)
        self._seconds: dict[str, float] = defaultdict(float)
        self._worked: dict[str, float] = defaultdict(float)
        self._most = 1

    def take(self, row: Row) -> None:
        """Count a row; a row that is not `proper` is skipped."""
        if not proper(row):
            return
        name, now = row.get("cell", ""), self.at(row["time"])
        match row["event"]:
            case "begin":
                self.about, self.began = row, (now := float(row["time"]))
                self.cells, self.cached = row["cells"], row["cached"]
                kinds = row.get("kinds")
                if not isinstance(kinds, dict) or not all(isinstance(k, str) and number(kinds[k]) for k in kinds):
                    kinds = {"": float(row["work"])}  # an older log holds only the sum
                self._work = defaultdict(float, kinds)
            case "waits":
                self.elsewhere.add(name)
            case "started":
                self.elsewhere.discard(name)
                self.running[name] = {"since": now}
                self._paces[name] = _Pace(now, _kind(row), float(row["work"]) if number(row.get("work")) else 0.0)
                self._most = max(self._most, len(self.running))
            case "progress":
                before = self.running.get(name, {"since": now})
                self.running[name] = {**before, **row["said"], "since": before["since"]}
                if name in self._paces:
                    self._paces[name].reports(now, row["said"])
            case "retried":
                self._drop(name)
                self.troubles.append(f"tried again: {name}: {row['error'].get('message', '')}")
            case "finished":
                self._finish(name, now, row)
            case "end":
                self.why = row["why"]
        self.now, self._ahead = now, now - row["time"]

    def at(self, time: float) -> float:
        """A reading of the machine's clock as a time of this run; `now` if the clock was set since the last row."""
        time += self._ahead
        return time if 0 <= time - self.now <= JUMP else self.now

    def ago(self, time: float) -> float | None:
        """Seconds from the last row to a reading of the machine's clock; None if they cannot be right."""
        seconds = time + self._ahead - self.now
        return max(seconds, 0.0) if -60 < seconds < LONGEST else None

    def _finish(self, name: str, now: float, row: Row) -> None:
        pace = self._drop(name)
        self.elsewhere.discard(name)
        self.cached += row["status"] == "cached"
        self.done += row["status"] != "cached"
        kind, work = _kind(row), float(row["work"])
        self._work[kind] -= work
        if row["status"] == "done" and pace is not None:
            self._seconds[kind] += now - pace.since
            self._worked[kind] += work
        if row["status"] == "failed":
            self.failed += 1
            error = row.get("error")
            self.troubles.append(f"failed: {name}: {error.get('message', '') if isinstance(error, dict) else ''}")

    def _drop(self, name: str) -> _Pace | None:
        self.running.pop(name, None)
        return self._paces.pop(name, None)

    def left(self, now: float) -> float | None:
        """Seconds left at a reading of the machine's clock; None while there is no basis for an estimate.

        A running cell keeps the pace of its own reports. A cell without reports takes as long per unit of work as cells
        of its kind have taken. The number of cells at once stays the same.
        """
        now = self.at(now)
        if now - self.began < SOON:
            return None
        rates, overall = self._rates()
        if overall is None:
            return None
        work, own = defaultdict(float, self._work), list[float]()
        for pace in self._paces.values():
            rest = pace.remaining(now)
            if rest is None:
                rest = max(pace.work / rates.get(pace.kind, overall) - (now - pace.since), 0.0)
            own.append(rest)
            work[pace.kind] -= pace.work
        waiting = sum(max(w, 0.0) / rates.get(kind, overall) for kind, w in work.items())
        at_once = max(self._most, sum(self._seconds.values()) / (now - self.began))
        seconds = max((sum(own) + waiting) / at_once, *own, 0.0)
        return seconds if seconds < LONGEST else None

    def _rates(self) -> tuple[dict[str, float], float | None]:
        """Work per second of a cell: by kind, and over all kinds."""
        seconds, worked = defaultdict(float, self._seconds), defaultdict(float, self._worked)
        for pace in self._paces.values():
            spent, done = pace.done
            seconds[pace.kind] += spent
            worked[pace.kind] += done
        rates = {kind: worked[kind] / s for kind, s in seconds.items() if s > 0 and worked[kind] > 0}
        whole = sum(seconds[kind] for kind in rates)
        return rates, sum(worked[kind] for kind in rates) / whole if whole > 0 else None

    def rate(self, now: float) -> float:
        """Settled cells per minute, until a time of this run."""
        return 60 * self.done / max(now - self.began, 1.0)


def _kind(row: Row) -> str:
    kind = row.get("kind")
    return kind if isinstance(kind, str) else ""
