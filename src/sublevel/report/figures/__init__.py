"""Every figure of the report: table in, figure out.

To add one, write a function from the clean tables to a ``Figure`` (or several) in a file of this folder
and put ``@figure(section, name)`` above it; a new file is named below. The report, the print files and the
tests then have it. A figure whose views have nothing to show is left out, and its name is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from sublevel.report.describe import Figure
from sublevel.report.figures import (
    accuracy,
    coordinates,
    curvature,
    densities,
    layers,
    legs,
    membership,
    paths,
    planes,
    steepest,
    tree,
    volume,
    volume_methods,
)
from sublevel.report.figures.registry import FIGURES, SECTIONS
from sublevel.report.frame import Frame
from sublevel.report.prepare import clean

__all__ = [
    "FIGURES",
    "SECTIONS",
    "Drawn",
    "accuracy",
    "coordinates",
    "curvature",
    "densities",
    "figures",
    "layers",
    "legs",
    "membership",
    "paths",
    "planes",
    "steepest",
    "tree",
    "volume",
    "volume_methods",
]


@dataclass(frozen=True)
class Drawn:
    """The figures of a study by section, and the names of those that had no data."""

    sections: dict[str, list[Figure]]
    missing: list[str]

    @property
    def all(self) -> list[Figure]:
        """Every figure in the order of the page."""
        return [f for group in self.sections.values() for f in group]


def figures(tables: Mapping[str, Frame]) -> Drawn:
    """Describe every figure for which the tables hold data, in the order of ``SECTIONS``."""
    ready = clean(tables)
    sections: dict[str, list[Figure]] = {name: [] for name in SECTIONS}
    missing: list[str] = []
    for entry in sorted(FIGURES, key=lambda e: SECTIONS.index(e.section)):
        made = entry.make(ready)
        made = [made] if isinstance(made, Figure) else made
        shown = [f for f in map(_without_empty, made) if f.views]
        sections[entry.section] += shown
        if not shown:
            missing.append(entry.name)
    return Drawn({k: v for k, v in sections.items() if v}, missing)


def _without_empty(figure: Figure) -> Figure:
    return replace(figure, views=tuple(v for v in figure.views if v.panels), notes=tuple(n for n in figure.notes if n))
