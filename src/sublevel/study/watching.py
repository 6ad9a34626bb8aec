"""A bar with the time left while `Study.run` works, and a link to the report at its end.

In a notebook it is one line of HTML that changes; on a terminal it is a bar of rich; elsewhere nothing is shown.
"""

from __future__ import annotations

import html
import math
import os
import sys
import time
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sublevel.engine.events import Event
from sublevel.engine.progress import RunProgress
from sublevel.report.numbers import duration

EVERY = 0.5
"""Seconds between two looks of a reader at the bar."""


class Bar(ABC):
    """A listener that counts cells and shows them at most every `EVERY` seconds."""

    def __init__(self) -> None:
        self.progress, self._shown = RunProgress(), -math.inf

    def __call__(self, event: Event) -> None:
        """Count an event; show how far the run has come."""
        if event.what == "begin":
            self.progress, self._shown = RunProgress(), -math.inf
        elif not self.progress.about:  # what was in the store before the run began
            return
        self.progress.take(event.row)
        if event.what == "end":
            self.stop()
        elif time.monotonic() - self._shown >= EVERY:
            self._shown = time.monotonic()
            self.show()

    def text(self) -> str:
        """``12/173 cells, about 3 min 4 s left, train/imp/L3/s0``."""
        p = self.progress
        seconds = p.left(time.time())
        left = "time left unknown yet" if seconds is None else f"about {duration(seconds)} left"
        return ", ".join([f"{self.count}/{p.cells} cells", left, *list(p.running)[:1]])

    @property
    def count(self) -> int:
        """How many cells are settled."""
        return self.progress.cached + self.progress.done

    @abstractmethod
    def stop(self) -> None:
        """The run is over, also when it fails."""

    @abstractmethod
    def show(self) -> None:
        """Show the bar."""

    @abstractmethod
    def end(self, words: str, report: Path | None) -> None:
        """Replace the bar by what was done and where the report is."""


class Terminal(Bar):
    """A bar on the standard error of a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        super().__init__()
        self.console = console or Console(stderr=True, highlight=False)
        columns = BarColumn(30), TextColumn("{task.description}", markup=False)
        self._bar = Progress(*columns, console=self.console, auto_refresh=False, transient=True)
        self._task = self._bar.add_task("")

    def show(self) -> None:
        """Show the bar."""
        self._bar.start()
        self._bar.update(self._task, total=max(self.progress.cells, 1), completed=self.count, description=self.text())
        self._bar.refresh()

    def stop(self) -> None:
        """The run is over, also when it fails."""
        self._bar.stop()

    def end(self, words: str, report: Path | None) -> None:
        """Replace the bar by what was done and where the report is."""
        self.console.print(words, markup=False)
        if report is not None:
            self.console.print(f"report: {report}", markup=False, soft_wrap=True, style=f"link {report.as_uri()}")


class Notebook(Bar):
    """One line of a notebook's output that changes."""

    def __init__(self) -> None:
        super().__init__()
        self._ipython: Any = import_module("IPython.display")
        self._line: Any = None

    def stop(self) -> None:
        """The line stays: what comes last replaces it."""

    def show(self) -> None:
        """Show the bar."""
        bar = f'<progress max="{max(self.progress.cells, 1)}" value="{self.count}"></progress>'
        self._put(f"{bar} {html.escape(self.text())}", self.text())

    def end(self, words: str, report: Path | None) -> None:
        """Replace the bar by what was done and where the report is."""
        if report is None:
            self._put(html.escape(words), words)
            return None
        path = html.escape(os.path.relpath(report))
        return self._put(
            f'{html.escape(words)}; report: <a href="{path}" target="_blank">{path}</a>', f"{words}; report: {report}"
        )

    def _put(self, text: str, plain: str) -> None:
        bundle = {"text/html": text, "text/plain": plain}
        if self._line is None:
            self._line = self._ipython.display(bundle, raw=True, display_id=True)
        else:
            self._line.update(bundle, raw=True)


def summary(computed: int, cells: int, seconds: float, failed: int) -> str:
    """What a run has done, in one sentence.

    >>> summary(12, 20, 75.0, 0), summary(0, 20, 0.1, 1)
    ('12 of 20 cells computed in 1 min 15 s', '0 of 20 cells computed in 0.1 s, 1 failed')
    """
    return f"{computed} of {cells} cells computed in {duration(seconds)}{f', {failed} failed' if failed else ''}"


def watcher() -> Bar | None:
    """The bar for where this process runs; None where nobody looks."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if shell is not None and getattr(shell, "kernel", None) is not None:
        return Notebook()
    return Terminal() if sys.stderr is not None and sys.stderr.isatty() else None
