"""Which view of a described figure is drawn, and the description of single objects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

import pandas as pd

from sublevel.errors import ConfigError, unknown
from sublevel.plot.objects import named, rows
from sublevel.report.describe import Figure, Panel, Series, View
from sublevel.report.figures import with_looks
from sublevel.report.figures.coordinates import slices
from sublevel.report.figures.curvature import spectra
from sublevel.report.figures.densities import curves, densities
from sublevel.report.figures.layers import layer_density
from sublevel.report.figures.paths import along
from sublevel.report.figures.planes import persistence, planes
from sublevel.report.figures.sublevel_sets import SublevelSet
from sublevel.report.figures.tree import disconnectivity
from sublevel.report.figures.volume_methods import by_method
from sublevel.report.numbers import plain
from sublevel.report.palette import BRANCHES, SPARE, Style
from sublevel.report.prepare import clean
from sublevel.report.terms import shown

MAKERS: Mapping[str, tuple[str, Any]] = {
    "planes": ("planes", planes),
    "spectra": ("spectra", spectra),
    "densities": ("densities", densities),
    "smoothed": ("smoothed", curves),
    "profiles": ("profiles", along),
    "persistence": ("persistence", persistence),
    "disconnectivity": ("tree", disconnectivity),
    "slices": ("slices", slices),
    "volume-methods": ("volumes", by_method),
    "layers": ("layers", layer_density),
}
"""Key -> the table that an object must fill, and the function of the report that draws it."""

EMPTY = {
    "levels": ("branch", "level", "seed", "density", "train_loss"),
    "landmarks": ("plane", "seed", "name", "branch", "level", "step", "x", "y", "residual"),
    "seams": ("plane", "seed", "x0", "y0", "x1", "y1", "jump"),
    "joins": ("of", "a", "b", "height_a", "height_b", "maximum"),
}
"""Tables that a figure looks into, though no object fills them."""


def described(of: Any, key: str, *, level: float | None = None) -> Figure:
    """The figure of one object or of several by name, as the report would draw it.

    Raises ConfigError for an object that this figure is not of.
    """
    tables: dict[str, list[dict[str, Any]]] = defaultdict(list)
    objects = named(of)
    for number, (name, each) in enumerate(objects.items()):
        for part in each if isinstance(each, list | tuple) else [each]:
            for table, made in rows(part, "" if name.isdecimal() and key != "layers" else name, number).items():
                tables[table] += made
    frames = {name: pd.DataFrame(columns=list(columns)) for name, columns in EMPTY.items()}
    ready = clean(frames | {name: pd.DataFrame(made) for name, made in tables.items() if made})
    around = None if level is None else SublevelSet(level, f"sublevel set: loss ≤ {plain(level, 3)}", "the level given")
    key = "smoothed" if key == "densities" and tables["smoothed"] else key
    table, make = MAKERS.get(key, ("", None))
    kinds = ", ".join(sorted({type(o).__name__ for o in objects.values()}))
    if make is None or not tables.get(table):
        raise ConfigError(f"the figure {key!r} cannot be drawn from {kinds or 'nothing'}")
    made = cast("Any", planes)(ready, around) if key == "planes" else make(ready)
    if not any(v.panels for v in made.views):
        raise ConfigError(f"there is nothing finite to draw in {kinds}")
    return _with_names(with_looks(made, _looks(made)), list(objects))


def _looks(one: Figure) -> dict[str, Style]:
    """The look of each network in a figure: its branch's, or the first that no other one has."""
    series = (s for v in one.views for p in v.panels for s in p.series if not s.style.colour)
    labels = list(dict.fromkeys(s.branch or s.label for s in series))
    free = iter([*(look for name, look in BRANCHES.items() if name not in ("dense", *labels)), *SPARE] * len(labels))
    return {label: BRANCHES.get(label) or next(free) for label in labels}


def _with_names(one: Figure, names: list[str]) -> Figure:
    """The names of several objects in place of numbers: for lines called ``level 3``, and for the columns of a map."""
    words = {f"level {i}": name or "path" for i, name in enumerate(names)}
    ticks = tuple((float(i), name) for i, name in enumerate(names) if name)

    def renamed(panel: Panel) -> Panel:
        if panel.heat is not None:
            return replace(panel, x=replace(panel.x, title="", ticks=ticks))
        return replace(panel, series=[replace(s, label=words.get(s.label, s.label)) for s in panel.series])

    return replace(one, views=[replace(v, panels=tuple(map(renamed, v.panels))) for v in one.views], notes=())


def chosen(one: Figure, choice: Mapping[str, Any], panel: str = "") -> tuple[View, str]:
    """The first view that has all of a choice, and the title with what tells it from the other views.

    ``branch`` (a name or several) keeps the lines of these branches where no view is of a single one. ``panel`` is the
    beginning of a panel's title.
    """
    views, choice = list(one.views), dict(choice)
    known = {
        word: list(dict.fromkeys(v.choice[word] for v in views if word in v.choice)) for v in views for word in v.choice
    }
    kept: list[str] | None = None
    if "branch" in choice and "branch" not in known:
        kept = [choice.pop("branch")] if isinstance(choice["branch"], str) else list(choice.pop("branch"))
        labels = sorted({s.branch or s.label for v in views for p in v.panels for s in p.series})
        for branch in kept:
            if branch not in labels:
                raise unknown("branch", branch, labels, f"the figure {one.key!r}")
    for word, value in choice.items():
        if word not in known:
            raise unknown("choice", word, [*known, "backend", "ax", "panel", "caption"], f"the figure {one.key!r}")
        wanted = {shown(word, value), str(value)} if isinstance(value, str) else {f"{value:g}", str(value)}
        views = [v for v in views if v.choice.get(word) in wanted]
        if not views:
            raise unknown(word, value, known[word], f"the figure {one.key!r}")
    found = views[0]
    panels = [p for p in found.panels if p.title.lower().startswith(panel.lower())]
    if not panels:
        raise unknown("panel", panel, [p.title for p in found.panels], f"the figure {one.key!r}")
    if kept is not None:
        panels = [replace(p, series=[s for s in p.series if _of(s, kept)]) for p in panels]
    return replace(found, panels=tuple(panels)), one.titled(found)


def _of(series: Series, branches: list[str]) -> bool:
    return (series.branch or series.label) in (*branches, "dense", "chance")
