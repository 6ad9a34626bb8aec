"""Curvature: the extreme eigenvalues of the Hessian and its kin, in three spaces and layer by layer."""

from __future__ import annotations

from dataclasses import replace

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import SPACES, by_branch, density_axis, level_axis, mean_of
from sublevel.report.figures.measured import measured, networks, sparse_branches, with_dense
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.palette import PLAIN, Style, ramp
from sublevel.report.prepare import choices, first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

LAYER = "layer "

OPERATORS = {"hessian": "Hessian", "ggn": "Gauss-Newton", "adaptive": "adaptive"}
CONTROL = (
    "At equal density random-prune stands beside imp in the same space: what pruning does to any mask of that "
    "count is seen there, and only the difference is imp's."
)


def control_note(table: Frame) -> str:
    """What random-prune is there for; empty where the table has no such branch beside imp."""
    return CONTROL if {"imp", "random-prune"} <= set(table["branch"]) else ""


def operators(table: Frame, *columns: str) -> list[tuple[Frame, dict[str, str]]]:
    """The rows and the reader's words for every operator in a table, the Hessian first, then by other columns."""
    rank = {o: i for i, o in enumerate(OPERATORS)}
    found = choices(table, ["operator", *columns])
    found.sort(key=lambda c: rank.get(c["operator"], len(rank)))
    return [(where(table, **c), c | {"operator": OPERATORS.get(c["operator"], c["operator"])}) for c in found]


