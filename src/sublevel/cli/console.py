"""What a person sees while a study runs: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from sublevel.cli.output import clock, console, say
from sublevel.engine.events import Events
from sublevel.engine.graph import Node
from sublevel.engine.tally import Tally, number
from sublevel.study.fidelity import followed
from sublevel.study.named_code import told

EVERY = 10.0
"""Seconds between plain lines."""


class Watching(Events):
    """Counts cells, remembers what runs, and estimates the time left from the work done so far."""

    def __init__(self, live: bool) -> None:
        super().__init__()
        self.live = live
        self.tally = Tally()
        self._spoke = time.time()
        self._view: Live | None = None

    def begin(self, cached: int, waiting: list[Node], cost: Mapping[str, float]) -> None:
        """Say what will run."""
        super().begin(cached, waiting, cost)
        if waiting:
            say(f"{self.tally.cells} cells: {cached} in the store, {len(waiting)} to run")

    def waits(self, node: Node) -> None:
        """Another run is at a cell: say so the first time."""
        if not self.tally.elsewhere:
            say("another run computes some of these cells: their results are taken from it")
        super().waits(node)

    def emit(self, row: dict[str, Any]) -> None:
        """Count it, and speak up at once if a cell failed; one that runs in this process is seen only meanwhile."""
        self.tally.take(row)
        if row["event"] == "finished" and row["status"] == "failed":
            say(f"failed: {row['cell']}: {row['error']['message']}", style="red")
        if row["event"] == "progress":
            self.tick()

    def tick(self) -> None:
        """Show where things stand."""
        if self._view is not None:
            self._view.update(self.picture())
        elif not self.live and time.time() - self._spoke > EVERY:
            self._spoke, t = time.time(), self.tally
            running = ", ".join(describe(name, row) for name, row in t.running.items())
            now = f"; running {running}" if running else "; running in another run" if t.elsewhere else ""
            say(f"{t.cached + t.done}/{t.cells} cells, {left(t)}{now}")

    def picture(self) -> Group:
        """The live view."""
        t = self.tally
        bar = Progress(TextColumn("{task.completed}/{task.total} cells"), BarColumn(40), TextColumn(left(t)))
        bar.add_task("", total=max(t.cells, 1), completed=t.cached + t.done)
        rows = [Text(f"  {describe(name, row)}") for name, row in t.running.items()]
        return Group(bar, *rows)

    def summary(self, result: Any) -> None:
        """The last words of a run."""
        t, unfinished = self.tally, Counter(cell["status"] for cell in result.unfinished)
        if t.why is None:  # this listener failed on the way, and its counts are not those of the run
            last, cells = result.document["last_run"], len(result.document["cells"])
            spent = clock(last["seconds"])
            say(f"{last['computed']} of {cells} cells run in {spent}")
        elif t.cached == t.cells:
            say(f"all {t.cells} cells were in the store: nothing to compute")
        else:
            spent = clock(time.time() - t.began)
            say(f"{t.done} cells run in {spent}, {t.cached} from the store")
        if unfinished["failed"] or unfinished["skipped"]:
            failed, skipped = unfinished["failed"], unfinished["skipped"]
            say(f"{failed} cells failed and {skipped} were skipped for it; see the report")
        if unfinished["waiting"]:
            left = f"the time was up: {unfinished['waiting']} cells are left"
            say(f"{left}; the same command goes on from here")
        damaged = result.document["last_run"]["damaged"]
        if damaged:
            say(f"{len(damaged)} damaged files are set aside in {result.store.where}/damaged")


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


def left(tally: Tally) -> str:
    """The time left, in words."""
    seconds = tally.left(time.time())
    return "time left unknown yet" if seconds is None else f"about {clock(seconds)} left"


def describe(name: str, row: Mapping[str, Any]) -> str:
    """A running cell in a few words."""
    said = seen(row)
    return f"{name} ({said})" if said else name


def seen(row: Mapping[str, Any]) -> str:
    """How far a training has come, if it has said so."""
    step, steps, loss, error = (row.get(n) for n in ("step", "steps", "train_loss", "validation_error"))
    if not (number(step) and number(steps)):
        return ""
    own = f", loss {loss:.3f}" if number(loss) else ""  # a loop of one's own need not tell it
    held_out = f", held-out error {error:.1%}" if number(error) else ""
    return f"step {step}/{steps}{own}{held_out}"


def show_comparison(found: Any) -> None:
    """Print studies side by side."""
    for title, (says, frame) in found.tables.items():
        table = Table(*map(str, frame.columns), title=title, title_justify="left", caption=says)
        for row in frame.itertuples(index=False):
            table.add_row(*map(str, row))
        say(table)


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
    for title, rows in (("field", found.fields), ("cells", found.cells)):
        columns = found.names if title == "field" else (*found.names, "in both")
        table = Table(title, *columns, box=None, pad_edge=False)
        for name, row in rows.items():
            table.add_row(name, *map(str, row))
        if rows:
            say(table)
        elif title == "field":
            say("no field differs")
    last = f"cells are not compared: {found.reason}" if found.reason else f"networks in both: {found.networks}"
    say(last)


NEEDS_CODE = ("cells", "what is cached", "time", "memory", "disk")
"""What a plan says that only the study's own code tells."""


def show_without_code(document: Mapping[str, Any]) -> None:
    """Print a resolved study, of which nothing is imported."""
    for name in ("name", "model", "data", "loss", "loop", "levels", "seeds"):
        say(f"{name}: {json.dumps(document.get(name))}")
    say(f"branches: {', '.join(branch['label'] or branch['name'] for branch in document['branches'])}")
    for line in (*_fidelity(document), *told(document)):
        say(line)
    say(f"left out, for they need that code: {', '.join(NEEDS_CODE)}")


def show_plan(study: Any, plan: Any) -> None:
    """Print a plan."""
    table = Table("cells", "all", "cached", "failed before", "to run", box=None, pad_edge=False)
    for kind, row in plan.cells.items():
        table.add_row(kind, *(str(row[c]) for c in ("all", "cached", "failed", "to run")))
    say(f"study {study.spec.name}: {study.problem.splits.origin}")
    say(f"network {study.spec.model.name}: {study.problem.space.dim:,} parameters")
    say(plan.prunable)
    for line in _fidelity(study.spec.document()):
        say(line)
    say(table)
    say(f"time: about {clock(plan.seconds)} on {plan.jobs} jobs (by {plan.judged_by})")
    say(
        f"memory: about {plan.memory / 2**30:.1f} GiB per worker and {plan.data / 2**30:.1f} GiB of data for all; "
        f"disk: about {plan.disk / 2**20:.0f} MiB more",
    )
    for note in plan.notes:
        say(f"note: {note}")
