"""The store: what cells have computed, kept by content and shared by concurrent runs."""

from sublevel.study.store.backend import Backend, File, Folder
from sublevel.study.store.content import Document, canonical, digest, serialised
from sublevel.study.store.entries import FORMAT, Store, cell_name, object_name
from sublevel.study.store.leases import Leases

__all__ = [
    "FORMAT",
    "Backend",
    "Document",
    "File",
    "Folder",
    "Leases",
    "Store",
    "canonical",
    "cell_name",
    "digest",
    "object_name",
    "serialised",
]
