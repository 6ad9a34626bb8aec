"""What a figure is, before anything draws it: plain frozen data.

A ``Figure`` has one or more ``View``s (the choices that a reader makes: a branch, a split), a view has
``Panel``s, a panel has ``Series``, one ``Heat``, or one ``Landscape`` with ``Series`` on it. No back end's
vocabulary enters here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

import numpy as np

from sublevel.report.numbers import percent, plain
from sublevel.report.palette import HEAT, OUTSIDE, Style
from sublevel.report.terms import rank

Numbers = Sequence[float]
Ticks = tuple[tuple[float, str], ...]
"""(value, text) pairs."""
SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


SHARE = (-2.0, 102.0)
"""What an axis of percentages shows at most: 0 to 100, with room for a marker."""

NONE = (-0.02, 1.0)
"""What an axis of percentages shows where all of them are 0."""

CONTOURS = 16
"""Steps of height between the lowest and the highest colour of a landscape."""

INSIDE = 4
"""Contours below the level of a landscape."""

LIFT = 0.035
"""How far what lies on a surface is drawn above it, as a share of the heights: the surface would cover it."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis. ``ticks`` are (value, text) pairs; empty leaves the choice to the back end.

    ``hover`` is a d3 format for values under the pointer (``.3~p`` is a percentage of 3 digits); empty leaves
    the value out, where the place on the axis is not the quantity itself. ``bare``: no numbers and no ticks,
    since only the order along the axis means something. ``limits``: what is seen at first, where it is not all.
    ``share``: a percentage of a whole, of which no interval reaches below 0 or above 100.
    """

    title: str = ""
    log: bool = False
    reverse: bool = False
    ticks: Ticks = ()
    hover: str = ".4~g"
    bare: bool = False
    limits: tuple[float, float] | None = None
    share: bool = False


@dataclass(frozen=True, kw_only=True)
class PerSeed:
    """What a mean over seeds was taken from: value ``y`` of seed ``seed`` belongs to point ``at`` of the series.

    ``geometric``: the mean is that of the logarithms. ``dots``: the single seeds are drawn behind the mean. With
    these a reader can leave seeds out, and the page takes mean and interval again over those that are left.
    """

    seed: Numbers
    at: Sequence[int]
    y: Numbers
    geometric: bool = False
    dots: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points in the plane with an optional interval, drawn as one thing with one name.

    ``mode``: ``line``, ``both`` (line and markers) or ``points``. ``low`` and ``high`` are the ends of the
    interval, drawn as ``bars`` or as a ``band``. ``hollow`` marks the points that should not be trusted in full;
    ``hover`` adds a text to each, ``about`` one to all. A line is broken at every y that is not finite. ``z``: the
    heights of the points in a solid landscape. ``branch``: whose it is, where the label does not say so. ``note``: a
    text that stands above (or ``below``) the first point of a series on a landscape, instead of a line in the legend;
    ``align`` says whether it begins (left), is centred or ends (right) there. ``samples``: the single seeds
    of a mean; ``seeds``: the seed of each point, where points are single networks.
    """

    label: str
    x: Numbers
    y: Numbers
    style: Style
    mode: Literal["line", "both", "points"] = "both"
    low: Numbers | None = None
    high: Numbers | None = None
    interval: Literal["bars", "band"] = "bars"
    hollow: Sequence[bool] = ()
    hover: Sequence[str] = ()
    legend: bool = True
    z: Numbers | None = None
    about: str = ""
    branch: str = ""
    samples: PerSeed | None = None
    seeds: Numbers = ()
    note: str = ""
    below: bool = False
    align: Literal["left", "center", "right"] = "center"


@dataclass(frozen=True, kw_only=True)
class Heat:
    """A matrix of values with named rows; ``z[row][column]``, NaN where there is none."""

    x: Numbers
    rows: Sequence[str]
    z: Sequence[Numbers]
    title: str
    low: float = 0.0
    high: float = 1.0

    @property
    def ticks(self) -> Ticks:
        """Five values of the colour scale, which is logarithmic, as percentages."""
        marks = [self.low + (self.high - self.low) * i / 4 for i in range(5)]
        return tuple((m, percent(10**m)) for m in marks)


