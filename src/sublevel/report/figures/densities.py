"""The whole spectrum: its density, and what is read off it."""

from __future__ import annotations

import math

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import SPACES, density_axis
from sublevel.report.figures.curvature import control_note, operators
from sublevel.report.figures.measured import errors_note, measured, networks, sparse_branches, with_dense
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Column, Frame
from sublevel.report.numbers import plain
from sublevel.report.palette import PLAIN, Style, known_first, ramp, styles
from sublevel.report.prepare import doubts_note, first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

PLACES = 130
FINE = 8  # bins between two places of a curve
WIDTH = 0.012  # of the kernel, as a share of the axis
ROOM = 0.13  # of the axis between two labels: enough on a telephone
FLOOR = 1e-5  # of the highest point of a view: below it a curve says nothing


@figure("Curvature", "spectral densities", "densities")
def densities(tables: Tables) -> Figure:
    """The density of all eigenvalues, one line for each level, by branch, space and operator."""
    table = first_part(tables["densities"])
    table = table[np.isfinite(table["node"]) & (table["weight"] > 0)]
    unit = _unit(table)
    return Figure(
        key="densities",
        title="The density of the eigenvalues",
        views=[
            _densities(where(rows, space=s), unit, {"branch": b, "space": SPACES.get(s, s), **choice})
            for b in sparse_branches(table)
            for rows, choice in operators(with_dense(table, b), "buffers")
            for s in _spaces(rows, b)
        ],
        how=(
            "The density of all eigenvalues by stochastic Lanczos quadrature: the bulk around zero, outliers to "
            f"the right, negative curvature to the left. The axis is linear within about ±{plain(unit)} and "
            "logarithmic beyond, and each density integrates to 1 on it."
        ),
        trap=(
            "A height is a share of its own space's dimensions, so with fewer weights left the same outlier "
            "stands higher. Near zero train loss the Hessian of the cross-entropy vanishes: compare at matched "
            "loss."
        ),
        notes=[
            "Means over probes and seeds, smoothed with a Gaussian. A node stands for a group of eigenvalues, so the "
            "ripples of the bulk are the method's and not the spectrum's."
        ]
        if len(table)
        else [],
        pooled=True,
        columns=1,
    )


def _spaces(rows: Frame, branch: str) -> list[str]:
    found = set(where(rows, branch=branch)["space"])
    return [s for s in SPACES if s in found] + sorted(found - set(SPACES))


def _unit(table: Frame) -> float:
    """Where the axis turns from linear to logarithmic: a power of ten near the median size of an eigenvalue."""
    if table.empty:
        return 1.0
    size = np.abs(table["node"].to_numpy(dtype=float))
    order = np.argsort(size)
    mass = np.cumsum(table["weight"].to_numpy(dtype=float)[order])
    middle = float(size[order][np.searchsorted(mass, mass[-1] / 2)])
    return 10.0 ** math.floor(math.log10(middle)) if middle > 0 else 1.0


def _densities(frame: Frame, unit: float, choice: dict[str, str]) -> View:
    if frame.empty:
        return view([], **choice)
    place = np.arcsinh(frame["node"].to_numpy(dtype=float) / unit)
    pad = 0.04 * float(np.ptp(place) or 1.0)
    low, high = float(place.min()) - pad, float(place.max()) + pad
    axis = Axis(title="eigenvalue", ticks=_ticks(low, high, unit), hover="")
    series = _curves(frame.assign(place=place), low, high, unit)
    title = "Density per unit of the axis"
    return view([Panel(title=title, x=axis, y=Axis(log=True, hover=".3~g"), series=series)], **choice)


def _curves(frame: Frame, low: float, high: float, unit: float) -> list[Series]:
    grid = np.linspace(low, high, PLACES)
    texts = [f"eigenvalue {plain(float(v), 3)}" for v in unit * np.sinh(grid)]
    levels = sorted(frame["level"].unique())
    heights = {n: _smooth(where(frame, branch=b, level=v), grid) for n, b, v in networks(frame)}
    floor = FLOOR * max(float(h.max()) for h in heights.values())
    found = []
    for name, branch, level in networks(frame):
        shown = np.where(heights[name] > floor, heights[name], np.nan)
        style = PLAIN if branch == "dense" else Style(ramp(levels.index(level), len(levels)))
        label = name if branch == "dense" else f"level {level:g}"
        found.append(Series(label=label, x=list(grid), y=list(shown), style=style, mode="line", hover=texts))
    return found


