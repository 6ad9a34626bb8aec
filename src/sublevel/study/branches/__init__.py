"""Branches: ways to find a sparse solution at a level. Every module in this folder is imported, and registers its own.

A branch is ``f(b, level) -> Solution``; ``b`` is the `Builder` of one seed, and ``b.solve(name, level)`` is another
branch's solution (level 0: the dense one). Cells that several branches share are one cell.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules

from sublevel.study.builder import ABOUT

for found in iter_modules(__path__):
    import_module(f"{__name__}.{found.name}")


def about(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """What a report says of some branches: of each its ``summary``, and the work that it cites."""
    return {name: ABOUT[name] for name in sorted(set(names)) if name in ABOUT}
