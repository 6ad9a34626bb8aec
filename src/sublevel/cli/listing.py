"""The command ls: list runs, cells and keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from sublevel.cli.options import RUNS, Out, StoreAt, store_at
from sublevel.cli.output import clock, say
from sublevel.errors import ConfigError, StoreError, nearest

if TYPE_CHECKING:
    from sublevel.study.result import Result

FIELDS = (
    "cell", "kind", "status", "key", "branch", "level", "seed", "space", "path", "leg", "level_from", "level_to",
    "order",
)  # fmt: skip


def ls(
    target: str | None = None, /, *filters: str, stored: bool = False, out: Out = RUNS, store: StoreAt = None
) -> None:
    """List runs, the cells of one run, or the runs to which a key of the store belongs.

    Parameters
    ----------
    target
        A run's name or folder, or the beginning of a key. Default: all runs.
    filters
        field=value for any field of a cell (kind, branch, level, seed, status, ...).
    stored
        List the entries of the store instead, of all studies.
    """
    if target is not None and "=" in target:
        target, filters = None, (target, *filters)
    if stored:
        _show_entries(target or "", _parsed(filters, (*FIELDS, "study")), store_at(out, store))
    elif target is None and not filters:
        _show_runs(out)
    else:
        _show_cells(target, _parsed(filters, FIELDS), out)


def _parsed(filters: Sequence[str], fields: Sequence[str]) -> dict[str, str]:
    wanted = {}
    for text in filters:
        name, equals, value = text.partition("=")
        if not equals or name not in fields:
            raise ConfigError(f"a filter is field=value, got {text!r}{nearest(name, fields)}")
        wanted[name] = value
    return wanted


def _fits(row: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    return all(str(row.get(name)) == value for name, value in wanted.items())


def _show_runs(out: Path) -> None:
    table = Table("run", "network", "data", "levels", "seeds", "cells", "computed in", box=None, pad_edge=False)
    for result in _results(out):
        study, about = result.document["study"], result.document["about"]
        cells = about["cells"]
        table.add_row(
            study["name"],
            about["model"]["name"],
            study["data"]["name"],
            str(study["levels"]),
            str(len(study["seeds"])),
            str(sum(cells.values())) + (f", {cells['failed']} failed" if cells["failed"] else ""),
            clock(sum(about["seconds"]["cells"].values())),
        )
    say(table if table.row_count else f"no runs in {out}")


def _results(out: Path) -> Iterator[Result]:
    """The runs in a folder; print the error of each run that cannot be read."""
    from sublevel.study.manifest import MANIFEST
    from sublevel.study.result import Result

    for path in sorted(out.glob(f"*/{MANIFEST}")):
        try:
            yield Result(path.parent)
        except StoreError as error:
            say(error, style="red")


def _show_cells(target: str | None, wanted: Mapping[str, str], out: Path) -> None:
    from sublevel.study.manifest import MANIFEST
    from sublevel.study.result import Result

    folder = Path(target) if target and (Path(target) / MANIFEST).exists() else out / (target or "")
    if target and (folder / MANIFEST).exists():
        found = list(_cells(Result(folder)))
    else:
        runs = list(_results(out))
        found = [row for run in runs for row in _cells(run) if target is None or row["key"].startswith(target)]
        if target and not found:
            names = [run.folder.name for run in runs]
            raise ConfigError(f"{target!r} is neither a run nor a key in {out}{nearest(target, names)}")
    table = Table("run", "cell", "status", "key", "values", box=None, pad_edge=False)
    for row in found:
        if _fits(row, wanted):
            table.add_row(row["run"], row["cell"], row["status"], row["key"][:12], row["values"])
    say(table)
    say(f"{table.row_count} cells")


def _cells(result: Result) -> Iterator[dict[str, Any]]:
    for cell in result.document["cells"]:
        yield {
            **cell["labels"],
            "run": result.folder.name,
            **{k: cell[k] for k in ("cell", "kind", "status", "key")},
            "values": cell.get("error", {}).get("message", ""),
        }


def _show_entries(begin: str, wanted: Mapping[str, str], where: str) -> None:
    """List the entries of a store whose keys start with ``begin``."""
    from sublevel.engine.store import Store, index

    table = Table("study", "cell", "status", "key", "seconds", box=None, pad_edge=False)
    for entry in index.look(Store(where, create=False)):
        if entry.unreadable:
            say(f"cannot be read: {entry.unreadable}", style="red")
            continue
        status = "failed" if entry.failure else "done"
        fields = {**entry.labels, "kind": entry.kind, "status": status, "key": entry.key}
        if entry.key.startswith(begin) and _fits(fields, wanted):
            names = (str(entry.labels.get(name, "")) for name in ("study", "cell"))
            table.add_row(*names, status, entry.key[:12], str(entry.seconds))
    say(table)
    say(f"{table.row_count} entries")
