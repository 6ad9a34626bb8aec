"""The store: results of cells, addressed by content and shared by concurrent runs.

- `entries`: reading and writing objects and entries; `names`: their file names; `content`: bytes and digests.
- `backend`: the file operations; `folder` and `remote`: where they happen; `address`: how a place is named.
- `leases`: which run computes which cell now; `roots`: the studies that a store serves.
- `garbage`, `verify`, `index`: upkeep; `archive`, `merge`: results that travel between stores.
"""

from sublevel.engine.store.address import opened, user_address
from sublevel.engine.store.backend import store_errors
from sublevel.engine.store.content import Document, canonical, digest, serialised
from sublevel.engine.store.entries import Store
from sublevel.engine.store.folder import Folder
from sublevel.engine.store.leases import Leases
from sublevel.engine.store.names import cell_name, object_name
from sublevel.engine.store.roots import Root

__all__ = [
    "Document", "Folder", "Leases", "Root", "Store", "canonical", "cell_name", "digest", "object_name", "opened",
    "serialised", "store_errors", "user_address",
]  # fmt: skip
