"""The measurements of a study. Every module in this folder is imported, and registers its measurement."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from sublevel.study.measurements.base import MEASUREMENTS, Measurement, Scene
from sublevel.train.recipe import Duration

for found in iter_modules(__path__):
    import_module(f"{__name__}.{found.name}")

__all__ = ["MEASUREMENTS", "Scene", "add", "marks"]


def add(scene: Scene, geometry: Any) -> None:
    """Add the cells of all measurements of a study; those that belong to every study come first."""
    for each in MEASUREMENTS.values():
        if each.options is None:
            each.cells(scene, None)
    for each, block in asked(geometry):
        each.cells(scene, block)


def marks(geometry: Any) -> dict[str, Sequence[Duration]]:
    """The steps at which measurements need a checkpoint of the dense run, by the key that sets them."""
    return {key: steps for each, block in asked(geometry) for key, steps in each.marks(block).items()}


def asked(geometry: Any) -> Iterator[tuple[Measurement, Any]]:
    """The measurements with a block in the study, and the blocks."""
    for name, each in MEASUREMENTS.items():
        if each.options is not None and (block := getattr(geometry, name)) is not None:
            yield each, block
