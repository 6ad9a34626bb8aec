"""Roots: the studies that a store serves, each with the keys of the entries that it reaches.

A run writes ``studies/DIGEST.json`` when it begins and when it ends. The digest is of its resolved study and its
numerics class, so the same study on the same kind of device has one root, wherever its run folder is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sublevel.engine.store.backend import store_errors
from sublevel.engine.store.content import DIGEST, Document, canonical, digest, sealed, unsealed
from sublevel.engine.store.entries import Store
from sublevel.engine.store.names import STUDIES, study_name
from sublevel.engine.store.reading import checked_read, kept_objects
from sublevel.errors import ConfigError, DamagedEntry, StoreError, nearest

FIELDS = {"study", "numerics", "keys", "objects", "finished"}


@dataclass(frozen=True)
class Root:
    """A resolved study, the ``keys`` of its entries, and ``objects`` that no entry names (your own data).

    A root that is not ``finished`` belongs to a run under way or killed. It also reaches every entry that was computed
    under its name.
    """

    study: Document
    numerics: Document
    keys: frozenset[str]
    objects: frozenset[str] = frozenset()
    finished: bool = True

    @property
    def name(self) -> str:
        """The study's name."""
        return str(self.study["name"])

    @property
    def digest(self) -> str:
        """The name of the root."""
        return digest(canonical({"study": self.study, "numerics": self.numerics}))

    @property
    def file(self) -> str:
        """Its file in a store."""
        return study_name(self.digest)

    def document(self) -> Document:
        """The root as JSON."""
        lists = {"keys": sorted(self.keys), "objects": sorted(self.objects)}
        return {"study": self.study, "numerics": self.numerics, "finished": self.finished, **lists}

    def joined(self, other: Root | None) -> Root:
        """The union of this root and another one of the same study."""
        if other is None:
            return self
        finished = self.finished and other.finished
        return replace(self, keys=self.keys | other.keys, objects=self.objects | other.objects, finished=finished)


def of_run(
    study: Document, numerics: Document, keys: Iterable[str], problem: Mapping[str, Any] | None, finished: bool
) -> Root:
    """The root of a run; ``problem`` is the description of its problem, which may name an object with its data."""
    spec = problem or {}
    data = spec.get("stored") or spec.get("data", {}).get("object")  # its place in runs before version 0.2
    return Root(study, numerics, frozenset(keys), frozenset([data] if data else []), finished)


def of_manifest(manifest: Document) -> Root:
    """The root of a finished run, from its manifest."""
    keys = [cell["key"] for cell in manifest["cells"] if cell["key"] and cell["status"] == "done"]
    return of_run(manifest["study"], manifest["numerics"], keys, manifest["problem"], finished=True)


def begin(store: Store, root: Root) -> None:
    """Record a run that begins, and mark the entries it has found as in use."""
    for key in root.keys:
        store.touch(key)
    join(store, root)


def join(store: Store, root: Root) -> None:
    """Add a root to the record of its study; a damaged record is set aside."""
    before = store.find(root.file, parse_root)
    store.write(root.file, sealed(root.joined(before).document()))


def finish(store: Store, root: Root) -> None:
    """Record a run that has ended: its root replaces what was recorded."""
    store.write(root.file, sealed(root.document()))


def roots(store: Store) -> list[Root]:
    """All roots. StoreError if one is damaged or cannot be read, since its keys are then unknown."""
    found = []
    for name in _names(store):
        try:
            with store_errors(f"cannot read the store in {store.where}", but=FileNotFoundError):
                found.append(checked_read(store.files, name, parse_root))
        except FileNotFoundError:
            continue
        except DamagedEntry:
            raise StoreError(
                f"{name} in {store.where} is damaged, so the entries of its study are not known; `sublevel verify` "
                "sets it aside, and a run of the study writes it again"
            ) from None
    return found


def check(store: Store) -> None:
    """Set damaged roots aside."""
    for name in _names(store):
        store.find(name, parse_root)


def named(found: Iterable[Root], word: str) -> list[Root]:
    """The roots of that name, or whose digest starts with it. ConfigError if none match."""
    known = list(found)
    chosen = [root for root in known if root.name == word]
    if not chosen and re.fullmatch(r"[0-9a-f]{6,64}", word):
        chosen = [root for root in known if root.digest.startswith(word)]
    if not chosen:
        raise ConfigError(f"the store knows no study {word!r}{nearest(word, {root.name for root in known})}")
    return chosen


def used(body: Document) -> Iterator[str]:
    """The digests that an entry names: its objects, and those among its inputs."""
    yield from kept_objects(body)
    yield from _digests(body.get("inputs"))


def _names(store: Store) -> list[str]:
    with store_errors(f"cannot read the store in {store.where}"):
        return [file.name for file in store.files.files(STUDIES) if file.name.endswith(".json")]


def parse_root(data: bytes) -> Root | None:
    """The root from the bytes of its file; None for invalid bytes."""
    body = unsealed(data)
    try:
        if body is None or set(body) != FIELDS or not all(map(DIGEST.fullmatch, [*body["keys"], *body["objects"]])):
            return None
        if not isinstance(body["study"], dict) or not isinstance(body["numerics"], dict):
            return None
        keys, objects = frozenset(body["keys"]), frozenset(body["objects"])
        root = Root(body["study"], body["numerics"], keys, objects, bool(body["finished"]))
        return root if root.name else None
    except (KeyError, TypeError):
        return None


def _digests(value: Any) -> Iterator[str]:
    if isinstance(value, str) and DIGEST.fullmatch(value):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _digests(each)
    elif isinstance(value, list):
        for each in value:
            yield from _digests(each)
