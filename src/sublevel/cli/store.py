"""The commands on a store: verify, gc, export, import."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sublevel.cli.options import RUNS, Out, StoreAt, store_at
from sublevel.cli.output import say

Weights = Literal["all", "ends", "none"]


def verify(*, rebuild: bool = False, out: Out = RUNS, store: StoreAt = None) -> int:
    """Check every byte of a store, and set damaged files aside.

    The exit code is 1 if any file is damaged, incomplete or unreadable.

    Parameters
    ----------
    rebuild
        Also rebuild the index of `sublevel ls --stored`.
    """
    from sublevel.engine.store import Store, index
    from sublevel.engine.store.verify import verify as read_all

    at = Store(store_at(out, store), create=False)
    found = read_all(at)
    for name in found.damaged:
        say(f"damaged, set aside: {name}")
    for why in dict.fromkeys(found.unreadable.values()):
        say(f"not checked: {why}")
    for key, cell in found.incomplete.items():
        say(f"incomplete: {key[:12]} {cell}; it will be computed again")
    unread = f", {len(found.unreadable)} files that cannot be read" if found.unreadable else ""
    broken = len(found.incomplete)
    say(f"{found.entries} entries, {at.size() / 2**20:.1f} MiB in {at.where}: {broken} not whole{unread}")
    if rebuild:
        say(f"index: {len(index.look(at, rebuild=True))} entries")
    return 1 if found.incomplete or found.unreadable or found.damaged else 0


def gc(
    *,
    dry_run: bool = False,
    forget: tuple[str, ...] = (),
    weights: Weights = "all",
    out: Out = RUNS,
    store: StoreAt = None,
) -> None:
    """Remove the files of a store that no study reaches any more.

    These are the studies that the store knows, and the runs in OUT. Files younger than an hour stay, and so do cells
    that a run computes now.

    Parameters
    ----------
    dry_run
        Show what would be removed, and remove nothing.
    forget
        A study whose results may go: its name, or the beginning of its digest.
    weights
        Weights of finished studies to keep: all, the ends of trainings, or none. Numbers and masks stay. If a cell
        needs removed weights later, they are trained again, to the same bits.
    """
    from sublevel.engine.store import Store
    from sublevel.study.store_admin import clear

    at = Store(store_at(out, store), create=False)
    cleared = clear(at, out, forget=forget, remove=not dry_run, weights=weights)
    for root in cleared.known:
        state = "forgotten" if root in cleared.forgotten else "kept" if root.finished else "kept, not finished"
        say(f"{root.name} {root.digest[:12]}: {len(root.keys)} entries, {state}")
    done = cleared.collected
    for name, count in sorted(done.entries.items()):
        say(f"{count} entries of {name} {'would be removed' if dry_run else 'removed'}")
    say(
        f"{'would remove' if dry_run else 'removed'} {done.entries.total()} entries, {done.objects} objects and "
        f"{done.other} other files: {done.size / 2**20:.1f} MiB; {done.kept} entries stay"
    )


def export(study: str, archive: Path, *, out: Out = RUNS, store: StoreAt = None) -> None:
    """Write all results of a study as one tar file.

    Parameters
    ----------
    study
        A finished run, by name or folder; or a study that the store knows, by name or the beginning of its digest.
    archive
        The file to write.
    """
    from sublevel.study.store_admin import export as write

    count = write(study, archive, out, store)
    say(f"{archive}: {count} entries, {archive.stat().st_size / 2**20:.1f} MiB")


def take_in(source: str, *, out: Out = RUNS, store: StoreAt = None) -> None:
    """Import the results of an archive or a store into a store.

    An archive is checked before anything is written. Existing results stay as they are, and the source is only read.

    Parameters
    ----------
    source
        An archive of `sublevel export`, or the folder or URL of a store.
    """
    from sublevel.study.store_admin import take_in as read

    done = read(source, store_at(out, store))
    say(f"{done.added} entries added, {done.there} existed; {done.studies} studies")
    if done.different:
        say(f"{done.different} of the existing entries have other numbers in {source}; they stay")
    if done.broken:
        say(f"{done.broken} entries of {source} are damaged or incomplete, and are left out")
