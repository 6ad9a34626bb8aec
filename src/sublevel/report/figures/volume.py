"""The volume of the basin, per method and space."""

from __future__ import annotations

import math

import numpy as np

from sublevel.report.describe import Figure, Panel, Series
from sublevel.report.figures.common import density_axis, views
from sublevel.report.figures.curvature import control_note
from sublevel.report.figures.measured import each_branch
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import plain
from sublevel.report.palette import PLAIN, Style
from sublevel.report.prepare import caution, doubts_note, first_part, parts_note, seeds_note, where, with_density
from sublevel.report.terms import SPACES
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
    methods = set(table["method"])
    top = "top-k" in methods
    table["method"] = [_method(*row) for row in zip(table["method"], table["k"], table["eps"], strict=True)]
    return Figure(
        key="volumes",
        title="The volume of the basin",
        views=views(table, ["method", "buffers"], _volumes),
        how=" ".join(
            [
                "Radius and log volume of the ellipsoid that the k steepest directions give at the height eps (top-k)."
                if top
                else "Radius and log volume of the basin in all dimensions."
            ]
            + ["Other methods measure the basin in all dimensions."] * (top and len(methods) > 1)
            + ["Crosses at the lower edge are undefined volumes, with the reason under the pointer."]
            * bool((~np.isfinite(table["log_volume"])).any())
        ),
        trap=(
            "A top-k volume cannot shrink on masking. " * top
            + "Log volumes of different dimension change their order with eps: compare at the same k in one space."
            + " Hollow markers are not stationary enough, or unreliable." * bool(table["doubtful"].any())
        ),
        notes=[
            "The effective radius is (V / omega_k)^(1/k), with omega_k the unit ball's volume." * bool(len(table)),
            seeds_note(table, singles=False),
            *_undefined(table),
            control_note(table),
            parts_note(where(whole, method="top-k"), "log_volume", [*SOLUTION, "space", "eps"], "the top-k log volume"),
        ],
        columns=3,
        caution=caution(table[np.isfinite(table["log_volume"])], "volumes"),
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
    defined = np.isfinite(table["log_volume"])
    empty, moving = table[~defined], table["stationary"] == 0
    notes = []
    if len(empty):
        reason = empty["reason"].replace("", "no reason given").value_counts().index[0]
        notes.append(f"{len(empty)} of {len(table)} volumes are undefined, mostly: {reason}.")
    notes.append(doubts_note(table.assign(doubtful=defined & table["doubtful"] & ~moving), "volumes"))
    loose = int((moving & defined).sum())
    if loose:
        notes.append(f"{loose} of {len(table)} solutions are not stationary at their threshold (hollow markers).")
    return notes


def _volumes(frame: Frame) -> list[Panel]:
    axis = density_axis(frame["density"])
    return [
        Panel(title=f"{title}, {name}", x=axis, series=_branches(where(frame, space=s), column))
        for column, title in MEASURES
        for s, name in SPACES.items()
    ]


def _branches(frame: Frame, value: str) -> list[Series]:
    """A line for each branch, and crosses at the lower edge for what is undefined."""
    found, defined = each_branch(frame, value), np.isfinite(frame[value])
    empty = frame[~defined]
    if empty.empty or not found:
        return found
    known = frame.loc[defined, value]
    floor = float(known.min()) - 0.06 * float(np.ptp(known) or 1.0)
    rows = zip(empty["branch"], empty["level"], empty["seed"], empty["reason"], strict=True)
    texts = [f"{b}, level {v:g}, seed {s:g}: {r or 'undefined'}" for b, v, s, r in rows]
    return [*found, Series(
        label="undefined", x=list(empty["density"]), y=[floor] * len(empty), style=Style(PLAIN.colour, "x-thin"),
        mode="points", hover=texts, seeds=list(empty["seed"]),
    )]  # fmt: skip
