"""Curvature: the extreme eigenvalues of the Hessian and its kin, in three spaces and layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from sublevel.report.describe import Axis, Figure, Panel, Series
from sublevel.report.figures.common import by_branch, density_axis, level_axis, network, networks, views
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.prepare import (
    batchnorm,
    choices,
    first_part,
    over_seeds,
    parts_note,
    seeds_note,
    where,
    with_density,
)
from sublevel.report.terms import SPACES
from sublevel.tables import SOLUTION

LAYER = "layer "

CONTROL = "random-prune shows the effect of sparsity alone; only the gap to imp is due to IMP."


def control_note(table: Frame) -> str:
    """What random-prune is for; empty unless the table has both it and imp."""
    return CONTROL if {"imp", "random-prune"} <= set(table["branch"]) else ""


@figure("Curvature", "largest eigenvalues", "curvature")
def sharpness(tables: Tables) -> Figure:
    """The largest eigenvalue against density in three spaces, and the smallest one."""
    whole = with_density(in_spaces(tables["curvature"]), tables["levels"])
    table = first_part(whole)
    operators = set(table["operator"])
    return Figure(
        key="sharpness",
        title="The largest eigenvalue",
        views=views(table, ["operator", "buffers"], _sharpness),
        how=(
            "The largest algebraic eigenvalue of the curvature of the train loss in each space, and the smallest Ritz "
            "value in the original one."
            + " The Gauss-Newton matrix is never negative." * ("ggn" in operators)
            + " The adaptive curvature does not depend on the weights' scale." * ("adaptive" in operators)
        ),
        trap=(
            "Deleting coordinates at one point can only lower the k-th largest eigenvalue, so compare in one "
            "space, or with a trained random mask of the same count."
            + " With BatchNorm the Hessian's eigenvalues also scale with the weights' norm."
            * batchnorm(table)
        ),
        notes=[
            seeds_note(table),
            "On a logarithmic axis the mean is the geometric one." * bool(len(table)),
            *_doubts(table),
            control_note(table),
            parts_note(where(whole, operator="hessian"), "largest", [*SOLUTION, "space"], "the largest eigenvalue"),
        ],
    )


def in_spaces(table: Frame) -> Frame:
    """The rows whose space is a whole one: own, all, next. Layers have a figure of their own."""
    return table[table["space"].isin(list(SPACES))]


def _sharpness(frame: Frame) -> list[Panel]:
    axis = density_axis(frame["density"])
    largest = {name: by_branch(where(frame, space=s), "largest", log=True) for s, name in SPACES.items()}
    smallest = by_branch(where(frame, space="all"), "smallest")
    return [
        *(Panel(title=f"Largest, {name}", x=axis, y=Axis(log=True), series=s) for name, s in largest.items()),
        Panel(title="Smallest, original space", x=axis, series=smallest),
    ]


def _doubts(table: Frame, hollow: str = "") -> list[str]:
    loose, dead = int((table["converged"] == 0).sum()), int((table["excluded"] > 0).sum())
    return [
        f"{loose} of {len(table)} spectra had not converged when their budget was spent{hollow}." * bool(loose),
        f"Coordinates of dead filters were left out of {dead} of {len(table)} spectra." * bool(dead),
    ]


@figure("Curvature", "spectra", "spectra")
def spectra(tables: Tables) -> Figure:
    """The ends of the spectrum by index, one line for each level, for every branch and space."""
    table = first_part(in_spaces(tables["spectra"]))
    return Figure(
        key="spectra",
        title="The ends of the spectrum",
        views=networks(table, ["branch", "operator", "buffers"], _spectra),
        how=(
            "The largest eigenvalues by index in each space, one line for each level from cold to warm, the dense "
            "network in grey. The last panel has the smallest ones in the original space."
        ),
        trap=(
            "Only the ends are shown, and the bulk between them decides traces and volumes. An eigenvalue of 0 or "
            "less has no place on a logarithmic axis."
        ),
        notes=[
            "Means over seeds (geometric on the logarithmic axes)." * (table["seed"].nunique() > 1),
            "Hollow eigenvalues had not converged, in one seed at least." * bool((table["converged"] == 0).any()),
        ],
        pooled=True,
    )


def _spectra(frame: Frame) -> list[Panel]:
    """A branch's levels, with the dense network."""
    panels = []
    for space, end in [*((s, "largest") for s in SPACES), ("all", "smallest")]:
        rows, log = where(frame, space=space, end=end), end == "largest"
        title, axis = f"{end.capitalize()}, {SPACES[space]}", level_axis(rows["index"], "index")
        panels.append(Panel(title=title, x=axis, y=Axis(log=log), series=_lines(rows, log)))
    return panels


