"""The built-in networks: every module in this folder is imported, and its ``@model`` lines register it."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

for found in iter_modules(__path__):
    import_module(f"{__name__}.{found.name}")
