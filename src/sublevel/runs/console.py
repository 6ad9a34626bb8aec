"""What a person sees while a study runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from sublevel.study.fidelity import followed
from sublevel.study.graph import Node
from sublevel.study.schedule import Listener, Outcome

EVERY = 10.0
"""Seconds between plain lines."""


@cache
def console() -> Console:
    """Standard output."""
    return Console(highlight=False, soft_wrap=True)


class Watching(Listener):
    """Counts cells, remembers what runs, and estimates the time left from the work done so far."""

    def __init__(self, live: bool) -> None:
        self.live = live
        self.cached = self.total = self.done = self.failed = 0
        self.running: dict[str, dict[str, Any]] = {}
        self.elsewhere: set[str] = set()
        self._cost: Mapping[str, float] = {}
        self._work = self._worked = 0.0
        self._began = self._spoke = time.monotonic()
        self._view: Live | None = None

    def begin(self, cached: int, waiting: list[Node], cost: Mapping[str, float]) -> None:
        """Start counting."""
        self.cached, self.total = cached, cached + len(waiting)
        self._cost, self._work = cost, sum(cost.values())
        self._began = self._spoke = time.monotonic()
        if waiting:
            console().print(f"{self.total} cells: {cached} in the store, {len(waiting)} to run", markup=False)

    def started(self, node: Node) -> None:
        """A cell began to run."""
        self.elsewhere.discard(node.id)
        self.running[node.id] = {}

    def waits(self, node: Node) -> None:
        """Another run is at a cell: say so the first time."""
        if not self.elsewhere:
            console().print("another run computes some of these cells: their results are taken from it", markup=False)
        self.elsewhere.add(node.id)

    def progressed(self, node: Node, row: Mapping[str, Any]) -> None:
        """A running cell reports; one that runs in this process is seen by nobody else meanwhile."""
        self.running[node.id] = dict(row)
        self.tick()

    def finished(self, outcome: Outcome) -> None:
        """Count it, and speak up at once if it failed."""
        name = outcome.node.id
        self.running.pop(name, None)
        self.elsewhere.discard(name)
        self.done += 1
        self.cached += outcome.status == "cached"
        self.failed += outcome.status == "failed"
        self._worked += self._cost.get(name, 0.0)
        if outcome.status == "failed":
            console().print(f"failed: {name}: {outcome.error.get('message', '')}", style="red", markup=False)

    def tick(self) -> None:
        """Show where things stand."""
        if self._view is not None:
            self._view.update(self.picture())
        elif not self.live and time.monotonic() - self._spoke > EVERY:
            self._spoke = time.monotonic()
            running = ", ".join(describe(name, row) for name, row in list(self.running.items())) or "in another run"
            console().print(f"{self.done}/{self.total} cells, {self.left()}; running {running}", markup=False)

    def left(self) -> str:
        """The time left, from the rate so far."""
        spent = time.monotonic() - self._began
        if self._worked <= 0 or spent < 5:
            return "time left unknown yet"
        return f"about {clock(spent * (self._work - self._worked) / self._worked)} left"

    def picture(self) -> Group:
        """The live view."""
        bar = Progress(TextColumn("{task.completed}/{task.total} cells"), BarColumn(40), TextColumn(self.left()))
        bar.add_task("", total=max(self.total, 1), completed=self.done)
        rows = [Text(f"  {describe(name, row)}") for name, row in list(self.running.items())]
        return Group(bar, *rows)

    def summary(self, result: Any) -> None:
        """The last words of a run."""
        spent = clock(time.monotonic() - self._began)
        if self.cached == self.total:
            console().print(f"all {self.total} cells were in the store: nothing to compute", markup=False)
        else:
            console().print(
                f"{self.total - self.cached} cells run in {spent}, {self.cached} from the store", markup=False
            )
        skipped = sum(cell["status"] == "skipped" for cell in result.unfinished)
        if result.unfinished:
            failed = len(result.unfinished) - skipped
            console().print(f"{failed} cells failed and {skipped} were skipped for it; see the report", markup=False)
        damaged = result.document["last_run"]["damaged"]
        if damaged:
            console().print(
                f"{len(damaged)} damaged files are set aside in {result.store.path / 'damaged'}", markup=False
            )


@contextmanager
def listener() -> Iterator[Watching]:
    """A listener that shows a live view if there is a terminal."""
    live = console().is_terminal
    watching = Watching(live)
    if not live:
        yield watching
        return
    with Live(console=console(), refresh_per_second=4, transient=True) as view:
        watching._view = view
        yield watching
        watching._view = None


def describe(name: str, row: Mapping[str, Any]) -> str:
    """A running cell in a few words."""
    if not row:
        return name
    seen = f"loss {row['train_loss']:.3f}"
    if row.get("validation_error") is not None:
        seen += f", held-out error {row['validation_error']:.1%}"
    return f"{name} (step {row['step']}/{row['steps']}, {seen})"


def clock(seconds: float) -> str:
    """A length of time for people.

    >>> clock(75), clock(4000)
    ('1 min 15 s', '1 h 6 min')
    """
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    return f"{s // 60} min {s % 60} s" if s < 3600 else f"{s // 3600} h {s % 3600 // 60} min"


def show_comparison(found: Any) -> None:
    """Print studies side by side."""
    for title, (says, frame) in found.tables.items():
        table = Table(*map(escape, map(str, frame.columns)), title=escape(title), title_justify="left", caption=says)
        for row in frame.itertuples(index=False):
            table.add_row(*(escape(str(cell)) for cell in row))
        console().print(table)


def _fidelity(document: Mapping[str, Any]) -> Iterator[str]:
    """What a resolved study's fidelity stands for, and where the study says something else."""
    found = list(followed(document))
    name = document["fidelity"]
    yield f"fidelity {name}: {', '.join(f'{key} = {json.dumps(rule)}' for key, value, rule in found if value == rule)}"
    for key, value, rule in found:
        if value != rule:
            yield f"  but {key} = {json.dumps(value)}, as this study says ({name}: {json.dumps(rule)})"