@dataclass(frozen=True, kw_only=True)
class Landscape:
    """Heights over a rectangle: ``z[row][column]`` at ``(x[column], y[row])``, NaN where nothing is known.

    Drawn as filled contours, or as a surface in three dimensions where ``solid``. ``z`` is what is drawn
    (a logarithm, say); ``ticks`` say in words what some heights mean, and ``texts`` what each of them means.
    Colours run from ``low`` to ``high``. With a ``level`` they end there, and what lies above it is grey.
    """

    x: Numbers
    y: Numbers
    z: Sequence[Numbers]
    texts: Sequence[Sequence[str]]
    title: str
    low: float
    high: float
    ticks: Ticks
    solid: bool = False
    level: float | None = None

    @property
    def step(self) -> float:
        """The height between two contours: at least `INSIDE` lie below the level, where that is possible."""
        whole = self.high - self.low
        below = whole if self.level is None or not self.low < self.level < self.high else self.level - self.low
        return min(whole / CONTOURS, max(below / INSIDE, whole / (4 * CONTOURS)))

    @property
    def contours(self) -> list[float]:
        """The heights between ``low`` and ``high`` at which the colour changes: evenly spaced, ``level`` among them."""
        first = self.low if self.level is None else self.level
        count = 5 * CONTOURS
        steps = (first + i * self.step for i in range(-count, count))
        inside = [v for v in steps if self.low + self.step / 20 < v < self.high - self.step / 20]
        return inside or [(self.low + self.high) / 2]

    def stops(self, low: float, high: float) -> list[tuple[float, str]]:
        """The colours from ``low`` to ``high`` as (share, colour), with a leap from colour to grey at ``level``."""
        share = 1.0 if self.level is None else min(max((self.level - low) / (high - low), 0.0), 1.0)
        inside = [(share * (i / (len(HEAT) - 1)), c) for i, c in enumerate(HEAT)] if share > 0 else []
        steps = [i / (len(OUTSIDE) - 1) for i in range(len(OUTSIDE))] if share < 1 else []
        return inside + [(share * (1 - s) + s, c) for s, c in zip(steps, OUTSIDE, strict=False)]

    @property
    def bands(self) -> list[tuple[float, float, str]]:
        """The bands between contours as (from, to, colour): each has the colour of its middle."""
        first, last = self.contours[0] - self.step / 2, self.contours[-1] + self.step / 2
        shares, colours = zip(*self.stops(first, last), strict=True)
        parts = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours], dtype=float)
        edges = [self.low, *self.contours, self.high]
        found = []
        for i, (start, end) in enumerate(pairwise(edges)):
            share = i / len(self.contours)
            mixed = [round(float(np.interp(share, shares, part))) for part in parts.T]
            found.append((start, end, "#" + "".join(f"{v:02x}" for v in mixed)))
        return found

    @property
    def lift(self) -> float:
        """How far above the surface its series are drawn."""
        return LIFT * (self.high - self.low)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes. Its title names the quantity on the y axis, or the height of a landscape.

    ``note`` explains a mark of this panel where the panel stands alone; the figure's own notes say it too.
    """

    title: str
    x: Axis
    y: Axis = field(default_factory=Axis)
    series: Sequence[Series] = ()
    heat: Heat | None = None
    landscape: Landscape | None = None
    note: str = ""

    @property
    def empty(self) -> bool:
        """True where nothing finite would be drawn: such a panel is left out, never shown as empty axes."""
        for matrix in (self.heat, self.landscape):
            if matrix is not None:
                return not any(math.isfinite(v) for row in matrix.z for v in row)
        return not any(math.isfinite(v) for s in self.series for v in s.y)


@dataclass(frozen=True, kw_only=True)
class View:
    """The panels for one combination of choices, for example ``{"branch": "imp", "split": "train"}``."""

    panels: Sequence[Panel]
    choice: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure with what a reader needs: how to read it, and the trap in it. ``notes`` come from the data.

    ``printed`` is how many of its views are written for print where not all are. ``pooled``: seeds cannot be
    left out of it one by one, since it holds only what was computed from all of them. ``caution`` stands over the
    figure where nothing in it is reliable.
    """

    key: str
    title: str
    views: Sequence[View]
    how: str
    trap: str
    notes: Sequence[str] = ()
    columns: int = 2
    printed: int = 1
    pooled: bool = False
    caution: str = ""

    def titled(self, view: View) -> str:
        """The title, with the choices of a view that not all views share and that cannot be seen."""
        varying = [k for k in view.choice if k != "view" and len({v.choice.get(k) for v in self.views}) > 1]
        words = ", ".join(f"{k} {view.choice[k]}" for k in varying if view.choice[k])
        return f"{self.title}{'' if self.title.endswith('?') else ':'} {words}" if words else self.title


