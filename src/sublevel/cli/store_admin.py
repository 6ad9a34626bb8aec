"""What a store is kept for: known studies, garbage, archives."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sublevel.cli.output import say
from sublevel.engine.store import (
    Archive,
    Document,
    Root,
    Store,
    absolute,
    collect,
    is_url,
    merge,
    refusing,
    roots,
    user_address,
    write_archive,
)
from sublevel.engine.store.archive import Source
from sublevel.engine.store.entries import parsed_entry
from sublevel.engine.store.names import CELLS, STUDIES, key_of
from sublevel.errors import ConfigError, DamagedEntry, StoreError
from sublevel.study.result import MANIFEST, Result
from sublevel.study.tables import extracted


def clear(where: str, out: Path, forget: Sequence[str], dry_run: bool, weights: str = "all") -> int:
    """Collect the garbage of a store; say which studies it is kept for, and what went.

    ``weights`` of finished studies that stay: ``all``, the ``ends`` of trainings without the points on the way, or
    ``none``.
    """
    store = Store(where, create=False)
    known = _known(store, out)
    gone = {root.digest for word in forget for root in roots.named(known.values(), word)}
    kept = [root for digest, root in known.items() if digest not in gone]
    if not known:
        raise ConfigError(
            f"the store in {store.where} knows no study, so all of it would go: run a study that is to be kept, say "
            "with --out where the runs are, or remove the folder"
        )
    for root in sorted(known.values(), key=lambda root: (root.name, root.digest)):
        state = "forgotten" if root.digest in gone else "kept" if root.finished else "kept, not finished"
        say(f"{root.name} {root.digest[:12]}: {len(root.keys)} entries, {state}")
    with refusing(f"cannot clear up the store in {store.where}"):
        if not dry_run:
            for root in (known[digest] for digest in gone):
                store.files.remove(root.file)
        done = collect(store, kept, remove=not dry_run, release=lambda body: _released(body, weights))
    for name, count in sorted(done.entries.items()):
        say(f"{count} entries of {name} {'would go' if dry_run else 'removed'}")
    say(
        f"{'would remove' if dry_run else 'removed'} {done.entries.total()} entries, {done.objects} objects and "
        f"{done.other} other files: {done.size / 2**20:.1f} MiB; {done.kept} entries stay",
    )
    return 0


def _released(body: Document, weights: str) -> list[str]:
    """The objects of an entry that the rule lets go."""
    goes = {
        "all": lambda output: False,
        "ends": lambda output: output.startswith("step-"),
        "none": lambda output: output != "mask",
    }
    return [name for output, name in body["objects"].items() if goes[weights](output)]


def export(study: str, archive: Path, out: Path, where: str | None) -> int:
    """Write a study's results as an archive."""
    folder = Path(study) if (Path(study) / MANIFEST).exists() else out / study
    if (folder / MANIFEST).exists():
        result = Result(folder)
        store, root = (
            result.store if where is None else Store(user_address(where), create=False),
            roots.of_manifest(result.document),
        )
    else:
        store = Store(user_address(where or out / ".store"), create=False)
        found = roots.named(roots.roots(store), study)
        if len(found) > 1:
            names = ", ".join(root.digest[:12] for root in found)
            raise ConfigError(f"the store knows {len(found)} studies {study!r}: name one by its digest ({names})")
        root = found[0]
    if not root.finished:
        raise ConfigError(f"{root.name} has not been run to its end: run it before it is exported")
    count = write_archive(store, root, archive)
    say(f"{archive}: {count} entries, {archive.stat().st_size / 2**20:.1f} MiB")
    return 0


def take_in(source: str, where: str) -> int:
    """Take the results of an archive or of another store into a store."""
    at, path = user_address(source), Path(source)
    if at == absolute(where):
        raise ConfigError(f"{source} is the store itself")
    if is_url(at) or path.is_dir():
        taken = Store(at, create=False).files
    elif path.exists():
        taken = Archive(path)
    else:
        raise ConfigError(f"there is no archive and no store {source}")
    check_rows(taken)
    store = Store(where)
    store.check_writable()
    with refusing(f"cannot read {taken.where}"):
        done = merge(store, taken)
    say(f"{done.added} entries added, {done.there} were there; {done.studies} studies")
    if done.different:
        say(f"{done.different} of those that were there have other numbers in {source}; they stay")
    if done.broken:
        say(f"{done.broken} entries of {source} are not whole, and are left out")
    return 0


def check_rows(source: Source) -> None:
    """Refuse results of another shape than those of their kind: what is taken in is read by every run of the store.

    Raises StoreError, which names the first. What is damaged otherwise is left out when it is taken.
    """
    studies: dict[str, Document] = {}
    for file in source.files(STUDIES):
        root = roots.whole_root(source.read(file.name))
        studies |= dict.fromkeys(root.keys if root else (), root.study if root else {})
    for file in source.files(CELLS):
        key = key_of(file.name)
        body = parsed_entry(source.read(file.name), key) if key in studies else None
        if body is None or "failure" in body:
            continue
        try:
            extracted(studies[key], str(body.get("kind")), body.get("labels", {}), body)
        except DamagedEntry as error:
            raise StoreError(f"{source.where} cannot be imported: {error}") from None


def _known(store: Store, out: Path) -> dict[str, Root]:
    """The roots of a store and the runs in a folder that keep their results there, by digest."""
    known = {root.digest: root for root in roots.roots(store)}
    for path in sorted(out.glob(f"*/{MANIFEST}")):
        result = Result(path.parent)
        if result.store_at == store.where:
            root = roots.of_manifest(result.document)
            known[root.digest] = root.joined(known.get(root.digest))
    return known
