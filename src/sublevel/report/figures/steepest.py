"""The steepest directions: shared with the dense network, and how they came to be in training."""

from __future__ import annotations

import numpy as np

from sublevel.report.describe import Axis, Figure, Panel
from sublevel.report.figures.common import by_branch, chance, density_axis, views, with_network
from sublevel.report.figures.measured import measured
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.palette import Style, ramp
from sublevel.report.prepare import first_part, parts_note, seeds_note, where, with_density
from sublevel.tables import SOLUTION

DEGREES = 180.0 / np.pi


@figure("Curvature", "overlap of the steepest directions", "overlaps")
def overlaps(tables: Tables) -> Figure:
    """Overlap of the span of the k steepest directions with the dense network's, against density, with chance."""
    whole = with_density(tables["overlaps"], tables["levels"])
    table = first_part(whole)
    return Figure(
        key="overlaps",
        title="Steepest directions shared with the dense network",
        views=views(table[table["k"].notna()], ["k"], _overlaps),
        how=(
            "The share of the span of a solution's k steepest directions that lies in the span of the dense "
            "network's, with chance (dotted). The panel of angles has the smallest and the largest one."
        ),
        trap=(
            "Chance is k divided by the dimension, so a small overlap can still be far above it. Where "
            "eigenvalues k and k + 1 lie close the span is arbitrary: read the share before the angles."
        ),
        notes=[seeds_note(table), parts_note(whole, "overlap", [*SOLUTION, "k"], "the overlap")],
        columns=3,
    )


def _overlaps(frame: Frame) -> list[Panel]:
    axis = density_axis(frame["density"])
    overlap = [*by_branch(frame, "overlap"), *chance(frame, "chance")]
    return [
        Panel(title="Overlap of the spans", x=axis, series=overlap),
        Panel(title="Smallest angle (degrees)", x=axis, series=by_branch(frame, "smallest_angle", DEGREES)),
        Panel(title="Largest angle (degrees)", x=axis, series=by_branch(frame, "largest_angle", DEGREES)),
    ]


@figure("Curvature", "curvature along training", "training")
def training(tables: Tables) -> Figure:
    """Eigenvalues, loss and gradient norm at the checkpoints of a run."""
    whole = tables["training"]
    table = first_part(whole)
    spectra = table.drop_duplicates([*SOLUTION, "step"])
    loose = int((spectra["converged"] == 0).sum())
    return Figure(
        key="training",
        title="Curvature along training",
        views=views(with_network(table), ["network", "buffers"], _training, ["branch", "level", "buffers"]),
        how=(
            "The largest eigenvalues of the Hessian in the run's own subspace at the steps that the run kept, and "
            "the smallest one, with the train loss and the gradient's norm at the same steps."
        ),
        trap=(
            "The Hessian of the cross-entropy vanishes with the loss, so a curvature that falls late need not be "
            "a wider valley. A checkpoint is one draw of a noisy path."
        ),
        notes=[
            f"{loose} of {len(spectra)} spectra had not converged when their budget was spent (hollow)." * bool(loose),
            seeds_note(table, ["branch", "level", "step"]),
            parts_note(where(whole, index=1.0), "eigenvalue", [*SOLUTION, "step"], "the largest eigenvalue"),
        ],
    )


def _training(frame: Frame) -> list[Panel]:
    frame = frame.assign(doubtful=frame["converged"] == 0, reason="not converged")
    once = frame.drop_duplicates(["seed", "step"])
    log = bool((frame["eigenvalue"] > 0).all())
    axis = Axis(title="step", hover=",d")
    indices = sorted(frame["index"].dropna().unique())
    top = [
        s
        for n, i in enumerate(indices)
        for s in measured(
            where(frame, index=i), "eigenvalue", f"eigenvalue {i:g}", Style(ramp(n, len(indices))), x="step", log=log
        )
    ]
    smallest = measured(once, "smallest", "smallest eigenvalue", Style("#8667bd", "triangle-down"), x="step")
    certain = once.drop(columns="doubtful")
    loss = measured(certain, "loss", "train loss", Style("#d9601a", "square"), x="step", log=True)
    norm = measured(certain, "gradient_norm", "gradient norm", Style("#0a9b74", "diamond"), x="step", log=True)
    return [
        Panel(title="Largest eigenvalues", x=axis, y=Axis(log=log), series=top),
        Panel(title="Smallest eigenvalue", x=axis, series=smallest),
        Panel(title="Train loss", x=axis, y=Axis(log=True), series=loss),
        Panel(title="Gradient norm", x=axis, y=Axis(log=True), series=norm),
    ]
