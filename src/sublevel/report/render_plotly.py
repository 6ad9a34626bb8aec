"""From a described figure to plain JSON for plotly.js: data only, no themes, no Python objects of plotly.

Text that comes from data passes ``safe``, since plotly reads a subset of HTML in labels and hover texts.
Fonts, background and grid are the page's business (its script adds them), so that a theme can change.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from sublevel.report.describe import SHARE, Axis, Figure, Heat, Landscape, Panel, Series, View, legend, words
from sublevel.report.numbers import percent
from sublevel.report.palette import BRANCHES, HEAT
from sublevel.report.text import numbers, safe

SIZES = {"both": 7, "points": 8}
MODES = {"both": "lines+markers", "line": "lines", "points": "markers"}
COLOURS = [[i / (len(HEAT) - 1), c] for i, c in enumerate(HEAT)]
SOLID_MARKERS = {"circle", "square", "diamond", "cross", "x"}
HALO = "#ffffff"


def payload(figure: Figure, branches: Collection[str] = ()) -> dict[str, Any]:
    """Everything that the page's script needs to draw a figure, in each of its views.

    A series belongs to the branch that it names, or that its label is: one of ``branches``, or one of those that
    have a fixed look.
    """
    known = {*BRANCHES, *branches}
    return {"key": figure.key, "pooled": figure.pooled, "views": [_view(v, known) for v in figure.views]}


def owner(choice: dict[str, str]) -> str:
    """The branch that a whole view is of, empty where it shows several.

    >>> owner({"network": "imp, level 3"}), owner({"split": "train"})
    ('imp', '')
    """
    return choice.get("branch") or choice.get("network", "").partition(", level ")[0]


def _view(view: View, known: Collection[str]) -> dict[str, Any]:
    entries = [asdict(e) for e in legend(view)]
    heats = [p.heat for p in view.panels if p.heat is not None][:1]
    return {
        "choice": view.choice,
        "branch": owner(view.choice),
        "legend": [{"name": e["label"], "trace": safe(e.pop("label")), **e} for e in entries],
        "panels": [_panel(p, owner(view.choice), known) for p in view.panels],
        "scales": [_scale(m) for m in (*heats, *(p.landscape for p in view.panels if p.landscape is not None))],
    }


def panel_data(panel: Panel, view: View) -> dict[str, Any]:
    """The traces and the axes of one panel: ``data`` and ``layout``."""
    return _panel(panel, owner(view.choice), set(BRANCHES))


def _panel(panel: Panel, owned: str, known: Collection[str]) -> dict[str, Any]:
    named: dict[str, Any] = {"title": panel.title, "words": words(panel)}
    axes = {"xaxis": _axis(panel.x), "yaxis": _axis(panel.y)}
    if panel.landscape is not None:
        return named | {"rows": 0} | _relief(panel, panel.landscape, axes)
    if panel.heat is not None:
        data, axes["yaxis"] = [_heat(panel.heat, owned)], _rows(panel.heat)
    else:
        data = [_trace(s, panel, owned, known) for s in panel.series]
    return named | {"data": data, "layout": axes, "rows": len(panel.heat.rows) if panel.heat is not None else 0}


def _axis(axis: Axis) -> dict[str, Any]:
    out: dict[str, Any] = {"type": "log" if axis.log else "linear"}
    if axis.title:
        out["title"] = {"text": safe(axis.title)}
    if axis.reverse:
        out["autorange"] = "reversed"
    if axis.limits:
        out["range"] = list(axis.limits)
    if axis.share:
        out["autorangeoptions"] = {"clipmin": SHARE[0], "clipmax": SHARE[1]}
    if axis.bare:
        return out | {"showticklabels": False, "ticks": "", "showgrid": False}
    if axis.ticks:
        values, texts = zip(*axis.ticks, strict=True)
        out |= {"tickmode": "array", "tickvals": list(values), "ticktext": [safe(t) for t in texts]}
    return out


def _trace(series: Series, panel: Panel, owned: str, known: Collection[str]) -> dict[str, Any]:
    """One series. Intervals, dots and what a reader leaves out are the page's business: it has their numbers here."""
    single = series.samples
    at = f"{safe(panel.x.title)} %{{x:{panel.x.hover}}}: " if panel.x.hover else ""
    head = safe(series.label) + (f" ({safe(owned)})" if owned and owned != series.label else "")
    about = f", {safe(series.about)}" if series.about else ""
    more = "<br>%{text}" if series.hover else ""
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": safe(series.label),
        "x": numbers(series.x),
        "y": numbers(series.y),
        "mode": MODES[series.mode],
        "hovertemplate": f"<b>{head}</b>{about}<br>{at}%{{y:{panel.y.hover}}}{more}<extra></extra>",
    }
    if panel.y.share and single is not None:
        trace["share"] = True
    if series.hover:
        trace["text"] = [safe(t) for t in series.hover]
    trace |= _look(series)
    known_interval = series.low is not None and series.high is not None and any(map(math.isfinite, series.low))
    if known_interval or single is not None:
        trace["interval"] = series.interval
    if known_interval:
        trace |= {"low": numbers(series.low or ()), "high": numbers(series.high or ())}
    if branch := series.branch or (series.label if series.label in known else ""):
        trace["branch"] = branch
    if len(series.seeds):
        trace["seeds"] = numbers(series.seeds)
    elif single is not None:
        values = {"seed": numbers(single.seed), "at": list(single.at), "y": numbers(single.y)}
        trace["samples"] = values | {"log": single.geometric, "dots": single.dots}
    return trace


