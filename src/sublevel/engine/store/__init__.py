"""The store: what cells have computed, kept by content and shared by concurrent runs.

`entries` says what is in it, `names` where each thing stands, `backend` what can be done with files, `folder` and
`remote` where they are, `address` how such a place is named, `leases` who computes what at the moment, `roots` which
studies it is kept for, `garbage` what can go, `archive` and `merge` how results travel between stores.
"""

from sublevel.engine.store.address import absolute, is_url, opened, relative, resolved, trusted, user_address
from sublevel.engine.store.archive import Archive, write_archive
from sublevel.engine.store.backend import Backend, File, passing, patiently, reason, refusing
from sublevel.engine.store.content import Document, canonical, digest, serialised
from sublevel.engine.store.entries import FORMAT, Store
from sublevel.engine.store.folder import Folder
from sublevel.engine.store.garbage import Collected, collect
from sublevel.engine.store.leases import Leases
from sublevel.engine.store.merge import Merged, merge
from sublevel.engine.store.names import cell_name, object_name, partial_name
from sublevel.engine.store.roots import Root

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
    "partial_name",
    "passing",
    "patiently",
    "reason",
    "refusing",
    "relative",
    "resolved",
    "serialised",
    "trusted",
    "user_address",
    "write_archive",
]
