"""From a described figure to SVG and PDF by matplotlib, for papers: the same bytes at every writing.

No global state is touched: figures are made without pyplot, under a local style. Dates are left out and
the salt of SVG identifiers is fixed.
"""

from __future__ import annotations

import base64
import io
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Canvas
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from sublevel.errors import ConfigError
from sublevel.files import replacing
from sublevel.report.describe import SHARE, Axis, Heat, Landscape, LegendEntry, Panel, Series, View, legend
from sublevel.report.palette import HEAT

STYLE = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "axes.grid": True,
    "axes.axisbelow": True, "grid.color": "#dddddd", "grid.linewidth": 0.5, "xtick.major.width": 0.6,
    "ytick.major.width": 0.6, "lines.linewidth": 1.3, "lines.markersize": 4, "legend.frameon": False,
    "svg.hashsalt": "sublevel", "svg.fonttype": "path", "pdf.fonttype": 42, "pdf.compression": 6,
    "figure.dpi": 100, "axes.unicode_minus": True, "text.usetex": False,
}  # fmt: skip
MARKERS = {
    "circle": "o", "square": "s", "diamond": "D", "triangle-up": "^", "triangle-down": "v", "x": "X",
    "star": "*", "hexagon": "h", "cross": "P", "pentagon": "p", "x-thin": "x", "line-ns": "|", "star-triangle-up": "^",
    "bowtie": ">", "hourglass": "<", "diamond-tall": "d",
}  # fmt: skip
DASHES: dict[str, Any] = {"solid": "-", "dash": "--", "dot": ":"}
WIDTH = {1: 5.2, 2: 3.5, 3: 2.7}  # inches of a panel, by columns: two fill the width of a page
HEIGHT = 2.35
ABOVE = 0.3  # inches, for the title
DPI = 220  # of what is rasterised: surfaces
MARK = "sublevel report"
"""The creator that every file names: by it a later report knows which files are its own to replace."""
MARKUP = str.maketrans({"$": r"\$"})
COLOURS = LinearSegmentedColormap.from_list("heat", HEAT)
NOTE = {"boxstyle": "round,pad=0.2", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}


def save(view: View, title: str, stem: Path, columns: int = 2) -> list[Path]:
    """Write one view of a figure as ``stem.svg`` and ``stem.pdf``."""
    with mpl.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        canvas = draw(view, title, columns)
        written = []
        for kind, date in (("svg", "Date"), ("pdf", "CreationDate")):
            written.append(stem.with_name(f"{stem.name}.{kind}"))
            with replacing(written[-1]) as beside:
                canvas.savefig(beside, format=kind, metadata={date: None, "Creator": MARK}, dpi=DPI)
    return written