def _smooth(frame: Frame, grid: np.ndarray) -> np.ndarray:
    """The mean density over probes and seeds: weights in narrow bins, then a Gaussian kernel."""
    edges = np.linspace(grid[0], grid[-1], PLACES * FINE + 1)
    middles, width = (edges[1:] + edges[:-1]) / 2, WIDTH * (grid[-1] - grid[0])
    networks_and_probes = len(frame[["seed", "probe"]].drop_duplicates())
    mass = np.histogram(frame["place"], edges, weights=frame["weight"])[0] / networks_and_probes
    kernel = np.exp(-0.5 * ((grid[:, None] - middles[None, :]) / width) ** 2) / (width * math.sqrt(2 * math.pi))
    return kernel @ mass


def _ticks(low: float, high: float, unit: float) -> tuple[tuple[float, str], ...]:
    """Zero and powers of ten to both sides, from zero outwards wherever there is room for the next label."""
    room, found = ROOM * (high - low), {0.0: 0.0}
    for sign, end in ((-1.0, low), (1.0, high)):
        at = 0.0
        for exponent in range(round(math.log10(unit)), round(math.log10(unit)) + 20):
            place = float(np.arcsinh(sign * 10.0**exponent / unit))
            if abs(place) <= sign * end and abs(place - at) >= room:
                found[place] = sign * 10.0**exponent
                at = place
    return tuple((p, plain(v)) for p, v in sorted(found.items()) if low <= p <= high)


QUANTITIES = {
    "trace": "Trace",
    "negative mass": "Share of negative eigenvalues",
    "log-determinant": "Log-determinant (nats)",
    "learning coefficient": "Local learning coefficient",
}


@figure("Curvature", "trace, negative mass, log-determinant, learning coefficient", "estimates")
def estimates(tables: Tables) -> Figure:
    """What is read off whole spectra and off chains, against density, one panel for each quantity."""
    whole = with_density(tables["estimates"], tables["levels"])
    whole = whole[np.isfinite(whole["value"])]
    whole = whole.assign(doubtful=whole["reason"] != "", more=[_more(*row) for row in _diagnostics(whole)])
    table = first_part(whole)
    found = operators(table[table["operator"] != ""], "space", "buffers") or operators(table, "space", "buffers")
    chains = table[table["operator"] == ""]
    rank = {s: i for i, s in enumerate(SPACES)}
    found.sort(key=lambda f: rank.get(f[1]["space"], len(rank)))
    return Figure(
        key="estimates",
        title="Trace, negative mass, log-determinant and learning coefficient",
        views=[_estimates(rows, where(chains, space=c["space"], buffers=c["buffers"]), c) for rows, c in found],
        how=(
            "Trace, share of negative eigenvalues and log-determinant of max(H, 0) + delta by stochastic Lanczos "
            "quadrature, and the local learning coefficient from chains. Hollow points are not to be trusted, and "
            "the reason is under the pointer."
        ),
        trap=(
            "Every dimension without curvature adds log(delta), so log-determinants of different dimension cannot "
            "be compared. Chains that have not mixed give a number all the same."
        ),
        notes=[
            errors_note(table),
            doubts_note(int(table["doubtful"].sum()), len(table), "estimates", table.loc[table["doubtful"], "reason"]),
            parts_note(where(whole, quantity="trace"), "value", [*SOLUTION, "space", "operator"], "the trace"),
            seeds_note(table),
            control_note(table),
        ],
    )


def _diagnostics(table: Frame) -> zip[tuple[float, ...]]:
    return zip(table["se"], table["draws"], table["r_hat"], table["ess"], strict=True)


def _more(se: float, draws: float, r_hat: float, ess: float) -> str:
    """The diagnostics of one estimate."""
    parts = [("standard error", se), ("draws", draws), ("R-hat", r_hat), ("effective sample size", ess)]
    return ", ".join(f"{name} {plain(v, 3)}" for name, v in parts if math.isfinite(v))


def _estimates(rows: Frame, chains: Frame, choice: dict[str, str]) -> View:
    choice = {**choice, "space": SPACES.get(choice["space"], choice["space"])}
    axis = density_axis([*rows["density"], *chains["density"]])
    panels = []
    for quantity, title in QUANTITIES.items():
        mine = where(chains if quantity == "learning coefficient" else rows, quantity=quantity)
        for setting in _settings(mine["setting"]):
            here = mine[mine["setting"] == setting] if math.isfinite(setting) else mine
            told = f"{title}, delta = {plain(setting)}" if quantity == "log-determinant" else title
            panels.append(Panel(title=told, x=axis, series=_branches(here)))
    return view(panels, **choice)


def _settings(values: Column) -> list[float]:
    found = sorted({float(v) for v in values if math.isfinite(v)})
    return found or [math.nan]


def _branches(frame: Frame) -> list[Series]:
    look = styles(frame["branch"])
    return [s for b in known_first(frame["branch"]) for s in measured(where(frame, branch=b), "value", b, look[b])]