def _look(series: Series) -> dict[str, Any]:
    colour, marker = series.style.colour, series.style.marker
    out: dict[str, Any] = {"line": {"color": colour, "width": 1.8, "dash": series.style.dash}}
    if series.mode != "line":
        symbol: str | list[str] = marker
        if marker.endswith(("-thin", "-ns")):
            symbol = f"{marker}-open"
        elif any(series.hollow):
            symbol = [f"{marker}-open" if h else marker for h in series.hollow]
        rim = {"width": 1.4, "color": colour}
        out["marker"] = {"color": colour, "symbol": symbol, "size": SIZES[series.mode], "line": rim}
    elif series.samples is not None and series.samples.dots:
        out["marker"] = {"color": colour, "symbol": marker}
    return out


def _heat(heat: Heat, owned: str) -> dict[str, Any]:
    names = [safe(f"{owned}, {r}" if owned else r) for r in heat.rows]
    return {
        "type": "heatmap",
        "x": numbers(heat.x),
        "y": list(range(len(heat.rows))),
        "hovertext": [
            [f"{name}<br>level {x:g}: {percent(10**v) or 'none'}" for x, v in zip(heat.x, row, strict=True)]
            for name, row in zip(names, heat.z, strict=True)
        ],
        "z": [numbers(row) for row in heat.z],
        "zmin": heat.low,
        "zmax": heat.high,
        "colorscale": COLOURS,
        "showscale": False,
        "xgap": 1,
        "ygap": 1,
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _rows(heat: Heat) -> dict[str, Any]:
    """The axis of a map's rows: first row on top, long names cut in the middle."""
    names = [r if len(r) <= 22 else f"{r[:10]}\u2026{r[-11:]}" for r in heat.rows]
    every = -(-len(names) // 70)
    ticks = list(range(0, len(names), every))
    return {
        "type": "linear",
        "autorange": "reversed",
        "tickvals": ticks,
        "ticktext": [safe(names[i]) for i in ticks],
    }


def _scale(of: Heat | Landscape) -> dict[str, Any]:
    """The colour scale, which the page draws below the panel: nothing can overlap. Marks are (percent, text)."""
    marks = [[round(100 * (v - of.low) / (of.high - of.low), 1), t] for v, t in of.ticks]
    if isinstance(of, Landscape) and not of.solid:
        # The map is drawn in bands, and so is its scale.
        stops = [((v - of.low) / (of.high - of.low), c) for start, end, c in of.bands for v in (start, end)]
    else:
        stops = of.stops(of.low, of.high) if isinstance(of, Landscape) else COLOURS
    return {"title": of.title, "colours": [f"{colour} {100 * share:.4g}%" for share, colour in stops], "marks": marks}


def _relief(panel: Panel, landscape: Landscape, axes: dict[str, Any]) -> dict[str, Any]:
    """A landscape as filled contours, or as a surface in three dimensions, with what lies on it."""
    low, high, step = landscape.low, landscape.high, landscape.step
    heights: dict[str, Any] = {
        "x": numbers(landscape.x),
        "y": numbers(landscape.y),
        # Four digits: more than a colour or a height on a screen can show.
        "z": [[float(f"{v:.4g}") if math.isfinite(v) else None for v in row] for row in landscape.z],
        "text": [[safe(t) for t in row] for row in landscape.texts],
        "showscale": False,
        "hovertemplate": f"{safe(panel.title)} %{{text}}<br>at (%{{x:.3~g}}, %{{y:.3~g}})<extra></extra>",
    }
    marks = [_mark(s, landscape) for s in panel.series]
    if notes := [_note(s, landscape) for s in panel.series if s.note]:
        axes["annotations"] = notes
    if not landscape.solid:
        start, end = landscape.contours[0], landscape.contours[-1]
        contours = {"coloring": "fill", "start": start, "end": end, "size": step}
        # plotly gives each band the colour of its middle, from half a step below the first contour
        colours = landscape.stops(start - step / 2, end + step / 2)
        line = {"width": 0.5, "color": "rgba(255,255,255,0.4)"}
        filled = {"type": "contour", **heights, "colorscale": colours, "contours": contours, "line": line}
        return {"data": [filled, *marks], "layout": axes, "flat": True}
    lines = {"show": True, "color": "rgba(255,255,255,0.45)", "width": 1, "start": low, "end": high, "size": step}
    light = {"ambient": 0.75, "diffuse": 0.55, "specular": 0.05}
    surface = {"type": "surface", **heights, "cmin": low, "cmax": high, "contours": {"z": lines}, "lighting": light}
    surface["colorscale"] = landscape.stops(low, high)
    scene: dict[str, Any] = {name: {"title": axes[name].get("title", {"text": ""})} for name in ("xaxis", "yaxis")}
    scene["annotations"] = axes.get("annotations", [])
    scene["zaxis"] = {
        "title": {"text": ""},
        "range": [low, high + 2 * landscape.lift],
        "tickvals": [v for v, _ in landscape.ticks],
        "ticktext": [safe(t) for _, t in landscape.ticks],
    }
    return {"data": [surface, *marks], "layout": {"scene": scene}, "solid": True}


def _mark(series: Series, landscape: Landscape) -> dict[str, Any]:
    """What lies on a landscape: markers with a white rim, since any colour meets its like somewhere.

    What stands in no legend of its own is drawn smaller.
    """
    solid, symbol, size = landscape.solid, series.style.marker, 6 if landscape.solid else 10
    symbol = symbol if symbol in SOLID_MARKERS or not solid else "circle"
    found: dict[str, Any] = {
        "type": "scatter3d" if solid else "scatter",
        "name": safe(series.label),
        "x": numbers(series.x),
        "y": numbers(series.y),
        "mode": MODES[series.mode],
    }
    if series.hover:
        found["text"] = [safe(t) for t in series.hover]
        found["hovertemplate"] = f"<b>{safe(series.label)}</b><br>%{{text}}<extra></extra>"
    else:
        found["hoverinfo"] = "skip"
    if series.branch:
        found["branch"] = series.branch
    if not solid:
        found["cliponaxis"] = False
    else:
        found["z"] = numbers(z + landscape.lift for z in series.z or ())
    rim = {"width": 1 if solid else 1.2, "color": HALO}
    small = size if series.legend or series.note else max(4, size // 2)
    shapes: Any = [f"{symbol}-open" if h else symbol for h in series.hollow] if any(series.hollow) else symbol
    found["marker"] = {"color": series.style.colour, "symbol": shapes, "size": small, "line": rim}
    found["line"] = {"color": series.style.colour, "width": 5 if solid else 2.2}
    return found


def _note(series: Series, landscape: Landscape) -> dict[str, Any]:
    """The text that stands at a marker, on white: it lies on any colour. The page gives it the colours of its theme."""
    place = {"x": series.x[0], "y": series.y[0]} | ({"z": (series.z or (0.0,))[0]} if landscape.solid else {})
    look = {"bgcolor": "rgba(255,255,255,0.85)", "font": {"color": "#111111", "size": 11.5}, "borderpad": 2}
    lines = series.note.split("\n")[: 1 if landscape.solid else None]  # on a surface there is little room
    text = "<br>".join(map(safe, lines))
    return {**place, **look, "text": text, "showarrow": False, "yshift": -12 if series.below else 12,
            "yanchor": "top" if series.below else "bottom", "xanchor": series.align, "align": "left"}  # fmt: skip