def show_difference(found: Any) -> None:
    """Print in what two studies differ."""
    say = console().print
    for title, rows in (("field", found.fields), ("cells", found.cells)):
        columns = found.names if title == "field" else (*found.names, "in both")
        table = Table(title, *map(escape, columns), box=None, pad_edge=False)
        for name, row in rows.items():
            table.add_row(escape(name), *(escape(str(cell)) for cell in row))
        if rows:
            say(table)
        elif title == "field":
            say("no field differs")
    last = f"cells are not compared: {found.reason}" if found.reason else f"networks in both: {found.networks}"
    say(last, markup=False)


def show_plan(study: Any, plan: Any) -> None:
    """Print a plan."""
    table = Table("cells", "all", "cached", "failed before", "to run", box=None, pad_edge=False)
    for kind, row in plan.cells.items():
        table.add_row(kind, *(str(row[c]) for c in ("all", "cached", "failed", "to run")))
    say = console().print
    say(f"study {study.spec.name}: {study.problem.splits.origin}", markup=False)
    say(f"network {study.spec.model.name}: {study.problem.space.dim:,} parameters", markup=False)
    for line in _fidelity(study.spec.document()):
        say(line, markup=False)
    say(table)
    say(
        f"time: about {clock(plan.seconds)} on {plan.jobs} jobs (from a measurement of half a second)",
        markup=False,
    )
    say(
        f"memory: about {plan.memory / 2**30:.1f} GiB per worker; disk: about {plan.disk / 2**20:.0f} MiB more",
        markup=False,
    )
    for path in plan.own_code:
        say(f"own code that would run: {path}", markup=False)
    for note in plan.notes:
        say(f"note: {note}", markup=False)
