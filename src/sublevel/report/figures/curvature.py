"""Curvature: the extreme eigenvalues of the Hessian in three spaces."""

from __future__ import annotations

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import SPACES, by_branch, density_axis, level_axis, mean_of
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.palette import PLAIN, Style, known_first, ramp
from sublevel.report.prepare import choices, seeds_note, where, with_density

INTERLACING = (
    "Interlacing: at one point, deleting coordinates can only lower the k-th largest eigenvalue, so "
    "compare two solutions in one space or beside a trained random mask of the same count."
)


@figure("Curvature", "largest eigenvalues")
def sharpness(tables: Tables) -> Figure:
    """The largest eigenvalue against density in three spaces, and the smallest beside it."""
    table = with_density(tables["curvature"], tables["levels"])
    return Figure(
        key="sharpness",
        title="The largest eigenvalue of the Hessian",
        views=[_sharpness(where(table, **c), c) for c in choices(table, ["buffers"])],
        how="The largest algebraic eigenvalue of the Hessian of the train loss against density, in the "
        "solution's own subspace, in the original space and in the subspace of the next level; last, the "
        "smallest Ritz value in the original space.",
        trap=f"{INTERLACING} With BatchNorm the eigenvalues also scale with the weights' norm, and a dead "
        "filter can raise them by orders of magnitude.",
        notes=[
            seeds_note(table),
            "On a logarithmic axis the mean is the geometric one." * bool(len(table)),
            *_doubts(table),
        ],
    )


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


@figure("Curvature", "spectra")
def spectra(tables: Tables) -> Figure:
    """The ends of the spectrum by index, one line for each level, for every branch and space."""
    table = tables["spectra"]
    branches = [b for b in known_first(table["branch"]) if b != "dense"] or ["dense"]
    names = [{"branch": b, "buffers": p} for b in branches for p in sorted(where(table, branch=b)["buffers"].unique())]
    return Figure(
        key="spectra",
        title="The ends of the spectrum",
        views=[_spectra(table, **c) for c in names],
        how="The largest eigenvalues by index in each space (logarithmic), one line for each level from "
        "cold to warm and the dense network in grey; the last panel shows the smallest ones in the "
        "original space, negative eigenvalues included.",
        trap="Only the ends are shown: negative eigenvalues are never turned positive, those of 0 or "
        "less have no place on a logarithmic axis, and the bulk between the ends decides traces and "
        "volumes.",
        notes=["Means over seeds (geometric on the logarithmic axes)."] if table["seed"].nunique() > 1 else [],
    )


def _spectra(table: Frame, branch: str, buffers: str) -> View:
    """A branch's levels, with the dense network beside them."""
    frame = table[table["branch"].isin([branch, "dense"]) & (table["buffers"] == buffers)]
    panels = [_ends(frame, space, "largest") for space in SPACES]
    return view([*panels, _ends(frame, "all", "smallest")], branch=branch, buffers=buffers)


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
        ))  # fmt: skip
    return found