@dataclass(frozen=True, kw_only=True)
class LegendEntry:
    """One line of a legend. ``marker`` is empty for a line alone, ``dash`` for points alone."""

    label: str
    colour: str
    marker: str
    dash: str
    hollow: bool


def view(panels: Sequence[Panel], **choice: str) -> View:
    """A view of the panels that have something to show."""
    return View(panels=tuple(_finished(p) for p in panels if not p.empty), choice=choice)


def titles(views: Sequence[View]) -> str:
    """The titles of all panels of some views, for a caption that names only what is drawn."""
    return "; ".join(p.title for v in views for p in v.panels)


def labels(views: Sequence[View], title: str = "") -> list[str]:
    """The distinct labels of what is drawn in some views, or in their panels whose title begins with ``title``."""
    found = (s for v in views for p in v.panels if p.title.startswith(title) for s in p.series)
    return list(dict.fromkeys(s.label for s in found if any(map(math.isfinite, s.y))))


def legend(drawn: View) -> list[LegendEntry]:
    """One entry per distinct label of a view, branches in their fixed order.

    With one label in the whole view the legend still says what is drawn.
    """
    found: dict[str, Series] = {}
    for s in (s for panel in drawn.panels for s in panel.series if s.legend):
        found.setdefault(s.label, s)
    return [
        LegendEntry(
            label=s.label,
            colour=s.style.colour,
            marker="" if s.mode == "line" else s.style.marker,
            dash="" if s.mode == "points" else s.style.dash,
            hollow=len(s.hollow) > 0 and all(s.hollow),
        )
        for s in sorted(found.values(), key=lambda s: rank("branch", s.label)[0])
    ]


def _finished(panel: Panel) -> Panel:
    """A panel of shares has its intervals between 0 and 100%, one with a logarithmic y axis the ticks of it."""
    if panel.y.share:
        ends = [{k: v and [min(max(e, 0.0), 100.0) for e in v] for k, v in (("low", s.low), ("high", s.high))}
                for s in panel.series]  # fmt: skip
        panel = replace(panel, series=[replace(s, **e) for s, e in zip(panel.series, ends, strict=True)])
        values = {v for s in panel.series for part in (s.y, s.low or (), s.high or (), _dots(s)) for v in part}
        if {v for v in values if math.isfinite(v)} == {0.0}:  # a back end would show negative shares
            panel = replace(panel, y=replace(panel.y, limits=NONE))
    if panel.y.log and not panel.y.ticks:
        values = [v for s in panel.series for part in (s.y, s.low or (), s.high or (), _dots(s)) for v in part]
        panel = replace(panel, y=replace(panel.y, ticks=log_ticks(values)))
    return panel


def _dots(series: Series) -> Numbers:
    """The single seeds that are drawn behind a mean."""
    return series.samples.y if series.samples is not None and series.samples.dots else ()


