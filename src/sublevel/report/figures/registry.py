"""The one registry of figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sublevel.report.describe import Figure
from sublevel.report.frame import Frame

Tables = dict[str, Frame]
Make = Callable[[Tables], Figure | list[Figure]]

SECTIONS = (
    "Accuracy",
    "The two legs of a level",
    "Paths between solutions",
    "Connected sublevel sets",
    "Planes",
    "Curvature",
    "Volume",
    "Layers and masks",
)


@dataclass(frozen=True)
class Entry:
    """A registered figure: where it stands, its name (for the sentence on what is missing), its function."""

    section: str
    name: str
    make: Make


FIGURES: list[Entry] = []


def figure(section: str, name: str) -> Callable[[Make], Make]:
    """Register a function of the clean tables as a figure of a section."""
    if section not in SECTIONS:
        raise ValueError(f"unknown section {section!r} of the report; allowed: {', '.join(SECTIONS)}")

    def register(make: Make) -> Make:
        FIGURES.append(Entry(section, name, make))
        return make

    return register
