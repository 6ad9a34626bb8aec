"""The whole spectrum: its density, and quantities computed from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from sublevel.claims.words import listed
from sublevel.report.describe import Axis, Figure, Panel, Series, View, titles, view
from sublevel.report.figures.common import density_axis, network, networks
from sublevel.report.figures.curvature import control_note
from sublevel.report.figures.measured import each_branch, errors_note
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import plain
from sublevel.report.palette import OWN, known_first
from sublevel.report.prepare import (
    caution,
    choices,
    doubts_note,
    first_part,
    parts_note,
    seeds_note,
    where,
    with_density,
)
from sublevel.report.terms import shown
from sublevel.tables import SOLUTION

PLACES = 130
FINE = 8  # bins between two places of a curve
WIDTH = 0.012  # of the kernel, as a share of the axis
ROOM = 0.13  # of the axis between two labels: enough on a telephone
FEW = 3  # networks whose Ritz values are drawn too
FLOOR = 1e-5  # of the highest point of a view: below it a curve says nothing


@figure("Curvature", "spectral densities", "densities")
def densities(tables: Tables) -> Figure:
    """The density of all eigenvalues, one line for each level, by branch, space and operator."""
    table = first_part(tables["densities"])
    table = table[np.isfinite(table["node"]) & (table["weight"] > 0)]
    unit = _unit(table)
    columns = ["branch", "space", "operator", "buffers"]
    return Figure(
        key="densities",
        title="The density of the eigenvalues",
        views=networks(table, columns, partial(_densities, unit=unit), ["branch", "operator", "buffers", "space"]),
        how=(
            "The density of all eigenvalues by stochastic Lanczos quadrature: the bulk around zero, outliers to "
            f"the right, negative curvature to the left. The axis is linear within about ±{plain(unit)} and "
            "logarithmic beyond, and each density integrates to 1 on it."
        ),
        trap=(
            "A height is a share of its own space's dimensions, so with fewer weights left the same outlier "
            "is higher. Near zero train loss the Hessian of the cross-entropy vanishes: compare at matched "
            "loss."
        ),
        notes=[
            "Means over probes and seeds, smoothed with a Gaussian. A node represents a group of "
            "eigenvalues, so ripples of the bulk come from the method. Marks below the curves are Ritz values."
        ]
        if len(table)
        else [],
        pooled=True,
        columns=1,
    )


def _unit(table: Frame) -> float:
    """Where the axis turns from linear to logarithmic: a power of ten near the median size of an eigenvalue."""
    if table.empty:
        return 1.0
    size = np.abs(table["node"].to_numpy(dtype=float))
    order = np.argsort(size)
    mass = np.cumsum(table["weight"].to_numpy(dtype=float)[order])
    middle = float(size[order][np.searchsorted(mass, mass[-1] / 2)])
    return 10.0 ** math.floor(math.log10(middle)) if middle > 0 else 1.0


def _densities(frame: Frame, unit: float) -> list[Panel]:
    every = [(c["branch"], c["level"]) for c in choices(frame, ["branch", "level"])]
    looks = [network(b, v, frame) for b, v in every]
    groups = [(label, where(frame, branch=b, level=v)) for (label, _), (b, v) in zip(looks, every, strict=True)]
    series, axis = smoothed(frame, groups, unit)
    look = dict(looks)
    series = [replace(s, style=replace(look[s.label], marker=s.style.marker or look[s.label].marker)) for s in series]
    return [Panel(title="Density per unit of the axis", x=axis, y=Axis(log=True, hover=".3~g"), series=series)]


def smoothed(frame: Frame, groups: Sequence[tuple[str, Frame]], unit: float = 0.0) -> tuple[list[Series], Axis]:
    """A curve for each named group of the rows of a frame, and their axis: linear within ``unit``, then logarithmic."""
    unit = unit or _unit(frame)
    place = np.arcsinh(frame["node"].to_numpy(dtype=float) / unit)
    pad = 0.04 * float(np.ptp(place) or 1.0)
    low, high = float(place.min()) - pad, float(place.max()) + pad
    grid = np.linspace(low, high, PLACES)
    texts = [f"eigenvalue {plain(float(v), 3)}" for v in unit * np.sinh(grid)]
    heights = [_smooth(rows.assign(place=np.arcsinh(rows["node"] / unit)), grid) for _, rows in groups]
    floor = FLOOR * max(float(h.max()) for h in heights)
    curves = [
        Series(label=label, x=list(grid), y=list(np.where(h > floor, h, np.nan)), style=OWN, mode="line", hover=texts)
        for (label, _), h in zip(groups, heights, strict=True)
    ]
    if len(groups) <= FEW:
        curves += [
            _ritz(label, rows, np.arcsinh(rows["node"] / unit), floor / 2 ** (i + 1))
            for i, (label, rows) in enumerate(groups)
        ]
    return curves, Axis(title="eigenvalue", ticks=_ticks(low, high, unit), hover="")


def curves(tables: Tables) -> Figure:
    """Densities that are smoothed already, on the scale of the eigenvalues: a line with two standard errors for each.

    The table ``smoothed`` has the columns branch, eigenvalue, density and se.
    """
    table = tables["smoothed"]
    series = []
    for b in known_first(table["branch"]):
        rows = where(table, branch=b)
        low, high = rows["density"] - 2 * rows["se"], rows["density"] + 2 * rows["se"]
        series.append(Series(label=b, x=list(rows["eigenvalue"]), y=list(rows["density"]), style=OWN, mode="line",
                             low=list(low.clip(lower=0)), high=list(high), interval="band"))  # fmt: skip
    return Figure(
        key="smoothed",
        title="The density of the eigenvalues",
        views=[view([Panel(title="Density", x=Axis(title="eigenvalue"), series=series)])],
        how="The density of all eigenvalues, smoothed with a Gaussian. The band is two standard errors of the probes.",
        trap="A peak narrower than the Gaussian looks as wide as it is. Ripples of the bulk are the method's.",
        columns=1,
    )


def _ritz(label: str, rows: Frame, place: Frame, height: float) -> Series:
    """The Ritz values of one network as marks below the curves: between them nothing was seen."""
    texts = [
        f"Ritz value {plain(v, 3)}, weight {plain(w, 2)}" for v, w in zip(rows["node"], rows["weight"], strict=True)
    ]
    return Series(label=label, x=list(place), y=[height] * len(rows), mode="points", hover=texts, legend=False,
                  style=replace(OWN, marker="line-ns"))  # fmt: skip


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
CHAINS = "learning coefficient"
SPECTRAL = {
    "trace": "trace",
    "negative mass": "share of negative eigenvalues",
    "log-determinant": "log-determinant of max(H, 0) + delta",
}
DIAGNOSTICS = {"standard error": "se", "draws": "draws", "R-hat": "r_hat", "effective sample size": "ess"}


@figure("Curvature", "trace, negative mass, log-determinant, learning coefficient", "estimates")
def estimates(tables: Tables) -> Figure:
    """Quantities from whole spectra and from chains, against density, one panel for each."""
    whole = with_density(tables["estimates"], tables["levels"])
    whole = whole[np.isfinite(whole["value"])]
    more = [
        ", ".join(f"{name} {plain(row[c], 3)}" for name, c in DIAGNOSTICS.items() if math.isfinite(row[c]))
        for row in whole[list(DIAGNOSTICS.values())].to_dict("records")
    ]
    whole = whole.assign(doubtful=whole["reason"] != "", more=more)
    table = first_part(whole)
    spectral, chains = table[table["operator"] != ""], table[table["operator"] == ""]
    rows = spectral if len(spectral) else table
    found = choices(rows, ["operator", "space", "buffers"], ["space", "operator", "buffers"])
    drawn = [_estimates(where(rows, **c), where(chains, space=c["space"], buffers=c["buffers"]), c) for c in found]
    here = [name for name, title in QUANTITIES.items() if title in titles(drawn)]
    sentences = [
        f"{listed([SPECTRAL[name] for name in SPECTRAL if name in here])}, by stochastic Lanczos quadrature."
        * any(name in here for name in SPECTRAL),
        "The local learning coefficient is estimated from chains." * (CHAINS in here),
        "Hollow points are unreliable; the reason is under the pointer." * bool(table["doubtful"].any()),
    ]
    traps = [
        "Every dimension without curvature adds log(delta), so log-determinants of different dimension cannot be "
        "compared." * ("log-determinant" in here),
        "Chains that have not mixed give a number all the same." * (CHAINS in here),
        "A share of negative eigenvalues counts each of them alike, however small it is." * ("negative mass" in here),
    ]
    title = listed([name for name in QUANTITIES if name in here])
    return Figure(
        key="estimates",
        title=title[:1].upper() + title[1:],
        views=drawn,
        how=_sentences(sentences),
        trap=_sentences(traps) or "A few large eigenvalues can make up most of a trace.",
        notes=[
            errors_note(table),
            doubts_note(table, "estimates"),
            parts_note(where(whole, quantity="trace"), "value", [*SOLUTION, "space", "operator"], "the trace"),
            seeds_note(table),
            control_note(table),
        ],
        caution=caution(table, "estimates"),
    )


def _sentences(parts: Sequence[str]) -> str:
    """The sentences that are not empty, the first letter a capital."""
    text = " ".join(p for p in parts if p)
    return text[:1].upper() + text[1:]


def _estimates(rows: Frame, chains: Frame, choice: dict[str, str]) -> View:
    axis = density_axis([*rows["density"], *chains["density"]])
    panels = []
    for quantity, title in QUANTITIES.items():
        mine = where(chains if quantity == CHAINS else rows, quantity=quantity)
        settings = sorted({float(v) for v in mine["setting"] if math.isfinite(v)})
        for setting in settings or [math.nan]:
            here = where(mine, setting=setting) if settings else mine
            named = f"{title}, delta = {plain(setting)}" if quantity == "log-determinant" else title
            panels.append(Panel(title=named, x=axis, series=each_branch(here, "value")))
    return view(panels, **{k: shown(k, v) for k, v in choice.items()})
