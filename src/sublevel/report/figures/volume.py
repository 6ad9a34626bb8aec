"""The volume of the basin, per method and space."""

from __future__ import annotations

import math

import numpy as np

from sublevel.report.describe import Figure, Panel, Series, View, view
from sublevel.report.figures.common import SPACES, density_axis
from sublevel.report.figures.curvature import control_note
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.numbers import plain
from sublevel.report.palette import PLAIN, Style, known_first, styles
from sublevel.report.prepare import doubts_note, first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

MEASURES = (("effective_radius", "Effective radius"), ("log_volume", "Log volume"))


@figure("Volume", "volumes", "volumes")
def volumes(tables: Tables) -> Figure:
    """Effective radius and log volume against density, in three spaces, for every method, k and eps."""
    whole = with_density(tables["volumes"], tables["levels"])
    table = first_part(whole)
    moving = np.where(table["stationary"] == 0, "not stationary at this height", "")
    table["reason"] = np.where(table["reason"] == "", moving, table["reason"])
    table["doubtful"] = table["reason"] != ""
    table["method"] = [_method(*row) for row in zip(table["method"], table["k"], table["eps"], strict=True)]
    pairs = sorted(set(zip(table["method"], table["buffers"], strict=True)))
    return Figure(
        key="volumes",
        title="The volume of the basin",
        views=[_volumes(where(table, method=m, buffers=b), {"method": m, "buffers": b}) for m, b in pairs],
        how=(
            "Radius and log volume of the ellipsoid that the k steepest directions give at the height eps "
            "(top-k), or of the basin in all dimensions (other methods). Crosses at the lower edge are undefined "
            "volumes, with the reason under the pointer."
        ),
        trap=(
            "A top-k volume cannot shrink on masking, and log volumes of different dimension change their order "
            "with eps: compare at the same k in one space. Open markers are not stationary enough, or their "
            "estimate is in doubt."
        ),
        notes=[
            "The effective radius is (V / omega_k)^(1/k), with omega_k the unit ball's volume." * bool(len(table)),
            seeds_note(table, singles=False),
            *_undefined(table),
            control_note(table),
            parts_note(where(whole, method="top-k"), "log_volume", [*SOLUTION, "space", "eps"], "the top-k log volume"),
        ],
        columns=3,
    )


def _method(method: str, k: float, eps: float) -> str:
    parts = [
        method,
        f"k = {k:g}" if math.isfinite(k) and method == "top-k" else "",
        f"eps = {plain(eps)}" if math.isfinite(eps) else "",
    ]
    return ", ".join(p for p in parts if p)


def _undefined(table: Frame) -> list[str]:
    """How many volumes have no value or a doubtful one, with the most frequent reason."""
    empty = table[~np.isfinite(table["log_volume"])]
    notes = []
    if len(empty):
        reason = empty["reason"].replace("", "no reason given").value_counts().index[0]
        notes.append(f"{len(empty)} of {len(table)} volumes are undefined, mostly: {reason}.")
    doubted = table[np.isfinite(table["log_volume"]) & table["doubtful"] & (table["stationary"] != 0)]
    notes.append(doubts_note(len(doubted), len(table), "volumes", doubted["reason"]))
    loose = int(((table["stationary"] == 0) & np.isfinite(table["log_volume"])).sum())
    if loose:
        notes.append(f"{loose} of {len(table)} solutions are not stationary at their threshold (open markers).")
    return notes


def _volumes(frame: Frame, choice: dict[str, str]) -> View:
    axis = density_axis(frame["density"])
    panels = [
        Panel(title=f"{title}, {name}", x=axis, series=_branches(where(frame, space=s), column))
        for column, title in MEASURES
        for s, name in SPACES.items()
    ]
    return view(panels, **choice)


def _branches(frame: Frame, value: str) -> list[Series]:
    defined = frame[np.isfinite(frame[value])]
    look = styles(frame["branch"])
    names = known_first(defined["branch"])
    found = [s for b in names for s in measured(where(defined, branch=b), value, b, look[b])]
    if defined.empty:
        return found
    floor = float(defined[value].min()) - 0.06 * float(np.ptp(defined[value]) or 1.0)
    return [*found, *_crosses(frame[~np.isfinite(frame[value])], floor)]


def _crosses(frame: Frame, floor: float) -> list[Series]:
    if frame.empty:
        return []
    rows = zip(frame["branch"], frame["level"], frame["seed"], frame["reason"], strict=True)
    texts = [f"{b}, level {v:g}, seed {s:g}: {r or 'undefined'}" for b, v, s, r in rows]
    style = Style(PLAIN.colour, "x-thin")
    return [
        Series(
            label="undefined",
            x=list(frame["density"]),
            y=[floor] * len(frame),
            style=style,
            mode="points",
            hover=texts,
            seeds=list(frame["seed"]),
        )
    ]