def still(view: View) -> str:
    """One view as a data URI of SVG, for a page to show before its script has drawn it."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        canvas = draw(view, "", 1)
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": MARK}, dpi=DPI, transparent=True)
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


class NotebookCanvas(Canvas):
    """A figure that a notebook shows whether or not pyplot is in use."""

    def _repr_png_(self) -> bytes:
        with io.BytesIO() as file:
            self.savefig(file, format="png", bbox_inches="tight", dpi=110)
            return file.getvalue()


def shown(view: View, title: str, columns: int = 2, caption: str = "") -> Canvas:
    """A figure of one view for a notebook or a script, with a caption below it."""
    with mpl.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        return draw(view, title, columns, caption)


def draw_on(axes: Axes | Sequence[Axes], view: View) -> Any:
    """Draw the panels of a view on axes that are given, one each, the first where there is one; return their figure."""
    given = [axes] if isinstance(axes, Axes) else list(np.ravel(np.asarray(axes, dtype=object)))
    with mpl.rc_context(STYLE):  # pyright: ignore[reportArgumentType]
        for one, panel in zip(given, view.panels, strict=False):
            if panel.landscape is not None and panel.landscape.solid:
                if one.name != "3d":
                    raise ConfigError("a surface needs an axes in three dimensions: subplot_kw={'projection': '3d'}")
                _solid(one, panel, panel.landscape)
            else:
                _panel(one, panel)
            handles = [_handle(e) for e in legend(View(panels=[panel]))]
            if handles:
                one.legend(handles=handles, fontsize=7)
    return given[0].figure


def draw(view: View, title: str, columns: int = 2, caption: str = "") -> Canvas:
    """A matplotlib figure of one view: panels in a grid, one legend below them all, then the caption.

    The places are computed here, in inches, and not by a layout engine: it takes most of the time.
    """
    columns = min(columns, len(view.panels))
    rows = math.ceil(len(view.panels) / columns)
    wide, high = WIDTH[columns], max(_room(p)[2] for p in view.panels)
    handles = [_handle(e) for e in legend(view)]
    longest = max((len(str(h.get_label())) for h in handles), default=1)
    per_row = max(1, int((wide * columns - 0.2) / (0.55 + 0.062 * longest)))  # what the longest label leaves room for
    width = wide * columns
    lines = textwrap.wrap(caption, int(19 * width))
    foot = 0.13 * len(lines) + 0.1 if lines else 0.0
    below = foot + 0.1 + 0.19 * math.ceil(len(handles) / per_row)
    height = high * rows + below + ABOVE
    canvas = NotebookCanvas(figsize=(width, height))
    size = min(9.5, 9.5 * 14.5 * (width - 0.24) / max(1, len(title)))  # about 14.5 letters an inch
    canvas.text(0.12 / width, 1 - 0.1 / height, plain_text(title), ha="left", va="top", fontsize=size)
    if lines:
        text = plain_text("\n".join(lines))
        canvas.text(0.12 / width, foot / height, text, ha="left", va="top", fontsize=7, linespacing=1.2)
    for index, panel in enumerate(view.panels):
        row, column = divmod(index, columns)
        left, right, _ = _room(panel)
        x, y = wide * column + left, below + high * (rows - 1 - row) + 0.5
        box = (x / width, y / height, (wide - left - right) / width, (high - 0.85) / height)
        if panel.landscape is not None and panel.landscape.solid:
            _solid(canvas.add_axes(box, projection="3d"), panel, panel.landscape)
        else:
            _panel(canvas.add_axes(box), panel)
    if handles:
        canvas.legend(
            handles=handles,
            loc="lower center",
            bbox_to_anchor=(0.5, foot / height),
            bbox_transform=canvas.transFigure,
            ncols=per_row,
            fontsize=7.5,
            borderpad=0.2,
        )
    return canvas


def _room(panel: Panel) -> tuple[float, float, float]:
    """Inches to the left and to the right of the axes, and the height of the panel.

    Names of rows need room, and a map grows with them; a landscape is about as high as wide, and a solid one has its
    numbers inside.
    """
    if panel.landscape is not None:
        return (0.1, 0.35, 1.3 * HEIGHT) if panel.landscape.solid else (0.6, 0.15, 1.3 * HEIGHT)
    if panel.heat is not None:
        return 1.5, 0.2, max(HEIGHT, 0.85 + 0.14 * len(panel.heat.rows))
    return 0.6, 0.15, HEIGHT


def plain_text(text: str) -> str:
    r"""Text from data with its dollar signs kept as dollar signs: matplotlib would read mathematics.

    >>> plain_text("a $x$ b")
    'a \\$x\\$ b'
    """
    return text.translate(MARKUP)


def _panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(plain_text(panel.title))
    if panel.heat is not None:
        _heat(axes, panel.heat)
    if panel.landscape is not None:
        _contour(axes, panel.landscape)
    for series in panel.series:
        _series(axes, series)
        if series.note:
            offset, side = ((0, -6), "top") if series.below else ((0, 6), "bottom")
            axes.annotate(plain_text(series.note), (series.x[0], series.y[0]), offset, textcoords="offset points",
                          ha=series.align, va=side, fontsize=7, bbox=NOTE)  # fmt: skip
    _axis(axes, panel.x, "x")
    _axis(axes, panel.y, "y")


def _axis(axes: Axes, axis: Axis, which: str) -> None:
    one = axes.xaxis if which == "x" else axes.yaxis
    one.set_label_text(plain_text(axis.title))
    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    if axis.bare:
        one.set_major_locator(NullLocator())
        axes.grid(False, axis=which)  # pyright: ignore[reportArgumentType]
    elif axis.ticks:
        one.set_major_locator(FixedLocator([v for v, _ in axis.ticks]))
        one.set_minor_locator(NullLocator())
        one.set_ticklabels([plain_text(t) for _, t in axis.ticks])
    if axis.limits:
        (axes.set_xlim if which == "x" else axes.set_ylim)(*axis.limits)
    elif axis.share:
        low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
        (axes.set_xlim if which == "x" else axes.set_ylim)(max(low, SHARE[0]), min(high, SHARE[1]))
    if axis.reverse:
        one.set_inverted(True)


def _series(axes: Axes, series: Series) -> None:
    x, y = np.asarray(series.x, dtype=float), np.asarray(series.y, dtype=float)
    colour, marker = series.style.colour, MARKERS.get(series.style.marker, "o")
    if series.samples is not None and series.samples.dots:
        at, single = x[np.asarray(series.samples.at)], np.asarray(series.samples.y, dtype=float)
        axes.plot(at, single, linestyle="none", marker=marker, markersize=2, alpha=0.3, color=colour, markeredgewidth=0)
    if series.low is not None and series.high is not None:
        _interval(axes, series, x, y)
    if series.mode != "points":
        axes.plot(x, y, color=colour, linestyle=DASHES[series.style.dash])
    hollow = np.asarray(series.hollow if len(series.hollow) else [False] * len(x), dtype=bool)
    for keep, face in ((~hollow, colour), (hollow, "white")) if series.mode != "line" else ():
        if keep.any():
            axes.plot(x[keep], y[keep], linestyle="none", marker=marker, color=colour, markerfacecolor=face)


def _interval(axes: Axes, series: Series, x: np.ndarray, y: np.ndarray) -> None:
    low, high = np.asarray(series.low, dtype=float), np.asarray(series.high, dtype=float)
    known = np.isfinite(low) & np.isfinite(high)
    if not known.any():
        return
    if series.interval == "band":
        axes.fill_between(x, low, high, color=series.style.colour, alpha=0.18, linewidth=0)
        return
    bars = np.vstack([y - low, high - y])[:, known]
    axes.errorbar(x[known], y[known], yerr=bars, fmt="none", ecolor=series.style.colour, elinewidth=0.7, capsize=1.5)


def _heat(axes: Axes, heat: Heat) -> None:
    z = np.ma.masked_invalid(np.asarray(heat.z, dtype=float))
    rows = np.arange(len(heat.rows), dtype=float)
    mesh = axes.pcolormesh(np.asarray(heat.x), rows, z, cmap=COLOURS, vmin=heat.low, vmax=heat.high, shading="nearest")
    axes.set_yticks(rows, [plain_text(r) for r in heat.rows], fontsize=6.5)
    axes.invert_yaxis()
    _scale(axes, mesh, heat)


def _contour(axes: Axes, landscape: Landscape) -> None:
    z = np.ma.masked_invalid(np.asarray(landscape.z, dtype=float))
    levels = [landscape.low, *landscape.contours, landscape.high]
    filled = axes.contourf(np.asarray(landscape.x), np.asarray(landscape.y), z, levels=levels, cmap=_colours(landscape),
                           vmin=landscape.low, vmax=landscape.high)  # fmt: skip
    _scale(axes, filled, landscape)


def _colours(landscape: Landscape) -> LinearSegmentedColormap:
    stops = landscape.stops(landscape.low, landscape.high)
    return COLOURS if landscape.level is None else LinearSegmentedColormap.from_list("set", stops, N=2048)


def _scale(axes: Axes, drawn: Any, of: Heat | Landscape) -> None:
    axes.grid(False)
    values, texts = zip(*of.ticks, strict=True)
    axes.figure.colorbar(drawn, ax=axes).set_ticks(values, labels=[plain_text(t) for t in texts])


def _solid(axes: Any, panel: Panel, landscape: Landscape) -> None:
    """A surface seen from above; it is rasterised, since thousands of facets would make a slow file."""
    axes.set_title(plain_text(panel.title))
    x, y = np.meshgrid(landscape.x, landscape.y)
    z = np.asarray(landscape.z, dtype=float)
    axes.plot_surface(x, y, z, cmap=_colours(landscape), vmin=landscape.low, vmax=landscape.high, rstride=1, cstride=1,
                      linewidth=0, antialiased=False, rasterized=True)  # fmt: skip
    for series in panel.series:
        marker = "" if series.mode == "line" else MARKERS.get(series.style.marker, "o")
        line: Any = "none" if series.mode == "points" else "-"
        lifted = [v + landscape.lift for v in series.z or ()]
        axes.plot(series.x, series.y, lifted, color=series.style.colour, linestyle=line, marker=marker,
                  markersize=5 if series.legend or series.note else 2.5, markeredgecolor="white", markeredgewidth=0.5,
                  zorder=10)  # fmt: skip
        if series.note:
            place, text = (series.x[0], series.y[0], lifted[0] + 2 * landscape.lift), series.note.split("\n")[0]
            axes.text(*place, plain_text(text), ha="center", va="bottom", fontsize=6.5, bbox=NOTE, zorder=11)
    axes.set_xlabel(plain_text(panel.x.title), fontsize=7, labelpad=-6)
    axes.set_ylabel(plain_text(panel.y.title), fontsize=7, labelpad=-6)
    axes.set_zticks([v for v, _ in landscape.ticks], [plain_text(t) for _, t in landscape.ticks])
    axes.tick_params(labelsize=6, pad=-2)
    axes.view_init(elev=38, azim=-58)
    axes.computed_zorder = False


def _handle(entry: LegendEntry) -> Line2D:
    # matplotlib hides a label that begins with an underscore
    label = plain_text(f" {entry.label}" if entry.label.startswith("_") else entry.label)
    marker = MARKERS.get(entry.marker, "o") if entry.marker else ""
    line: Any = DASHES[entry.dash] if entry.dash else "none"
    face = "white" if entry.hollow else entry.colour
    return Line2D([], [], color=entry.colour, linestyle=line, marker=marker, markerfacecolor=face, label=label)
