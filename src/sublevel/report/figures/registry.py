"""The one registry of figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sublevel.report.describe import Figure
from sublevel.report.frame import Tables

Of = Literal["study", "checkpoints", "both"]
Make = Callable[[Tables], Figure | list[Figure]]

SECTIONS = (
    "Accuracy",
    "What pruning and retraining do",
    "Paths and barriers",
    "Sublevel sets",
    "Planes",
    "Curvature",
    "Volume",
    "Appendix",
)
"""In the order of the argument: whether tickets match, what a level does, where its solutions lie, how curved and
how large their basins are."""


@dataclass(frozen=True)
class Registered:
    """A registered figure: where it stands, its name (for what is missing), its first table, its function."""

    section: str
    name: str
    table: str
    make: Make
    sweep: bool = False
    of: Of = "study"


FIGURES: list[Registered] = []


def figure(section: str, name: str, table: str, *, sweep: bool = False, of: Of = "study") -> Callable[[Make], Make]:
    """Register a function of the clean tables as a figure of a section.

    ``table`` is the one without which there is no figure. A figure with ``sweep`` also sees the branches of a sweep
    of the fraction. ``of`` says whether it shows a study, checkpoints that were trained elsewhere, or both.
    """
    if section not in SECTIONS:
        raise ValueError(f"unknown section {section!r} of the report; allowed: {', '.join(SECTIONS)}")

    def register(make: Make) -> Make:
        FIGURES.append(Registered(section, name, table, make, sweep, of))
        return make

    return register
