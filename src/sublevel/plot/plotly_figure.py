"""From a described view to a figure of plotly, from the same traces as the page."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from sublevel.report.describe import Panel, View
from sublevel.report.render_plotly import panel_data
from sublevel.report.text import safe

HEIGHT = {False: 380, True: 460}
"""Of a row of panels, in pixels: without and with a landscape."""

OWN = ("interval", "low", "high", "samples", "seeds", "branch", "share")
"""Keys of a trace that only the page's script knows."""


def drawn(view: View, title: str, columns: int = 2, caption: str = "") -> go.Figure:
    """The panels of a view in a grid, with one legend."""
    columns = min(columns, len(view.panels))
    rows = math.ceil(len(view.panels) / columns)
    kinds = [{"type": "scene" if _solid(p) else "xy"} for p in view.panels]
    kinds += [{} for _ in range(rows * columns - len(kinds))]
    specs: list[list[Any]] = [[kind or None for kind in kinds[i * columns : (i + 1) * columns]] for i in range(rows)]
    wide = any(p.landscape or p.heat for p in view.panels)
    found = make_subplots(
        rows, columns, specs=specs, subplot_titles=[safe(p.title) for p in view.panels],
        horizontal_spacing=(0.3 if wide else 0.18) / columns, vertical_spacing=0.3 / rows,
    )  # fmt: skip
    known: set[str] = set()
    for index, panel in enumerate(view.panels):
        _add(found, panel, view, (index // columns + 1, index % columns + 1), known)
    high = HEIGHT[any(p.landscape for p in view.panels)]
    below = 40 + 15 * len(_wrapped(caption, columns)) if caption else 0
    found.update_layout(
        template="plotly_white", title={"text": f"<b>{safe(title)}</b>", "x": 0.01}, height=high * rows + 90 + below,
        width=640 if columns == 1 else None, margin={"l": 60, "r": 30, "t": 90, "b": 60 + below},
        legend={"orientation": "h", "y": -0.18 / rows, "yanchor": "top"}, hovermode="closest",
    )  # fmt: skip
    if caption:
        text = "<br>".join(map(safe, _wrapped(caption, columns)))
        found.add_annotation(text=text, xref="paper", yref="paper", x=0, y=-0.32 / rows, yanchor="top", align="left",
                             showarrow=False, font={"size": 11})  # fmt: skip
    return found


def _wrapped(caption: str, columns: int) -> list[str]:
    return textwrap.wrap(caption, 90 if columns == 1 else 130)


def _solid(panel: Panel) -> bool:
    return panel.landscape is not None and panel.landscape.solid


def _add(found: Any, panel: Panel, view: View, at: tuple[int, int], known: set[str]) -> None:
    data, place = panel_data(panel, view), {"row": at[0], "col": at[1]}
    of = panel.landscape or panel.heat
    for trace in data["data"]:
        for each in _traces(trace):
            name = each.get("name", "")
            legend = {"legendgroup": name, "showlegend": _in_legend(panel, name) and name not in known}
            if each["type"] in ("contour", "surface", "heatmap"):
                legend = {"showlegend": False}
            elif each.pop("faint", False):
                legend["showlegend"] = False
            elif legend["showlegend"]:
                known.add(name)
            found.add_trace(each | legend, **place)
    box = found.get_subplot(*at)
    if of is not None:
        across = box.domain.x if _solid(panel) else box.xaxis.domain
        upward = box.domain.y if _solid(panel) else box.yaxis.domain
        bar = {
            "x": across[1] + 0.005, "xanchor": "left", "y": sum(upward) / 2, "len": upward[1] - upward[0],
            "thickness": 12, "tickvals": [v for v, _ in of.ticks], "ticktext": [safe(t) for _, t in of.ticks],
            "tickfont": {"size": 10},
        }  # fmt: skip
        for trace in found.data:
            if trace.type in ("contour", "surface", "heatmap") and trace.colorbar.x is None:
                trace.update(showscale=True, colorbar=bar)
    if _solid(panel):
        scene = data["layout"]["scene"]
        box.update(**scene, aspectmode="manual", aspectratio={"x": 1, "y": 1, "z": 0.7},
                   camera={"eye": {"x": 1.2, "y": -1.35, "z": 1.3}})  # fmt: skip
        return
    line = {"showline": True, "linecolor": "#999999", "ticks": "outside", "zeroline": False}
    found.update_xaxes(**{**line, **data["layout"]["xaxis"]}, **place)
    found.update_yaxes(**{"zeroline": False, **data["layout"]["yaxis"]}, **place)
    for note in data["layout"].get("annotations", ()):
        found.add_annotation(**note, **place)


def _in_legend(panel: Panel, name: str) -> bool:
    return any(safe(s.label) == name and s.legend for s in panel.series)


def _traces(trace: dict[str, Any]) -> list[dict[str, Any]]:
    """A trace of the page with its interval and its single seeds as plotly draws them."""
    plain = {key: value for key, value in trace.items() if key not in OWN}
    found = [plain]
    colour = trace.get("line", {}).get("color")
    ends = [(y, a, b) for y, a, b in zip(trace.get("y", ()), trace.get("low", ()), trace.get("high", ()), strict=False)]
    if trace.get("interval") == "bars" and ends:
        gaps = [[None if None in (y, e) else abs(e - y) for y, e in pairs]
                for pairs in ([(y, b) for y, _, b in ends], [(y, a) for y, a, _ in ends])]  # fmt: skip
        plain["error_y"] = {"type": "data", "symmetric": False, "array": gaps[0], "arrayminus": gaps[1], "width": 3,
                            "thickness": 1.1, "color": colour}  # fmt: skip
    elif trace.get("interval") == "band" and ends:
        inside = [(x, a, b) for x, (_, a, b) in zip(trace["x"], ends, strict=True) if None not in (a, b)]
        found.insert(0, {
            "type": "scatter", "mode": "lines", "line": {"width": 0}, "fill": "toself", "fillcolor": f"{colour}2e",
            "hoverinfo": "skip", "name": trace["name"], "faint": True,
            "x": [x for x, _, _ in inside] + [x for x, _, _ in reversed(inside)],
            "y": [b for _, _, b in inside] + [a for _, a, _ in reversed(inside)],
        })  # fmt: skip
    single = trace.get("samples")
    if single and single["dots"]:
        found.insert(0, {
            "type": "scatter", "mode": "markers", "opacity": 0.32, "marker": {"color": colour, "size": 4},
            "x": [trace["x"][i] for i in single["at"]], "y": single["y"], "name": trace["name"], "faint": True,
            "hoverinfo": "skip",
        })  # fmt: skip
    return found
