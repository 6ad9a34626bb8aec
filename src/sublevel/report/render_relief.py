"""Landscapes for plotly.js: filled contours, or a surface in three dimensions, with what lies on them."""

from __future__ import annotations

import math
from typing import Any

from sublevel.report.describe import Landscape, Panel, Series
from sublevel.report.palette import HEAT
from sublevel.report.text import numbers, safe

LINES = 16  # contours between the lowest and the highest colour
LIFT = 0.035  # of the range: markers stand above the surface, or it would cover them
SOLID_MARKERS = {"circle", "square", "diamond", "cross", "x"}
HALO = "#ffffff"


def relief(panel: Panel, landscape: Landscape, axes: dict[str, Any]) -> dict[str, Any]:
    """The traces and the axes of a landscape."""
    if not landscape.solid:
        return {"data": [_contour(landscape, panel.title), *map(_mark, panel.series)], "layout": axes, "flat": True}
    scene = {name: {"title": axis.get("title", {"text": ""})} for name, axis in axes.items()}
    scene["zaxis"] = {
        "title": {"text": ""},
        "range": [landscape.low, landscape.high + 2 * LIFT * (landscape.high - landscape.low)],
        "tickvals": [v for v, _ in landscape.ticks],
        "ticktext": [safe(t) for _, t in landscape.ticks],
    }
    data = [_surface(landscape, panel.title), *(_solid_mark(s, landscape) for s in panel.series)]
    return {"data": data, "layout": {"scene": scene}, "solid": True}


def _heights(landscape: Landscape, title: str) -> dict[str, Any]:
    return {
        "x": numbers(landscape.x),
        "y": numbers(landscape.y),
        "z": [[_short(v) for v in row] for row in landscape.z],
        "text": [[safe(t) for t in row] for row in landscape.texts],
        "colorscale": [[i / (len(HEAT) - 1), c] for i, c in enumerate(HEAT)],
        "showscale": False,
        "hovertemplate": f"{safe(title)} %{{text}}<br>at (%{{x:.3~g}}, %{{y:.3~g}})<extra></extra>",
    }


def _short(value: float) -> float | None:
    """Four digits: more than a colour or a height on a screen can show."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _contour(landscape: Landscape, title: str) -> dict[str, Any]:
    step = (landscape.high - landscape.low) / LINES
    ends = {"start": landscape.low + step, "end": landscape.high - step, "size": step}
    return {
        "type": "contour",
        **_heights(landscape, title),
        "zmin": landscape.low,
        "zmax": landscape.high,
        "contours": {"coloring": "fill", **ends},
        "line": {"width": 0.5, "color": "rgba(255,255,255,0.4)"},
    }


def _surface(landscape: Landscape, title: str) -> dict[str, Any]:
    step = (landscape.high - landscape.low) / LINES
    lines = {"show": True, "color": "rgba(255,255,255,0.45)", "width": 1}
    return {
        "type": "surface",
        **_heights(landscape, title),
        "cmin": landscape.low,
        "cmax": landscape.high,
        "contours": {"z": {**lines, "start": landscape.low, "end": landscape.high, "size": step}},
        "lighting": {"ambient": 0.75, "diffuse": 0.55, "specular": 0.05},
    }


def _mark(series: Series) -> dict[str, Any]:
    """What lies on a contour map: markers with a white rim, since any colour meets its like somewhere."""
    return {
        "type": "scatter",
        **_place(series),
        "marker": {"color": series.style.colour, "symbol": series.style.marker, "size": _size(series, 10),
                   "line": {"width": 1.2, "color": HALO}},
        "line": {"color": series.style.colour, "width": 2.2},
    }  # fmt: skip


def _solid_mark(series: Series, landscape: Landscape) -> dict[str, Any]:
    lift = LIFT * (landscape.high - landscape.low)
    symbol = series.style.marker if series.style.marker in SOLID_MARKERS else "circle"
    return {
        "type": "scatter3d",
        **_place(series),
        "z": numbers(z + lift for z in series.z or ()),
        "marker": {"color": series.style.colour, "symbol": symbol, "size": _size(series, 6),
                   "line": {"width": 1, "color": HALO}},
        "line": {"color": series.style.colour, "width": 5},
    }  # fmt: skip


def _place(series: Series) -> dict[str, Any]:
    return {
        "name": safe(series.label),
        "x": numbers(series.x),
        "y": numbers(series.y),
        "mode": {"points": "markers", "line": "lines"}.get(series.mode, "lines+markers"),
        **_pointer(series),
        **({"branch": series.branch} if series.branch else {}),
    }


def _pointer(series: Series) -> dict[str, Any]:
    if not series.hover:
        return {"hoverinfo": "skip"}
    return {
        "text": [safe(t) for t in series.hover],
        "hovertemplate": f"<b>{safe(series.label)}</b><br>%{{text}}<extra></extra>",
    }


def _size(series: Series, whole: int) -> int:
    """What stands in no legend of its own is drawn smaller."""
    return whole if series.legend else max(4, whole // 2)


def relief_scale(landscape: Landscape) -> dict[str, Any]:
    """The colour scale, which the page draws below the map; marks are (percent along it, text)."""
    reach = landscape.high - landscape.low
    marks = [[round(100 * (v - landscape.low) / reach, 1), t] for v, t in landscape.ticks]
    return {"title": landscape.title, "colours": list(HEAT), "marks": marks}