def log_ticks(values: Sequence[float]) -> Ticks:
    """At most about eight ticks at 1, 2, 5 or at powers of ten, over the range of some positive values.

    They are evenly spaced where fewer than two of those lie in the range. A single value has ticks a decade around it.

    >>> [text for _, text in log_ticks([0.03, 2.0])]
    ['0.02', '0.05', '0.1', '0.2', '0.5', '1', '2']
    >>> [text for _, text in log_ticks([2e-5, 3e2])]
    ['10⁻⁵', '10⁻⁴', '0.001', '0.01', '0.1', '1', '10', '100']
    >>> [text for _, text in log_ticks([76.0, 116.0])]
    ['80', '90', '100', '110']
    >>> [text for _, text in log_ticks([5.1, 16.2])]
    ['6', '8', '10', '12', '14', '16']
    >>> [text for _, text in log_ticks([0.228])]
    ['0.05', '0.1', '0.2', '0.5', '1', '2']
    """
    positive = [v for v in values if math.isfinite(v) and v > 0]
    if not positive:
        return ()
    low, high = math.log10(min(positive)), math.log10(max(positive))
    room = 0.31 if high > low else 1.0
    steps = (1, 2, 5) if high - low < 2.4 else (1, 3) if high - low < 4 else (1,)
    skip = max(1, math.ceil((high - low) / 8))
    marks = [
        s * 10.0**e for e in range(math.floor(low - room), math.ceil(high + room) + 1) for s in steps if e % skip == 0
    ]
    if high > low and (high - low < 0.5 or sum(low <= math.log10(v) <= high for v in marks) < 2):
        return _even_ticks(min(positive), max(positive))
    return tuple((v, _power(v)) for v in marks if low - room <= math.log10(v) <= high + room)


def _even_ticks(low: float, high: float) -> Ticks:
    """Three to seven round values between two positive ones, where there are as many."""
    size = 10.0 ** math.floor(math.log10(high - low))
    step = next(s * size for s in (0.2, 0.5, 1.0, 2.0, 5.0) if (high - low) / (s * size) <= 6)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple((i * step, plain(i * step, 4)) for i in range(first, last + 1))


def _power(value: float) -> str:
    exponent = math.floor(math.log10(value) + 1e-9)
    if -4 < exponent < 5:
        return plain(value, 3)
    mantissa = round(value / 10.0**exponent)
    return ("" if mantissa == 1 else f"{mantissa}\u00b7") + "10" + str(exponent).translate(SUPERSCRIPT)


def words(panel: Panel) -> str:
    """A panel in one sentence, for those who cannot see it.

    >>> from sublevel.report.palette import PLAIN
    >>> line = Series(label="imp", x=[1, 0.1], y=[5.0, 7.5], style=PLAIN)
    >>> words(Panel(title="Test error (%)", x=Axis(title="weights remaining"), series=[line]))
    'Test error (%) against weights remaining. imp: 5 to 7.5.'
    """
    head = f"{panel.title} against {panel.x.title}." if panel.x.title and not panel.landscape else f"{panel.title}."
    if panel.heat is not None:
        return f"{head} A map of {len(panel.heat.rows)} rows: {', '.join(panel.heat.rows[:20])}."
    if panel.landscape is not None:
        return f"{head} {_relief(panel.landscape, panel.series)}"
    parts = [_span(s) for s in panel.series if s.legend]
    return " ".join([head, *[p for p in parts if p][:16]])


def _relief(landscape: Landscape, series: Sequence[Series]) -> str:
    """A landscape in words: its kind, its lowest and its highest place, and what lies on it."""
    kind = "A surface in three dimensions" if landscape.solid else "A contour map"
    places = [
        (value, text, x, y)
        for row, texts, y in zip(landscape.z, landscape.texts, landscape.y, strict=True)
        for value, text, x in zip(row, texts, landscape.x, strict=True)
        if math.isfinite(value)
    ]
    (_, low, x, y), (_, high, *_) = min(places), max(places)
    named = ", ".join(s.label for s in series[:12])
    return f"{kind}, from {low} at ({x:.3g}, {y:.3g}) up to {high}." + (f" On it: {named}." if named else "")


def _span(series: Series) -> str:
    finite = [v for v in series.y if math.isfinite(v)]
    if not finite:
        return ""
    if finite[0] == finite[-1]:
        return f"{series.label}: {finite[0]:.3g}."
    return f"{series.label}: {finite[0]:.3g} to {finite[-1]:.3g}."
