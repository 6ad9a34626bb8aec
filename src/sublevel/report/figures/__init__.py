"""Every figure of the report: table in, figure out.

To add one, write a function from the clean tables to a ``Figure`` (or several) in a file of this folder
and put ``@figure(section, name, table)`` above it: every file of this folder is imported. The report, the print files
and the tests then have it. A figure whose views have nothing to show is left out, and its name is reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pkgutil import iter_modules

from sublevel.claims.branches import Branches
from sublevel.report.describe import Figure, Series
from sublevel.report.figures.registry import FIGURES, SECTIONS, Registered
from sublevel.report.frame import Frame, Tables
from sublevel.report.palette import Style, styles
from sublevel.report.prepare import clean, only_measured, without_sweep

__all__ = ["FIGURES", "NOTHING", "SECTIONS", "UNMEASURED", "Drawn", "Missing", "figures"]

for module in iter_modules(__path__):
    import_module(f"{__name__}.{module.name}")


@dataclass(frozen=True)
class Missing:
    """A figure that is not drawn, and why."""

    name: str
    why: str


UNMEASURED = "not measured in this study"
NOTHING = "measured, but no usable values"


@dataclass(frozen=True)
class Drawn:
    """The figures of a study by section, and those that are missing with the reason."""

    sections: dict[str, list[Figure]]
    missing: list[Missing]

    @property
    def all(self) -> list[Figure]:
        """Every figure in the order of the page."""
        return [f for group in self.sections.values() for f in group]


def figures(tables: Mapping[str, Frame]) -> Drawn:
    """Describe every figure for which the tables hold data, in the order of ``SECTIONS``."""
    whole = clean(tables)
    ready = without_sweep(whole)
    sections: dict[str, list[Figure]] = {name: [] for name in SECTIONS}
    missing: list[Missing] = []
    kind = "checkpoints" if only_measured(whole["levels"]) else "study"
    for each in sorted((f for f in FIGURES if f.of in (kind, "both")), key=lambda e: SECTIONS.index(e.section)):
        shown, why = _made(each, whole if each.sweep else ready)
        sections[each.section] += shown
        if why:
            missing.append(Missing(each.name, why))
    found = Drawn({k: v for k, v in sections.items() if v}, missing)
    series = [s for f in found.all for v in f.views for p in v.panels for s in p.series]
    look = styles(ready["levels"]["branch"], {s.branch or s.label for s in series if not s.style.colour})
    return replace(found, sections={k: [with_looks(f, look) for f in v] for k, v in found.sections.items()})


def with_looks(figure: Figure, look: Mapping[str, Style]) -> Figure:
    """The figure with the look of its branch for every series that asks for it: the same in all figures of a study."""

    def finished(s: Series) -> Series:
        own = look.get(s.branch or s.label, s.style)
        return s if s.style.colour else replace(s, style=replace(own, marker=s.style.marker or own.marker))

    views = [
        replace(v, panels=tuple(replace(p, series=[*map(finished, p.series)]) for p in v.panels)) for v in figure.views
    ]
    return replace(figure, views=tuple(views))


def _made(each: Registered, tables: Tables) -> tuple[list[Figure], str]:
    """The figures of one function, or none and the reason.

    A table that the function cannot take costs this figure and no other: the page says which, and what happened.
    """
    known = each.table in tables and not tables[each.table].empty
    if not known or (each.sweep and not Branches(tables["levels"]).steps()):
        return [], UNMEASURED
    try:
        made = each.make(tables)
    except Exception as fault:
        return [], f"its function failed on this table ({type(fault).__name__}: {fault})"
    found = []
    for f in [made] if isinstance(made, Figure) else made:
        views = tuple(v for v in f.views if v.panels)
        found += [replace(f, views=views, notes=tuple(n for n in f.notes if n))] if views else []
    return found, "" if found else NOTHING
