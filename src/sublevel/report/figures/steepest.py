"""The steepest directions: shared with the dense network, and how they came to be in training."""

from __future__ import annotations

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel, Series, View, view
from sublevel.report.figures.common import by_branch, density_axis
from sublevel.report.figures.measured import measured, networks
from sublevel.report.figures.registry import Tables, figure
from sublevel.report.frame import Frame
from sublevel.report.palette import PLAIN, Style, dashed, ramp
from sublevel.report.prepare import choices, first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

DEGREES = 180.0 / np.pi


@figure("Curvature", "overlap of the steepest directions", "overlaps")
def overlaps(tables: Tables) -> Figure:
    """Overlap of the span of the k steepest directions with the dense network's, against density, beside chance."""
    whole = with_density(tables["overlaps"], tables["levels"])
    table = first_part(whole)
    return Figure(
        key="overlaps",
        title="Steepest directions shared with the dense network",
        views=[_overlaps(where(table, k=k), k) for k in sorted(table["k"].dropna().unique())],
        how=(
            "The share of the span of a solution's k steepest directions that lies in the span of the dense "
            "network's, beside chance (dotted). Right, the smallest and the largest angle between the spans."
        ),
        trap=(
            "Chance is k divided by the dimension, so a small overlap can still be far above it. Where "
            "eigenvalues k and k + 1 lie close the span is arbitrary: read the share before the angles."
        ),
        notes=[seeds_note(table), parts_note(whole, "overlap", [*SOLUTION, "k"], "the overlap")],
        columns=3,
    )


def _overlaps(frame: Frame, k: float) -> View:
    axis = density_axis(frame["density"])
    panels = [
        Panel(title="Overlap of the spans", x=axis, series=[*by_branch(frame, "overlap"), *_chance(frame)]),
        Panel(title="Smallest angle (degrees)", x=axis, series=by_branch(frame, "smallest_angle", DEGREES)),
        Panel(title="Largest angle (degrees)", x=axis, series=by_branch(frame, "largest_angle", DEGREES)),
    ]
    return view(panels, k=f"{k:g}")


def _chance(frame: Frame) -> list[Series]:
    rows = frame.groupby("level")[["density", "chance"]].mean().dropna().sort_values("density", ascending=False)
    x, y = list(rows["density"]), list(rows["chance"])
    style = dashed(PLAIN, "dot")
    return [Series(label="chance", x=x, y=y, style=style, mode="line" if len(x) > 1 else "points")]


@figure("Curvature", "curvature along training", "training")
def training(tables: Tables) -> Figure:
    """Eigenvalues, loss and gradient norm at the checkpoints of a run."""
    whole = tables["training"]
    table = first_part(whole)
    return Figure(
        key="training",
        title="Curvature along training",
        views=[
            _training(where(table, branch=b, level=v, **c), {"network": name, **c})
            for name, b, v in networks(table)
            for c in choices(where(table, branch=b, level=v), ["buffers"])
        ],
        how=("The largest eigenvalues of the Hessian in the run's own subspace at the steps that the run kept, and "
"the smallest one. Below, the train loss and the gradient's norm at the same steps."),
        trap=("The Hessian of the cross-entropy vanishes with the loss, so a curvature that falls late need not be "
"a wider valley. A checkpoint is one draw of a noisy path."),
        notes=[_loose(table), seeds_note(table, ["branch", "level", "step"]),
               parts_note(where(whole, index=1.0), "eigenvalue", [*SOLUTION, "step"], "the largest eigenvalue")],
    )  # fmt: skip


def _loose(table: Frame) -> str:
    once = table.drop_duplicates([*SOLUTION, "step"])
    loose = int((once["converged"] == 0).sum())
    return f"{loose} of {len(once)} spectra had not converged when their budget was spent (hollow)." if loose else ""


def _training(frame: Frame, choice: dict[str, str]) -> View:
    frame = frame.assign(doubtful=frame["converged"] == 0, reason="not converged")
    once = frame.drop_duplicates(["seed", "step"])
    log = bool((frame["eigenvalue"] > 0).all())
    axis = Axis(title="step", hover=",d")
    indices = sorted(frame["index"].dropna().unique())
    top = [
        s for i in indices for s in _along(where(frame, index=i), "eigenvalue", f"eigenvalue {i:g}", i, indices, log)
    ]
    loss, gradient = Style("#d9601a", "square"), Style("#0a9b74", "diamond")
    panels = [
        Panel(title="Largest eigenvalues", x=axis, y=Axis(log=log), series=top),
        Panel(title="Smallest eigenvalue", x=axis, series=_single(once, "smallest", Style("#8667bd", "triangle-down"))),
        Panel(title="Train loss", x=axis, y=Axis(log=True), series=_single(once, "loss", loss, log=True)),
        Panel(
            title="Gradient norm", x=axis, y=Axis(log=True), series=_single(once, "gradient_norm", gradient, log=True)
        ),
    ]
    return view(panels, **choice)


def _along(frame: Frame, value: str, label: str, index: float, indices: list[float], log: bool) -> list[Series]:
    style = Style(ramp(indices.index(index), len(indices)))
    return measured(frame, value, label, style, by="step", x="step", log=log)


def _single(frame: Frame, value: str, style: Style, *, log: bool = False) -> list[Series]:
    names = {"smallest": "smallest eigenvalue", "loss": "train loss", "gradient_norm": "gradient norm"}
    kept = frame if value == "smallest" else frame.drop(columns=["doubtful"])
    return measured(kept, value, names[value], style, by="step", x="step", log=log)
