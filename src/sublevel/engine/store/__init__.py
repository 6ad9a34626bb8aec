"""The store: what cells have computed, kept by content and shared by concurrent runs.

`entries` says what is in it, `names` where each thing stands, `backend` what can be done with files, `folder` and
`remote` where they are, `address` how such a place is named, `leases` who computes what at the moment, `roots` which
studies it is kept for, `garbage` what can go, `archive` and `merge` how results travel between stores.
"""

from sublevel.engine.store.address import opened, user_address
from sublevel.engine.store.backend import refusing
from sublevel.engine.store.content import Document, canonical, digest, serialised
from sublevel.engine.store.entries import Store
from sublevel.engine.store.folder import Folder
from sublevel.engine.store.leases import Leases
from sublevel.engine.store.names import cell_name, object_name
from sublevel.engine.store.roots import Root

__all__ = [
    "Document", "Folder", "Leases", "Root", "Store", "canonical", "cell_name", "digest", "object_name", "opened",
    "refusing", "serialised", "user_address",
]  # fmt: skip
