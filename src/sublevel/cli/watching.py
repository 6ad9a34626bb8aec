"""The progress of a running study: a live view on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.text import Text

from sublevel.cli.output import clock, console, say
from sublevel.engine.events import Event
from sublevel.engine.progress import RunProgress, number

if TYPE_CHECKING:
    from sublevel.study.result import Result

EVERY = 10.0
"""Seconds between plain lines."""


class Watching:
    """A listener that counts cells, lists the running ones, and shows the estimated time left."""

    def __init__(self, live: bool) -> None:
        self.live = live
        self.progress = RunProgress()
        self._spoke = time.monotonic()
        self._view: Live | None = None

    def __call__(self, event: Event) -> None:
        """Count the event, and show it; cells that were in the store before the run are not events."""
        row = event.row
        if event.what == "begin":
            self.progress = RunProgress()
            if waiting := row["cells"] - row["cached"]:
                say(f"{row['cells']} cells: {row['cached']} in the store, {waiting} to run")
        elif not self.progress.about:
            return
        elif event.what == "waits" and not self.progress.elsewhere:
            say("another run computes some of these cells; this run uses its results")
        self.progress.take(row)
        if event.what == "finished" and row["status"] == "failed":
            say(f"failed: {row['cell']}: {row['error']['message']}", style="red")
        if event.what in ("progress", "tick"):  # a cell that runs in this process is seen only by its reports
            self.tick()

    def tick(self) -> None:
        """Show the current progress."""
        if self._view is not None:
            self._view.update(self.picture())
        elif not self.live and time.monotonic() - self._spoke > EVERY:
            self._spoke, p = time.monotonic(), self.progress
            running = ", ".join(describe(name, row) for name, row in p.running.items())
            now = f"; running {running}" if running else "; running in another run" if p.elsewhere else ""
            say(f"{p.cached + p.done}/{p.cells} cells, {left(p)}{now}")

    def picture(self) -> Group:
        """The live view."""
        p = self.progress
        bar = Progress(TextColumn("{task.completed}/{task.total} cells"), BarColumn(40), TextColumn(left(p)))
        bar.add_task("", total=max(p.cells, 1), completed=p.cached + p.done)
        return Group(bar, *(Text(f"  {describe(name, row)}") for name, row in p.running.items()))

    def summary(self, result: Result) -> None:
        """Print the summary of a run."""
        p, unfinished = self.progress, Counter(cell["status"] for cell in result.unfinished)
        last = result.document["last_run"]
        if p.why is None:  # this listener failed on the way, and its counts are not those of the run
            say(f"{last['computed']} of {len(result.document['cells'])} cells run in {clock(last['seconds'])}")
        elif p.cached == p.cells:
            say(f"all {p.cells} cells were in the store: nothing to compute")
        else:
            say(f"{p.done} cells run in {clock(p.now - p.began)}, {p.cached} from the store")
        if unfinished["failed"] or unfinished["skipped"]:
            failed, skipped = (unfinished[status] for status in ("failed", "skipped"))
            say(f"{failed} cells failed; {skipped} that need them were skipped; see the report")
        if unfinished["waiting"]:
            say(f"the time was up: {unfinished['waiting']} cells are left; the same command resumes")
        if last["damaged"]:
            say(f"{len(last['damaged'])} damaged files are set aside in {result.store.where}/damaged")


@contextmanager
def watching() -> Iterator[Watching]:
    """A listener that shows a live view if there is a terminal."""
    made = Watching(console().is_terminal)
    if not made.live:
        yield made
        return
    with Live(console=console(), refresh_per_second=4, transient=True) as view:
        made._view = view
        yield made
        made._view = None


def left(progress: RunProgress) -> str:
    """The time left, in words."""
    seconds = progress.left(time.time())
    return "time left unknown yet" if seconds is None else f"about {clock(seconds)} left"


def describe(name: str, row: Mapping[str, Any]) -> str:
    """A running cell in a few words."""
    said = format_step(row)
    return f"{name} ({said})" if said else name


def format_step(row: Mapping[str, Any]) -> str:
    """The progress of a training, if it has reported any."""
    step, steps, loss, error = (row.get(n) for n in ("step", "steps", "train_loss", "validation_error"))
    if not (number(step) and number(steps)):
        return ""
    own = f", loss {loss:.3f}" if number(loss) else ""  # your own loop may not report it
    held_out = f", held-out error {error:.1%}" if number(error) else ""
    return f"step {step}/{steps}{own}{held_out}"
