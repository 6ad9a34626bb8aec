"""Every measurement of a study: one file each, named below."""

from __future__ import annotations

from sublevel.study.measurements import (  # noqa: F401 - each registers itself
    connect,
    coordinates,
    density,
    legs,
    overlaps,
    pairs,
    paths,
    planes,
    prunings,
    solution,
    spectra,
    topology,
    training,
    volumes,
)
from sublevel.study.measurements.base import EMITTERS, Scene

__all__ = ["Scene", "add"]


def add(scene: Scene) -> None:
    """Add the cells of every measurement that the study asks for."""
    solution.add(scene)
    for name, emit in EMITTERS.items():
        block = getattr(scene.spec.geometry, name)
        if block is not None:
            emit(scene, block)
