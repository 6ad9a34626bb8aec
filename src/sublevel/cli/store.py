"""The commands on a store: check it, clear it up, take studies out of it and into it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sublevel.cli.options import RUNS, Out, StoreAt, store_at

Weights = Literal["all", "ends", "none"]


def verify(*, rebuild: bool = False, out: Out = RUNS, store: StoreAt = None) -> int:
    """Check every byte of a store, and set aside what is damaged.

    Exit code 1 if anything was.

    Parameters
    ----------
    rebuild
        Make the index of `sublevel ls --stored` anew too.
    """
    from sublevel.cli.listing import check_store

    return check_store(store_at(out, store), rebuild)


def gc(
    *,
    dry_run: bool = False,
    forget: tuple[str, ...] = (),
    weights: Weights = "all",
    out: Out = RUNS,
    store: StoreAt = None,
) -> int:
    """Remove from a store what no study reaches any more.

    Studies are those that the store knows, and the runs in OUT. What is younger than an hour stays, and what a run
    computes at the moment.

    Parameters
    ----------
    dry_run
        Say what would go, and remove nothing.
    forget
        A study that need not be kept any longer: its name, or the beginning of its digest.
    weights
        Which weights of finished studies to keep: all, the ends of trainings, or none. Numbers and masks stay, and a
        cell that needs weights later trains them again, to the same bits.
    """
    from sublevel.cli.store_admin import clear

    return clear(store_at(out, store), out, forget, dry_run, weights)


def export(study: str, archive: Path, *, out: Out = RUNS, store: StoreAt = None) -> int:
    """Write all results of a study as one tar file.

    Parameters
    ----------
    study
        A finished run: its name or folder; or a study that the store knows, by its name or the beginning of its digest.
    archive
        The file to write.
    """
    from sublevel.cli.store_admin import export as write

    return write(study, archive, out, store)


def take_in(source: str, *, out: Out = RUNS, store: StoreAt = None) -> int:
    """Take the results of an archive or a store into a store.

    An archive is checked before anything is written. What is there already stays as it is; nothing changes where the
    results come from.

    Parameters
    ----------
    source
        An archive of `sublevel export`, or the folder or URL of a store.
    """
    from sublevel.cli.store_admin import take_in as read

    return read(source, store_at(out, store))
