"""The built-in networks: all modules of this folder are imported, and ``@model`` registers their networks."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

for found in iter_modules(__path__):
    import_module(f"{__name__}.{found.name}")
