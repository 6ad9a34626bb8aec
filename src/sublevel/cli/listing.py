"""Which run is this? Runs, cells and keys, listed and checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from sublevel.cli.output import clock, say
from sublevel.engine.store import Store, cell_name, index, roots
from sublevel.errors import ConfigError, StoreError, nearest
from sublevel.study.result import MANIFEST, Result

FIELDS = (
    "cell",
    "kind",
    "status",
    "key",
    "branch",
    "level",
    "seed",
    "space",
    "path",
    "leg",
    "level_from",
    "level_to",
    "order",
)


def show(target: str | None, filters: Sequence[str], out: Path) -> int:
    """List runs, one run's cells, or the cells of a key."""
    if target is not None and "=" in target:
        target, filters = None, (target, *filters)
    if target is None and not filters:
        return _runs(out)
    folder = Path(target) if target and (Path(target) / MANIFEST).exists() else out / (target or "")
    wanted = _parsed(filters)
    if target and (folder / MANIFEST).exists():
        found = list(_cells(Result(folder)))
    else:
        runs = list(_manifests(out))
        found = [row for r in runs for row in _cells(r) if target is None or row["key"].startswith(target)]
        if target and not found:
            raise ConfigError(
                f"{target!r} is no run and no key in {out}{nearest(target, [r.folder.name for r in runs])}"
            )
    rows = [row for row in found if all(str(row.get(k)) == v for k, v in wanted.items())]
    table = Table("run", "cell", "status", "key", "values", box=None, pad_edge=False)
    for row in rows:
        cells = (row["run"], row["cell"], row["status"], row["key"][:12], row["values"])
        table.add_row(*cells)
    say(table)
    say(f"{len(rows)} cells")
    return 0


def show_stored(target: str | None, filters: Sequence[str], where: str) -> int:
    """List the entries of a store, or those whose key begins with ``target``."""
    if target is not None and "=" in target:
        target, filters = None, (target, *filters)
    wanted = _parsed(filters, (*FIELDS, "study"))
    table = Table("study", "cell", "status", "key", "seconds", box=None, pad_edge=False)
    found = index.look(Store(where, create=False))
    for seen in found:
        status = "failed" if seen.failure else "done"
        fields = {**seen.labels, "kind": seen.kind, "status": status, "key": seen.key}
        if seen.unreadable or not seen.key.startswith(target or ""):
            continue
        if all(str(fields.get(k)) == v for k, v in wanted.items()):
            names = (str(seen.labels.get(name, "")) for name in ("study", "cell"))
            table.add_row(*names, status, seen.key[:12], str(seen.seconds))
    for seen in found:
        if seen.unreadable:
            say(f"cannot be read: {seen.unreadable}", style="red")
    say(table)
    say(f"{table.row_count} entries")
    return 0


def _runs(out: Path) -> int:
    table = Table("run", "network", "data", "levels", "seeds", "cells", "computed in", box=None, pad_edge=False)
    for result in _manifests(out):
        d = result.document
        cells = d["about"]["cells"]
        table.add_row(
            d["study"]["name"],
            d["about"]["model"]["name"],
            d["study"]["data"]["name"],
            str(d["study"]["levels"]),
            str(len(d["study"]["seeds"])),
            str(sum(cells.values())) + (f", {cells['failed']} failed" if cells["failed"] else ""),
            clock(sum(d["about"]["seconds"]["cells"].values())),
        )
    say(table if table.row_count else f"no runs in {out}")
    return 0


def _manifests(out: Path) -> Iterator[Result]:
    for path in sorted(out.glob(f"*/{MANIFEST}")):
        try:
            yield Result(path.parent)
        except StoreError as error:  # the others are still there
            say(str(error), style="red")


def _cells(result: Result) -> Iterator[dict[str, Any]]:
    for cell in result.document["cells"]:
        yield {
            **cell["labels"],
            "run": result.folder.name,
            **{k: cell[k] for k in ("cell", "kind", "status", "key")},
            "values": cell.get("error", {}).get("message", ""),
        }


def _parsed(filters: Sequence[str], fields: Sequence[str] = FIELDS) -> dict[str, str]:
    wanted = {}
    for text in filters:
        name, equals, value = text.partition("=")
        if not equals or name not in fields:
            raise ConfigError(f"a filter is field=value, got {text!r}{nearest(name, fields)}")
        wanted[name] = value
    return wanted


def check_store(where: str, rebuild: bool = False) -> int:
    """Read everything in a store; set aside what is damaged and say so. ``rebuild``: make its index anew.

    What cannot be read is named and stays where it is.
    """
    store = Store(where, create=False)
    before, broken, unreadable = set(store.damaged()), list[str](), dict[str, str]()
    roots.check(store)
    for name in list(store.objects()):
        _looked_at(store.object_whole, name, unreadable)
    keys = list(store.keys())
    for key in keys:
        if _looked_at(store.read_entry, key, unreadable) is None and key not in unreadable:
            broken.append(key)
    for name in sorted(set(store.damaged()) - before):
        say(f"damaged, set aside: {name}")
    for why in dict.fromkeys(unreadable.values()):
        say(f"not looked at: {why}")
    for key in broken:
        say(f"incomplete: {key[:12]} {_cell_name(store, key)}; it will be computed again")
    say(
        f"{len(keys)} entries, {store.size() / 2**20:.1f} MiB in {store.where}: {len(broken)} not whole"
        + (f", {len(unreadable)} files that cannot be read" if unreadable else ""),
    )
    if rebuild:
        say(f"index: {len(index.look(store, rebuild=True))} entries")
    return 1 if broken or unreadable or set(store.damaged()) - before else 0


def _looked_at(look: Callable[[str], Any], name: str, unreadable: dict[str, str]) -> Any:
    try:
        return look(name)
    except StoreError as error:
        unreadable[name] = str(error)
        return None


def _cell_name(store: Store, key: str) -> str:
    try:
        return json.loads(store.files.read(cell_name(key)))["body"]["labels"].get("cell", "")
    except (OSError, ValueError, KeyError, TypeError):
        return ""