@figure("Curvature", "largest eigenvalues", "curvature")
def sharpness(tables: Tables) -> Figure:
    """The largest eigenvalue against density in three spaces, and the smallest beside it."""
    whole = with_density(in_spaces(tables["curvature"]), tables["levels"])
    table = first_part(whole)
    return Figure(
        key="sharpness",
        title="The largest eigenvalue",
        views=[_sharpness(rows, choice) for rows, choice in operators(table, "buffers")],
        how=(
            "The largest algebraic eigenvalue of the curvature of the train loss in three spaces, and the "
            "smallest Ritz value in the original one. Choose the Hessian, the Gauss-Newton matrix (never "
            "negative) or the adaptive curvature (blind to the weights' scale)."
        ),
        trap=(
            "Deleting coordinates at one point can only lower the k-th largest eigenvalue, so compare in one "
            "space, or with a trained random mask of the same count. With BatchNorm the Hessian's eigenvalues "
            "also scale with the weights' norm."
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


def _sharpness(frame: Frame, choice: dict[str, str]) -> View:
    axis = density_axis(frame["density"])
    panels = [
        Panel(
            title=f"Largest, {name}",
            x=axis,
            y=Axis(log=True),
            series=by_branch(where(frame, space=s), "largest", log=True),
        )
        for s, name in SPACES.items()
    ]
    panels.append(
        Panel(
            title="Smallest, original space",
            x=axis,
            series=by_branch(where(frame, space="all"), "smallest"),
        )
    )
    return view(panels, **choice)


def _doubts(table: Frame) -> list[str]:
    notes = []
    loose, dead = int((table["converged"] == 0).sum()), int((table["excluded"] > 0).sum())
    if loose:
        notes.append(f"{loose} of {len(table)} spectra had not converged when their budget was spent.")
    if dead:
        notes.append(f"Coordinates of dead filters were left out of {dead} of {len(table)} spectra.")
    return notes


@figure("Curvature", "spectra", "spectra")
def spectra(tables: Tables) -> Figure:
    """The ends of the spectrum by index, one line for each level, for every branch and space."""
    table = first_part(in_spaces(tables["spectra"]))
    names = [
        (rows, {"branch": b, **choice})
        for b in sparse_branches(table)
        for rows, choice in operators(with_dense(table, b), "buffers")
        if b in set(rows["branch"])
    ]
    return Figure(
        key="spectra",
        title="The ends of the spectrum",
        views=[_spectra(rows, choice) for rows, choice in names],
        how=(
            "The largest eigenvalues by index in each space, one line for each level from cold to warm, the dense "
            "network in grey. The last panel has the smallest ones in the original space."
        ),
        trap=(
            "Only the ends are shown, and the bulk between them decides traces and volumes. An eigenvalue of 0 or "
            "less has no place on a logarithmic axis."
        ),
        notes=["Means over seeds (geometric on the logarithmic axes)."] if table["seed"].nunique() > 1 else [],
        pooled=True,
    )


def _spectra(frame: Frame, choice: dict[str, str]) -> View:
    """A branch's levels, with the dense network beside them."""
    panels = [_ends(frame, space, "largest") for space in SPACES]
    return view([*panels, _ends(frame, "all", "smallest")], **choice)


def _ends(frame: Frame, space: str, end: str) -> Panel:
    rows, log = where(frame, space=space, end=end), end == "largest"
    levels = sorted(frame["level"].unique())
    title = f"{end.capitalize()}, {SPACES[space]}"
    return Panel(title=title, x=level_axis(rows["index"], "index"), y=Axis(log=log), series=_lines(rows, levels, log))


def _lines(frame: Frame, levels: list[float], log: bool) -> list[Series]:
    means = mean_of(frame, "eigenvalue", ["branch", "level", "index"], log=log)
    converged = frame.groupby(["branch", "level", "index"])["converged"].min()
    pairs = means[["branch", "level"]].drop_duplicates().sort_values("level").itertuples(index=False)
    found = []
    for branch, level in pairs:
        mine = where(means, branch=branch, level=level)
        loose = [bool(converged[branch, level, index] == 0) for index in mine["index"]]
        style = PLAIN if branch == "dense" else Style(ramp(levels.index(level), len(levels)))
        label = "dense" if branch == "dense" else f"level {level:g}"
        found.append(Series(
            label=label, x=list(mine["index"]), y=list(mine["mean"]),
            hollow=loose, style=style, hover=["not converged" if v else "" for v in loose],
            branch="dense" if branch == "dense" else "",
        ))  # fmt: skip
    return found


@figure("Curvature", "curvature layer by layer", "curvature")
def layers_curvature(tables: Tables) -> Figure:
    """The largest eigenvalue of every layer's own block of the curvature, by level."""
    whole = tables["curvature"]
    whole = whole[whole["space"].str.startswith(LAYER)]
    table = first_part(whole)
    order = _input_first(table, tables["layers"])
    return Figure(
        key="layer-curvature",
        title="The largest eigenvalue in each layer",
        views=[
            _blocks(rows, order, {"branch": b, **choice})
            for b in sparse_branches(table)
            for rows, choice in operators(with_dense(table, b), "buffers")
            if b in set(rows["branch"])
        ],
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
            *_doubts(table),
            f"Layers: {', '.join(f'{i} {n}' for i, n in enumerate(order, 1))}." if 0 < len(order) <= 60 else "",
            parts_note(whole, "largest", [*SOLUTION, "space", "operator"], "a layer's largest eigenvalue"),
        ],
        columns=1,
    )


def _input_first(table: Frame, layers: Frame) -> list[str]:
    """The layers in the order of the network; those that its table does not know follow by name."""
    known = layers.drop_duplicates("layer").set_index("layer")["index"]
    names = sorted({s.removeprefix(LAYER) for s in table["space"]})
    return sorted(names, key=lambda n: float(known.get(n, len(known))))


def _blocks(frame: Frame, order: list[str], choice: dict[str, str]) -> View:
    place = {name: i + 1.0 for i, name in enumerate(order)}
    rows = frame.assign(place=frame["space"].str.removeprefix(LAYER).map(place))
    axis = replace(level_axis(rows["place"], "layer, from input to output"), hover="")
    title = "Largest eigenvalue of the layer's block"
    return view([Panel(title=title, x=axis, y=Axis(log=True), series=_by_layer(rows, order))], **choice)


def _by_layer(rows: Frame, order: list[str]) -> list[Series]:
    levels = sorted(rows["level"].unique())
    found: list[Series] = []
    for name, branch, level in networks(rows):
        style = PLAIN if branch == "dense" else Style(ramp(levels.index(level), len(levels)))
        label = name if branch == "dense" else f"level {level:g}"
        mine = where(rows, branch=branch, level=level)
        mine = mine.assign(doubtful=mine["converged"] == 0, reason="not converged")
        lines = measured(mine, "largest", label, style, by="place", x="place", log=True)
        found += [
            replace(s, hover=[f"{order[int(x) - 1]}: {h}" for x, h in zip(s.x, s.hover, strict=True)]) for s in lines
        ]
    return found
