"""The upkeep of a store: its studies, garbage, archives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sublevel.engine.store import Document, Root, Store, roots, store_errors, user_address
from sublevel.engine.store.address import absolute, is_url
from sublevel.engine.store.archive import Archive, write_archive
from sublevel.engine.store.garbage import Collected, collect
from sublevel.engine.store.merge import Merged, merge
from sublevel.engine.store.names import CELLS, STUDIES, key_of
from sublevel.engine.store.reading import Readable, parse_entry
from sublevel.errors import ConfigError, DamagedEntry, StoreError
from sublevel.study.manifest import MANIFEST
from sublevel.study.result import Result
from sublevel.study.tables import extracted

RELEASED = {
    "all": lambda output: False,
    "ends": lambda output: output.startswith("step-"),
    "none": lambda output: output != "mask",
}
"""Option ``weights`` -> whether an output of a finished study's cell is released."""


@dataclass(frozen=True)
class Cleared:
    """The studies that a store knows, the forgotten ones among them, and the collected garbage."""

    known: list[Root]
    forgotten: list[Root]
    collected: Collected


def clear(store: Store, out: Path, *, forget: Sequence[str], remove: bool, weights: str = "all") -> Cleared:
    """Collect the garbage of a store, or only count it. The runs in ``out`` are kept too.

    ``weights`` are those that finished studies keep: ``all``, the ``ends`` of trainings without their other points, or
    ``none``.
    """
    known = _known(store, out)
    if not known:
        raise ConfigError(
            f"the store in {store.where} knows no study, so all of it would go: run a study that is to be kept, say "
            "with --out where the runs are, or remove the folder"
        )
    gone = {root.digest: root for word in forget for root in roots.named(known.values(), word)}
    kept = [root for digest, root in known.items() if digest not in gone]

    def release(body: Document) -> list[str]:
        return [name for output, name in body["objects"].items() if RELEASED[weights](output)]

    with store_errors(f"cannot clear up the store in {store.where}"):
        for root in gone.values() if remove else ():
            store.files.remove(root.file)
        done = collect(store, kept, remove=remove, release=release)
    return Cleared(sorted(known.values(), key=lambda root: (root.name, root.digest)), list(gone.values()), done)


def _known(store: Store, out: Path) -> dict[str, Root]:
    """The roots of a store, and of the runs in a folder whose results are there, by digest."""
    known = {root.digest: root for root in roots.roots(store)}
    for path in sorted(out.glob(f"*/{MANIFEST}")):
        result = Result(path.parent)
        if result.store_at == store.where:
            root = roots.of_manifest(result.document)
            known[root.digest] = root.joined(known.get(root.digest))
    return known


def export(study: str, archive: Path, out: Path, where: str | None) -> int:
    """Write a study's results as an archive; return the number of entries."""
    folder = Path(study) if (Path(study) / MANIFEST).exists() else out / study
    if (folder / MANIFEST).exists():
        result = Result(folder)
        store = result.store if where is None else Store(user_address(where), create=False)
        root = roots.of_manifest(result.document)
    else:
        store = Store(user_address(where or out / ".store"), create=False)
        found = roots.named(roots.roots(store), study)
        if len(found) > 1:
            names = ", ".join(root.digest[:12] for root in found)
            raise ConfigError(f"the store knows {len(found)} studies {study!r}: name one by its digest ({names})")
        root = found[0]
    if not root.finished:
        raise ConfigError(f"{root.name} has not been run to its end: run it before it is exported")
    return write_archive(store, root, archive)


def take_in(source: str, where: str) -> Merged:
    """Import the results of an archive or of another store into a store."""
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
    with store_errors(f"cannot read {taken.where}"):
        return merge(store, taken)


def check_rows(source: Readable) -> None:
    """Check that imported results have the shape of their kind, since every run of the store reads them.

    Raises StoreError with the first invalid one. The import itself leaves out damaged entries.
    """
    studies: dict[str, Document] = {}
    for file in source.files(STUDIES):
        root = roots.parse_root(source.read(file.name))
        studies |= dict.fromkeys(root.keys if root else (), root.study if root else {})
    for file in source.files(CELLS):
        key = key_of(file.name)
        body = parse_entry(source.read(file.name), key) if key in studies else None
        if body is None or "failure" in body:
            continue
        try:
            extracted(studies[key], str(body.get("kind")), body.get("labels", {}), body)
        except DamagedEntry as error:
            raise StoreError(f"{source.where} cannot be imported: {error}") from None
