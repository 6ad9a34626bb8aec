"""Where a run stands, seen from another terminal: read from its log."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from sublevel.errors import ConfigError, nearest
from sublevel.runs.console import clock, console, left, seen
from sublevel.runs.events import BEAT, LOG, Tally

SILENT = 12 * BEAT
"""Seconds without a sign of life after which a run on another machine counts as dead."""

TROUBLES = 5
"""How many troubles are shown, the last ones."""


def show(target: str | None, out: Path) -> int:
    """Print where a run stands; without a target, all that are alive, or the one that was last."""
    if target is not None:
        _print(_folder(target, out))
        return 0
    logs = sorted(out.glob(f"*/{LOG}"), key=lambda path: path.stat().st_mtime)
    if not logs:
        raise ConfigError(f"nothing has run in {out}")
    alive = [path.parent for path in logs if _lives(read(path), path)]
    for folder in alive or [logs[-1].parent]:
        _print(folder)
    return 0


def read(log: Path) -> Tally:
    """Count the rows of the log's last run; a last line that is being written is left out."""
    last, rows = "", []
    for row in _rows(log):
        if row["event"] == "begin":
            last, rows = row["run"], []
        if row["run"] == last:
            rows.append(row)
    tally = Tally()
    for row in rows:
        tally.take(row)
    return tally


def _rows(log: Path) -> Iterator[dict[str, Any]]:
    with open(log, encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


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
    if tally.about["host"] != socket.gethostname():
        return time.time() - log.stat().st_mtime < SILENT
    try:
        os.kill(tally.about["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _print(folder: Path) -> None:
    log, say = folder / LOG, console().print
    t = read(log)
    lives = _lives(t, log)
    about = t.about
    now = time.time() if lives else t.now
    where = f"on {about['host']} (process {about['pid']}), executor {about['executor']}"
    if lives:
        state = f"running for {clock(now - t.began)} {where}"
    elif t.why is None:
        state = f"stopped without a word {clock(time.time() - t.now)} ago, {where}; the same command goes on from there"
    else:
        state = f"ended {clock(time.time() - t.now)} ago after {clock(now - t.began)}: {t.why}"
    say(f"{about['study']}: {state}", markup=False)
    rate = f"; {t.rate(now):.1f} cells/min" if t.done else ""
    ahead = f"; {left(t)}" if lives else ""
    counts = f"{t.cached} from the store, {t.done} settled by this run, {t.failed} of them failed"
    say(f"{t.cached + t.done}/{t.cells} cells: {counts}{rate}{ahead}", markup=False)
    if lives and t.running:
        table = Table("running", "where", "for", "at", box=None, pad_edge=False)
        for name, row in t.running.items():
            table.add_row(escape(name), escape(_where(row)), clock(now - row["since"]), escape(seen(row)))
        say(table)
    for trouble in t.troubles[-TROUBLES:]:
        say(trouble, markup=False)


def _where(row: dict[str, Any]) -> str:
    if "host" not in row:
        return "waiting"
    gpu = f", GPU {row['gpu']}" if row.get("gpu") else ""
    return f"{row['host']}:{row['pid']}{gpu}"