def _lines(frame: Frame, log: bool) -> list[Series]:
    means = over_seeds(frame, "eigenvalue", ["branch", "level", "index"], log=log)
    converged = frame.groupby(["branch", "level", "index"])["converged"].min()
    pairs = means[["branch", "level"]].drop_duplicates().sort_values("level").itertuples(index=False)
    found = []
    for branch, level in pairs:
        mine = where(means, branch=branch, level=level)
        loose = [bool(converged[branch, level, index] == 0) for index in mine["index"]]
        label, style = network(branch, level, frame)
        found.append(Series(
            label=label, x=list(mine["index"]), y=list(mine["mean"]), hollow=loose, style=style,
            hover=["not converged" if v else "" for v in loose], branch=branch if label == branch else "",
        ))  # fmt: skip
    return found


@figure("Curvature", "curvature layer by layer", "curvature")
def layers_curvature(tables: Tables) -> Figure:
    """The largest eigenvalue of every layer's own block of the curvature, by level."""
    whole = tables["curvature"]
    whole = whole[whole["space"].str.startswith(LAYER)]
    table = first_part(whole)
    # The order of the network; layers that its table does not know follow by name.
    known = tables["layers"].drop_duplicates("layer").set_index("layer")["index"]
    names = sorted({s.removeprefix(LAYER) for s in table["space"]})
    order = sorted(names, key=lambda n: float(known.get(n, len(known))))
    return Figure(
        key="layer-curvature",
        title="The largest eigenvalue in each layer",
        views=networks(table, ["branch", "operator", "buffers"], partial(_blocks, order=order)),
        how=(
            "The largest eigenvalue of the block that belongs to one layer's remaining weights, from input to "
            "output. One line for each level from cold to warm, the dense network in grey."
        ),
        trap=(
            "A block leaves out every interaction between layers, so the largest block is only a lower bound of "
            "the whole matrix's largest eigenvalue. A layer with fewer weights is a smaller block, which alone "
            "lowers its eigenvalue."
        ),
        notes=[
            "Means over seeds are geometric." if table["seed"].nunique() > 1 else "",
            *_doubts(table, " (hollow)"),
            f"Layers: {', '.join(f'{i} {n}' for i, n in enumerate(order, 1))}." if 0 < len(order) <= 60 else "",
            parts_note(whole, "largest", [*SOLUTION, "space", "operator"], "a layer's largest eigenvalue"),
        ],
        columns=1,
    )


def _blocks(frame: Frame, order: Sequence[str]) -> list[Panel]:
    place = {name: i + 1.0 for i, name in enumerate(order)}
    rows = frame.assign(place=frame["space"].str.removeprefix(LAYER).map(place))
    rows = rows.assign(doubtful=rows["converged"] == 0, reason="not converged")
    found: list[Series] = []
    for c in choices(rows, ["branch", "level"]):
        label, style = network(c["branch"], c["level"], rows)
        for s in measured(where(rows, **c), "largest", label, style, x="place", log=True):
            texts = [f"{order[int(x) - 1]}: {h}" for x, h in zip(s.x, s.hover, strict=True)]
            found.append(replace(s, hover=texts))
    axis = replace(level_axis(rows["place"], "layer, from input to output"), hover="")
    return [Panel(title="Largest eigenvalue of the layer's block", x=axis, y=Axis(log=True), series=found)]
