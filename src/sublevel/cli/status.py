"""The command status: the progress of a run, from another terminal."""

from __future__ import annotations

import time
from pathlib import Path

from rich.table import Table

from sublevel.cli.options import RUNS, Out
from sublevel.cli.output import clock, say
from sublevel.engine.log import LOG, changed, lives, read_log
from sublevel.errors import ConfigError, StoreError, nearest

TROUBLES = 5
"""Number of the last troubles to show."""


def status(study: str | None = None, *, out: Out = RUNS) -> None:
    """Show the progress of a run: its running cells, where they run, and the time left.

    Parameters
    ----------
    study
        A run's name or folder, or its study file. Default: all running runs, or else the last one.
    """
    if study is not None:
        _print(_folder(study, out))
        return
    logs = sorted((path for path in out.glob(f"*/{LOG}") if path.is_file()), key=changed)
    if not logs:
        raise ConfigError(f"nothing has run in {out}")
    alive = []
    for log in logs:
        try:
            if lives(read_log(log), log):
                alive.append(log.parent)
        except StoreError as error:  # show the other runs
            say(error, style="red")
    for folder in alive or [logs[-1].parent]:
        _print(folder)


def _folder(target: str, out: Path) -> Path:
    """The folder of a run, from its folder, its name or its study file."""
    if target.endswith(".toml"):
        from sublevel.study.documents import read
        from sublevel.study.spec import parse

        target = parse(read(target), target).name
    found = next((f for f in (Path(target), out / target) if (f / LOG).exists()), None)
    if found is None:
        names = [path.parent.name for path in out.glob(f"*/{LOG}")]
        raise ConfigError(f"no run {target!r} in {out} has a log{nearest(target, names)}")
    return found


def _print(folder: Path) -> None:
    from sublevel.cli.watching import format_step, left

    log = folder / LOG
    p = read_log(log)
    if not p.about:
        say(f"{folder.name}: its {LOG} holds no run")
        return
    alive = lives(p, log)
    about = {name: str(p.about.get(name, "?")) for name in ("study", "host", "pid", "executor")}
    now = p.at(time.time()) if alive else p.now
    ago = p.ago(time.time())
    when = "at an unknown time" if ago is None else f"{clock(ago)} ago"
    where = f"on {about['host']} (process {about['pid']}), executor {about['executor']}"
    if alive:
        state = f"running for {clock(now - p.began)} {where}"
    elif p.why is None:
        state = f"stopped without a message {when}, {where}; the same command resumes it"
    else:
        state = f"ended {when} after {clock(now - p.began)}: {p.why}"
    say(f"{about['study']}: {state}")
    rate = f"; {p.rate(now):.1f} cells/min" if p.done else ""
    ahead = f"; {left(p)}" if alive else ""
    counts = f"{p.cached} from the store, {p.done} settled by this run, {p.failed} of them failed"
    say(f"{p.cached + p.done}/{p.cells} cells: {counts}{rate}{ahead}")
    if alive and p.running:
        table = Table("running", "where", "for", "at", box=None, pad_edge=False)
        for name, row in p.running.items():
            gpu = f", GPU {row['gpu']}" if row.get("gpu") else ""
            at = f"{row['host']}:{row.get('pid', '?')}{gpu}" if "host" in row else "waiting"
            table.add_row(name, at, clock(now - row["since"]), format_step(row))
        say(table)
    for trouble in p.troubles[-TROUBLES:]:
        say(trouble)
