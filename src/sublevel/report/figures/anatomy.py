"""What solutions are made of, how far one step may prune, and sets of the loss beside sets of the error."""

from __future__ import annotations

from sublevel.report.describe import Axis, Figure, Panel
from sublevel.report.figures.common import POINTS, by_branch, chance, density_axis, views
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.prepare import doubts_note, first_part, seeds_note, where, with_density


@figure("Curvature", "steep directions on kept and pruned weights", "anatomy")
def anatomy(tables: Tables) -> Figure:
    """Shares of the eigenspace and of the curvature on what pruning keeps and removes, beside a random set's."""
    table = first_part(with_density(tables["anatomy"], tables["levels"]))
    return Figure(
        key="anatomy",
        title="Steep directions on kept and pruned weights",
        views=views(table, ["set"], _anatomy),
        how=(
            "kept: weights that the solution's mask keeps, out of all prunable weights. next: weights that the next "
            "level would prune, out of those that are left. Left, their share of the k steepest directions; middle, "
            "of the diagonal of the curvature; dotted, what a random set of as many weights has. Right, the share of "
            "the k steepest directions in common with the level before."
        ),
        trap=(
            "The diagonal ignores how weights act together. A mask that keeps the steep weights and a training that "
            "makes the kept weights steep look alike here: compare with a random mask's solution."
        ),
        notes=[seeds_note(table)],
        columns=3,
    )


def _anatomy(frame: Frame) -> list[Panel]:
    axis = density_axis(frame["density"])
    eigenspace = [*by_branch(frame, "eigenspace", POINTS), *chance(frame, "share", POINTS)]
    trace = [*by_branch(frame, "trace", POINTS), *chance(frame, "trace_matched", POINTS)]
    panels = [
        Panel(title="Share of the steepest directions", x=axis, y=Axis(share=True), series=eigenspace),
        Panel(title="Share of the curvature's diagonal", x=axis, y=Axis(share=True), series=trace),
    ]
    if frame["overlap_before"].notna().any():
        shared = [*by_branch(frame, "overlap_before", POINTS), *chance(frame, "overlap_chance", POINTS)]
        panels.append(Panel(title="Steepest directions of the level before", x=axis, y=Axis(share=True), series=shared))
    return panels


@figure("Curvature", "predicted largest fraction of one pruning step", "limits")
def limits(tables: Tables) -> Figure:
    """The largest fraction that one step of magnitude pruning may remove, as the spectrum predicts it."""
    table = first_part(with_density(tables["limits"], tables["levels"]))
    table = table.assign(doubtful=table["reason"] != "")
    return Figure(
        key="limits",
        title="How far one step may prune, as predicted",
        views=views(table, ["eps"], _limits),
        how=(
            "The largest fraction of the weights left that one step of magnitude pruning may remove, so that the "
            "subspace of the others still reaches a train loss eps above the solution's: where their number falls "
            "below the effective dimension of the quadratic basin, seen from the pruned point."
        ),
        trap=(
            "A prediction from a quadratic and a random subspace. Hold it against one-shot tickets that were retrained."
        ),
        notes=[seeds_note(table), doubts_note(table, "predictions")],
        columns=2,
    )


def _limits(frame: Frame) -> list[Panel]:
    axis = density_axis(frame["density"])
    return [
        Panel(
            title="Largest fraction", x=axis, y=Axis(share=True), series=by_branch(frame, "fraction", POINTS)
        ),
        Panel(title="Effective dimension there", x=axis, y=Axis(log=True),
              series=by_branch(frame, "effective_dimension", log=True)),
    ]  # fmt: skip


@figure("Volume", "sublevel sets of the loss and of the error", "exits")
def exits(tables: Tables) -> Figure:
    """Distances at which rays leave sublevel sets of the train loss, the train error and the test error."""
    table = with_density(tables["exits"], tables["levels"])
    return Figure(
        key="exits",
        title="Sublevel sets of the loss and of the error",
        views=views(table, ["space"], _exits),
        how=(
            "The median distance at which random rays from a solution leave the set where the train loss, the train "
            "error or the test error is at most a height above the solution's. All three sets share their rays."
        ),
        trap=(
            "Rays in many dimensions see the typical direction only. An error moves in steps of one example, and may "
            "fall below the solution's along a ray. Heights in nats and in points do not compare: compare the order of "
            "solutions, not the distances of two sets."
        ),
        notes=[seeds_note(table, ["branch", "level", "of", "height"])],
        columns=3,
    )


def _exits(frame: Frame) -> list[Panel]:
    axis = density_axis(frame["density"])
    return [
        Panel(
            title=f"{of.capitalize()} + {height:g}",
            x=axis,
            y=Axis(title="distance", log=True),
            series=by_branch(where(frame, of=of, height=height), "radius", log=True),
        )
        for of, height in frame[["of", "height"]].drop_duplicates().itertuples(index=False)
    ]
