"""Roots: the studies that a store is kept for, each with the keys of the entries that it reaches.

A run writes ``studies/DIGEST.json`` when it begins and when it has finished; the digest is that of its resolved study
and its numerics class, so that the same study on the same kind of device has one root, wherever its run folder is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sublevel.engine.store.backend import refusing
from sublevel.engine.store.content import DIGEST, Document, canonical, digest, sealed, unsealed
from sublevel.engine.store.entries import Store, checked_read, there
from sublevel.engine.store.names import STUDIES, study_name
from sublevel.errors import ConfigError, DamagedEntry, StoreError, nearest

FIELDS = {"study", "numerics", "keys", "objects", "finished"}


@dataclass(frozen=True)
class Root:
    """A resolved study, and what it reaches: ``keys`` of entries, ``objects`` that no entry names (the user's data).

    One that is not ``finished`` belongs to a run under way, or to one that was killed; it also reaches every entry
    that was computed under its name.
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
        """What the root is called by."""
        return digest(canonical({"study": self.study, "numerics": self.numerics}))

    @property
    def file(self) -> str:
        """Where it stands in a store."""
        return study_name(self.digest)

    def document(self) -> Document:
        """The root as JSON."""
        lists = {"keys": sorted(self.keys), "objects": sorted(self.objects)}
        return {"study": self.study, "numerics": self.numerics, "finished": self.finished, **lists}

    def joined(self, other: Root | None) -> Root:
        """The root with what another one of the same study reaches."""
        if other is None:
            return self
        finished = self.finished and other.finished
        return replace(self, keys=self.keys | other.keys, objects=self.objects | other.objects, finished=finished)


def of_run(
    study: Document, numerics: Document, keys: Iterable[str], problem: Mapping[str, Any] | None, finished: bool
) -> Root:
    """The root of a run; ``problem`` is the description of its problem, which may name an object with its data."""
    spec = problem or {}
    data = spec.get("stored") or spec.get("data", {}).get("object")  # where runs before version 0.2 have it
    return Root(study, numerics, frozenset(keys), frozenset([data] if data else []), finished)


def of_manifest(manifest: Document) -> Root:
    """The root that the manifest of a finished run stands for."""
    keys = [cell["key"] for cell in manifest["cells"] if cell["key"] and cell["status"] == "done"]
    return of_run(manifest["study"], manifest["numerics"], keys, manifest["problem"], finished=True)


def begin(store: Store, root: Root) -> None:
    """Note a run under way, and that it uses the entries it has found; what it reached before, it may reach again."""
    for key in root.keys:
        store.touch(key)
    join(store, root)


def join(store: Store, root: Root) -> None:
    """Note a root beside what is known of its study; what is damaged is set aside."""
    before = store.find(root.file, whole_root)
    store.write(root.file, sealed(root.joined(before).document()))


def finish(store: Store, root: Root) -> None:
    """Note a run that has come to its end: from now on it reaches just this."""
    store.write(root.file, sealed(root.document()))


def roots(store: Store) -> list[Root]:
    """All of them. StoreError if one is damaged or cannot be read: what it reaches is not known."""
    found = []
    for name in _names(store):
        try:
            with refusing(f"cannot read the store in {store.where}", but=FileNotFoundError):
                found.append(checked_read(store.files, name, whole_root))
        except FileNotFoundError:
            continue
        except DamagedEntry:
            raise StoreError(
                f"{name} in {store.where} is damaged: what its study reaches is not known; `sublevel verify` sets "
                "it aside, and a run of the study writes it anew"
            ) from None
    return found


def check(store: Store) -> None:
    """Set damaged roots aside."""
    for name in _names(store):
        store.find(name, whole_root)


def named(found: Iterable[Root], word: str) -> list[Root]:
    """The roots of that name, or the one whose digest begins so. ConfigError if there is none."""
    known = list(found)
    chosen = [root for root in known if root.name == word]
    if not chosen and re.fullmatch(r"[0-9a-f]{6,64}", word):
        chosen = [root for root in known if root.digest.startswith(word)]
    if not chosen:
        raise ConfigError(f"the store knows no study {word!r}{nearest(word, {root.name for root in known})}")
    return chosen


def used(body: Document) -> Iterator[str]:
    """The digests that an entry names: its own objects, and in its inputs those that it was computed from."""
    yield from there(body)
    yield from _digests(body.get("inputs"))


def _names(store: Store) -> list[str]:
    with refusing(f"cannot read the store in {store.where}"):
        return [file.name for file in store.files.files(STUDIES) if file.name.endswith(".json")]


def whole_root(data: bytes) -> Root | None:
    """The root from the bytes of its file, None for what is none."""
    return parsed(unsealed(data))


def parsed(body: Document | None) -> Root | None:
    """The way back from `Root.document`; None for anything else."""
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
