"""Every measurement of a study: every module in this folder is imported, and registers what it measures."""

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
    """Add the cells of every measurement that a study asks for, first of those that belong to every study."""
    for each in MEASUREMENTS.values():
        if each.options is None:
            each.cells(scene, None)
    for each, block in asked(geometry):
        each.cells(scene, block)


def marks(geometry: Any) -> dict[str, Sequence[Duration]]:
    """The steps at which measurements need a checkpoint of the dense run, by the keys that ask for them."""
    return {key: steps for each, block in asked(geometry) for key, steps in each.marks(block).items()}


def asked(geometry: Any) -> Iterator[tuple[Measurement, Any]]:
    """The measurements whose blocks a study has."""
    for name, each in MEASUREMENTS.items():
        if each.options is not None and (block := getattr(geometry, name)) is not None:
            yield each, block
