"""Branches: ways to find a sparse network at a level. Every module in this folder is imported and registers branches.

A branch is ``f(b, level) -> Solution``; ``b`` is the `Builder` of one seed; ``b.solve(name, level)`` is the solution
of another branch (level 0: the dense one). Equal cells of several branches are computed once.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from pkgutil import iter_modules

from sublevel.study.builder import ABOUT

for found in iter_modules(__path__):
    import_module(f"{__name__}.{found.name}")


def about(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """The words of a report on some branches: for each its ``summary``, and the work that it cites."""
    return {name: ABOUT[name] for name in sorted(set(names)) if name in ABOUT}
