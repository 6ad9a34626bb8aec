"""The store: what cells have computed, kept by content and shared by concurrent runs.

`entries` says what is in it, `backend` and `remote` where its files are, `address` how such a place is named, `leases`
who computes what at the moment, `roots` which studies it is kept for, `garbage` what can go, `archive` and `merge` how
results travel between stores.
"""

from sublevel.study.store.address import absolute, is_url, opened, relative, resolved
from sublevel.study.store.archive import Archive, write_archive
from sublevel.study.store.backend import Backend, File, Folder, refusing
from sublevel.study.store.content import Document, canonical, digest, serialised
from sublevel.study.store.entries import FORMAT, Store, cell_name, object_name
from sublevel.study.store.garbage import Collected, collect
from sublevel.study.store.leases import Leases
from sublevel.study.store.merge import Merged, merge
from sublevel.study.store.roots import Root

__all__ = [
    "FORMAT",
    "Archive",
    "Backend",
    "Collected",
    "Document",
    "File",
    "Folder",
    "Leases",
    "Merged",
    "Root",
    "Store",
    "absolute",
    "canonical",
    "cell_name",
    "collect",
    "digest",
    "is_url",
    "merge",
    "object_name",
    "opened",
    "refusing",
    "relative",
    "resolved",
    "serialised",
    "write_archive",
]
