"""Where a run stands, seen from another terminal: read from its log."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from sublevel.cli.console import left, seen
from sublevel.cli.output import clock, say
from sublevel.engine.events import BEAT, LOG
from sublevel.engine.tally import Row, Tally, proper
from sublevel.errors import ConfigError, StoreError, nearest
from sublevel.processes import dead, machine

SILENT = 12 * BEAT
"""Seconds without a sign of life after which a run on another machine counts as dead."""

LONGEST_ROW = 2**20
"""Characters of a row that is still read."""

TROUBLES = 5
"""How many troubles are shown, the last ones."""


def show(target: str | None, out: Path) -> int:
    """Print where a run stands; without a target, all that are alive, or the one that was last."""
    if target is not None:
        _print(_folder(target, out))
        return 0
    logs = sorted((path for path in out.glob(f"*/{LOG}") if path.is_file()), key=_changed)
    if not logs:
        raise ConfigError(f"nothing has run in {out}")
    alive, broken = [], []
    for path in logs:
        try:
            if _lives(read(path), path):
                alive.append(path.parent)
        except StoreError as error:  # the others are still there
            broken.append(error)
    for error in broken:
        say(str(error), style="red")
    for folder in alive or [logs[-1].parent]:
        _print(folder)
    return 0


def read(log: Path) -> Tally:
    """Count the rows of the log's last run; what is no row, cut short or misshapen, is passed over.

    StoreError if the log cannot be read.
    """
    tally, run = Tally(), object()
    try:
        for row in _rows(log):
            if row["event"] == "begin":
                tally, run = Tally(), row.get("run")
            if row.get("run") == run:
                tally.take(row)
    except OSError as error:
        raise StoreError(f"cannot read {log}: {error.strerror or error}") from error
    return tally


def _rows(log: Path) -> Iterator[Row]:
    with open(log, encoding="utf-8", errors="replace") as file:
        while line := file.readline(LONGEST_ROW):
            if not line.endswith("\n"):
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if proper(row):
                yield row


def _changed(log: Path) -> float:
    """When a log was last changed; never, where that cannot be known."""
    try:
        return log.stat().st_mtime
    except OSError:
        return -math.inf


def _folder(target: str, out: Path) -> Path:
    """The folder of a run that is named by its folder, its name or its study file."""
    if target.endswith(".toml"):
        from sublevel.study.documents import read as document
        from sublevel.study.spec import parse

        target = parse(document(target), target).name
    found = next((f for f in (Path(target), out / target) if (f / LOG).exists()), None)
    if found is None:
        names = [path.parent.name for path in out.glob(f"*/{LOG}")]
        raise ConfigError(f"no run {target!r} in {out} has a log{nearest(target, names)}")
    return found


def _lives(tally: Tally, log: Path) -> bool:
    """Whether its process is there, or, on another machine, has given a sign of life lately."""
    if tally.why is not None or not tally.about:
        return False
    if tally.about.get("machine") == machine() != "":
        return not dead(tally.about)
    return abs(time.time() - _changed(log)) < SILENT


def _print(folder: Path) -> None:
    log = folder / LOG
    t = read(log)
    if not t.about:
        say(f"{folder.name}: its {LOG} tells of no run")
        return
    lives = _lives(t, log)
    about = {name: str(t.about.get(name, "?")) for name in ("study", "host", "pid", "executor")}
    now = time.time() if lives else t.now
    where = f"on {about['host']} (process {about['pid']}), executor {about['executor']}"
    if lives:
        state = f"running for {clock(now - t.began)} {where}"
    elif t.why is None:
        state = f"stopped without a word {clock(time.time() - t.now)} ago, {where}; the same command goes on from there"
    else:
        state = f"ended {clock(time.time() - t.now)} ago after {clock(now - t.began)}: {t.why}"
    say(f"{about['study']}: {state}")
    rate = f"; {t.rate(now):.1f} cells/min" if t.done else ""
    ahead = f"; {left(t)}" if lives else ""
    counts = f"{t.cached} from the store, {t.done} settled by this run, {t.failed} of them failed"
    say(f"{t.cached + t.done}/{t.cells} cells: {counts}{rate}{ahead}")
    if lives and t.running:
        table = Table("running", "where", "for", "at", box=None, pad_edge=False)
        for name, row in t.running.items():
            table.add_row(name, _where(row), clock(now - row["since"]), seen(row))
        say(table)
    for trouble in t.troubles[-TROUBLES:]:
        say(trouble)


def _where(row: dict[str, Any]) -> str:
    if "host" not in row:
        return "waiting"
    gpu = f", GPU {row['gpu']}" if row.get("gpu") else ""
    return f"{row['host']}:{row.get('pid', '?')}{gpu}"
