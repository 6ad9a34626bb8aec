"""From a described figure to plain JSON for plotly.js: data only, no themes, no Python objects of plotly.

Text that comes from data passes ``safe``, since plotly reads a subset of HTML in labels and hover texts.
Fonts, background and grid are the page's business (its script adds them), so that a theme can change.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from sublevel.report.describe import SHARE, Axis, Figure, Heat, Panel, Series, View, legend, words
from sublevel.report.numbers import percent
from sublevel.report.palette import BRANCHES, HEAT
from sublevel.report.render_relief import relief, relief_scale
from sublevel.report.text import numbers, safe

SIZES = {"both": 7, "points": 8}


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
    shown: dict[str, Any] = {
        "choice": view.choice,
        "branch": owner(view.choice),
        "legend": [_entry(s) for s in legend(view)],
        "panels": [_panel(p, owner(view.choice), known) for p in view.panels],
    }
    heats = [_scale(p.heat) for p in view.panels if p.heat is not None][:1]
    shown["scales"] = heats + [relief_scale(p.landscape) for p in view.panels if p.landscape is not None]
    return shown


def _entry(series: Series) -> dict[str, Any]:
    style = series.style
    marker = "" if series.mode == "line" else style.marker
    return {
        "name": series.label,
        "trace": safe(series.label),
        "colour": style.colour,
        "marker": marker,
        "dash": "" if series.mode == "points" else style.dash,
        "hollow": any(series.hollow) and all(series.hollow),
    }


def _panel(panel: Panel, owned: str, known: Collection[str]) -> dict[str, Any]:
    if panel.landscape is not None:
        axes = {"xaxis": _axis(panel.x), "yaxis": _axis(panel.y)}
        return {"title": panel.title, "words": words(panel), "rows": 0, **relief(panel, panel.landscape, axes)}
    heat = panel.heat
    data = [_heat(heat, owned)] if heat is not None else [_trace(s, panel, owned, known) for s in panel.series]
    layout = {"xaxis": _axis(panel.x), "yaxis": _axis(panel.y) if panel.heat is None else _rows(panel.heat)}
    rows = len(panel.heat.rows) if panel.heat is not None else 0
    return {"title": panel.title, "words": words(panel), "data": data, "layout": layout, "rows": rows}


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
        out |= {
            "tickmode": "array",
            "tickvals": [v for v, _ in axis.ticks],
            "ticktext": [safe(t) for _, t in axis.ticks],
        }
    return out


def _trace(series: Series, panel: Panel, owned: str, known: Collection[str]) -> dict[str, Any]:
    """One series. Intervals, dots and what a reader leaves out are the page's business: it has their numbers here."""
    trace: dict[str, Any] = {
        "type": "scatter",
        "name": safe(series.label),
        "x": numbers(series.x),
        "y": numbers(series.y),
        "mode": {"both": "lines+markers", "line": "lines"}.get(series.mode, "markers"),
        "hovertemplate": _template(series, panel, owned),
    }
    if panel.y.share and series.samples is not None:
        trace["share"] = True
    if series.hover:
        trace["text"] = [safe(t) for t in series.hover]
    branch = series.branch or (series.label if series.label in known else "")
    return trace | _look(series) | _interval(series) | ({"branch": branch} if branch else {}) | _seeds(series)


def _seeds(series: Series) -> dict[str, Any]:
    if len(series.seeds):
        return {"seeds": numbers(series.seeds)}
    if series.samples is None:
        return {}
    single = series.samples
    found = {"seed": numbers(single.seed), "at": list(single.at), "y": numbers(single.y)}
    return {"samples": found | {"log": single.geometric, "dots": single.dots}}


def _interval(series: Series) -> dict[str, Any]:
    if series.low is None or series.high is None or not any(map(math.isfinite, series.low)):
        return {"interval": series.interval} if series.samples is not None else {}
    return {"interval": series.interval, "low": numbers(series.low), "high": numbers(series.high)}


def _template(series: Series, panel: Panel, owned: str) -> str:
    text = "<br>%{text}" if series.hover else ""
    x = f"{safe(panel.x.title)} %{{x:{panel.x.hover}}}: " if panel.x.hover else ""
    head = safe(series.label) + (f" ({safe(owned)})" if owned and owned != series.label else "")
    more = f", {safe(series.about)}" if series.about else ""
    return f"<b>{head}</b>{more}<br>{x}%{{y:{panel.y.hover}}}{text}<extra></extra>"


def _look(series: Series) -> dict[str, Any]:
    colour, marker = series.style.colour, series.style.marker
    out: dict[str, Any] = {"line": {"color": colour, "width": 1.8, "dash": series.style.dash}}
    if series.mode != "line":
        symbol, size = _symbols(series, marker), SIZES[series.mode]
        out["marker"] = {"color": colour, "symbol": symbol, "size": size, "line": {"width": 1.4, "color": colour}}
    elif series.samples is not None and series.samples.dots:
        out["marker"] = {"color": colour, "symbol": marker}
    return out


def _symbols(series: Series, marker: str) -> str | list[str]:
    if marker.endswith("-thin"):
        return f"{marker}-open"
    if not any(series.hollow):
        return marker
    return [f"{marker}-open" if h else marker for h in series.hollow]


def _heat(heat: Heat, owned: str) -> dict[str, Any]:
    return {
        "type": "heatmap",
        "x": numbers(heat.x),
        "y": list(range(len(heat.rows))),
        "hovertext": [
            [
                f"{safe(f'{owned}, {r}' if owned else r)}<br>level {x:g}: {percent(10**v) or 'none'}"
                for x, v in zip(heat.x, row, strict=True)
            ]
            for r, row in zip(heat.rows, heat.z, strict=True)
        ],
        "z": [numbers(row) for row in heat.z],
        "zmin": heat.low,
        "zmax": heat.high,
        "colorscale": [[i / (len(HEAT) - 1), c] for i, c in enumerate(HEAT)],
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


def _scale(heat: Heat) -> dict[str, Any]:
    """The colour scale, which the page draws beside the map and not on it: nothing can overlap."""
    marks = [heat.low + (heat.high - heat.low) * i / 4 for i in range(5)]
    return {
        "title": heat.title,
        "colours": list(HEAT),
        "marks": [[25 * i, percent(10**m)] for i, m in enumerate(marks)],
    }
