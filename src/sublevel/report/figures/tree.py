"""The disconnectivity graph: which solutions share a connected sublevel set, and from which height on."""

from __future__ import annotations

import math
import re

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from sublevel.claims.basins import threshold
from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import POINTS, flat
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.numbers import plain
from sublevel.report.palette import OWN, PLAIN, Style, dashed, known_first
from sublevel.report.prepare import where

LETTERS = 60  # of the names of leaves that fit below the graph
LEAF = re.compile(r"(.*?)(?: L(\d+))?(?: s(\d+))?", re.DOTALL)
SCALES = {"loss": ("Train loss", 1.0), "error": ("Train error (%)", POINTS)}


@figure("Sublevel sets", "disconnectivity graph", "tree", of="both")
def disconnectivity(tables: Tables) -> Figure:
    """The merge tree of all chosen solutions, in train loss and in train error."""
    tree, joins = tables["tree"], tables["joins"]
    found = [of for of in SCALES if of in set(tree["of"])]
    return Figure(
        key="disconnectivity",
        title="The disconnectivity graph",
        views=[_graph(where(tree, of=of), of) for of in found],
        how=(
            "Each leaf is a solution at its own height; two lines meet at the lowest height found at which a "
            "chain of straight segments joins them. Solutions under one trunk at a height share a connected "
            "sublevel set there."
        ),
        trap=(
            "Joins are upper bounds: failing to find a lower one does not prove that there is none. The order of the "
            "leaves along the axis means nothing."
        ),
        notes=[
            *(_joined(joins, of) for of in found),
            "The dashed line is the threshold of the claims: the upper 95% prediction bound for a new dense network, "
            "mean + t(0.95, n - 1) s sqrt(1 + 1/n); below three dense networks, 10% above their mean. It is that of "
            "the examples of this graph; figures on other examples have their own." * bool(found),
        ],
        columns=1,
    )


def leaves(tree: Frame) -> Frame:
    """The leaves with branch, level and seed read from their names (``imp L4 s0``); another name is a branch."""
    rows = where(tree, part="leaf")
    parts = [LEAF.fullmatch(name) for name in rows["name"]]
    return rows.assign(
        branch=[m[1] if m else "" for m in parts],
        level=[float(m[2] or 0) if m else 0.0 for m in parts],
        seed=[float(m[3]) if m and m[3] else math.nan for m in parts],
    )


def _graph(tree: Frame, of: str) -> View:
    title, scale = SCALES[of]
    tips, lines = leaves(tree), where(tree, part="line")
    gap = np.full(len(lines), np.nan)
    x = np.column_stack([lines["x0"], lines["x1"], lines["x1"]]).ravel()
    y = np.column_stack([lines["y0"] * scale, lines["y1"] * scale, gap]).ravel()
    stems = Series(label="merges", x=list(x), y=list(y), style=Style("#8a8f98"), mode="line", legend=False)
    level = threshold(where(tips, branch="dense")["y0"]) * scale
    marks = [flat("dense threshold", level, tips["x0"], dashed(PLAIN, "dash"))] if math.isfinite(level) else []
    top = float((lines["y1"] if lines["y1"].notna().any() else tips["y0"]).max())
    log = bool(of == "loss" and len(tips) and tips["y0"].min() > 0 and top / float(tips["y0"].min()) > 30)
    names = tips["name"].str.replace(r" s\d+$", "", regex=True) if tips["seed"].nunique() < 2 else tips["name"]
    names = tips["branch"] if tips["branch"].is_unique else names
    few = int(names.str.len().sum()) <= LETTERS
    ticks = tuple(zip(tips["x0"].tolist(), names, strict=True)) if few else ()
    limits = (float(tips["x0"].min()) - 0.5, float(tips["x0"].max()) + 0.5) if few else None  # room for the last name
    axis = Axis(title="solutions, side by side where they merge first", bare=not few, ticks=ticks, hover="",
                limits=limits)  # fmt: skip
    return view([Panel(title=title, x=axis, y=Axis(log=log), series=[stems, *marks, *_tips(tips, scale)])], quantity=of)


def _tips(tips: Frame, scale: float) -> list[Series]:
    found = []
    for branch in known_first(tips["branch"]):
        mine = where(tips, branch=branch)
        found.append(Series(
            label=branch, x=list(mine["x0"]), y=list(mine["y0"] * scale), style=OWN, mode="points",
            hover=[f"level {v:g}" + (f", seed {s:g}" if math.isfinite(s) else "")
                   for v, s in zip(mine["level"], mine["seed"], strict=True)],
            seeds=list(mine["seed"]), branch=branch,
        ))  # fmt: skip
    return found


def _joined(joins: Frame, of: str) -> str:
    """How many solutions of each branch are joined to a dense one below the dashed line."""
    rows = where(joins, of=of)
    heights = {n: float(h) for end in ("a", "b") for n, h in zip(rows[end], rows[f"height_{end}"], strict=True)}
    table = leaves(pd.DataFrame({"part": "leaf", "name": list(heights), "y0": list(heights.values())}))
    level = threshold(where(table, branch="dense")["y0"])
    if not math.isfinite(level):
        return ""
    inside = _with_dense(table, rows, level)
    counts = [
        f"{b} {int(inside[table['branch'].to_numpy() == b].sum())} of {int((table['branch'] == b).sum())}"
        for b in known_first(table["branch"])
        if b != "dense"
    ]
    shown = f"{plain(level * SCALES[of][1], 3)}{'%' if of == 'error' else ''}"
    return f"Joined to a dense network below the dense threshold ({of} {shown}): {', '.join(counts)}." if counts else ""


def _with_dense(table: Frame, rows: Frame, level: float) -> np.ndarray:
    """Which leaves lie in a component that holds a dense network, over the joins at or below a level."""
    place = {name: i for i, name in enumerate(table["name"])}
    low = rows[rows["maximum"] <= level]
    ends = ([place[n] for n in low["a"]], [place[n] for n in low["b"]])
    _, label = connected_components(
        coo_matrix((np.ones(len(low)), ends), shape=(len(place), len(place))), directed=False
    )
    height = table["y0"].to_numpy(dtype=float)
    roots = (table["branch"].to_numpy() == "dense") & (height <= level)
    return np.isin(label, label[roots]) & (height <= level)
