"""Steep directions on kept weights, the largest pruning step, and sublevel sets of loss and error."""

from __future__ import annotations

from sublevel.report.describe import Axis, Figure, Panel
from sublevel.report.figures.common import POINTS, by_branch, chance, density_axis, views
from sublevel.report.figures.registry import figure
from sublevel.report.frame import Frame, Tables
from sublevel.report.prepare import doubts_note, first_part, seeds_note, where, with_density


@figure("Curvature", "steep directions on kept and pruned weights", "anatomy")
def anatomy(tables: Tables) -> Figure:
    """Shares of the eigenspace and of the curvature on kept and pruned weights, with those of a random set."""
    table = first_part(with_density(tables["anatomy"], tables["levels"]))
    return Figure(
        key="anatomy",
        title="Steep directions on kept and pruned weights",
        views=views(table, ["set"], _anatomy),
        how=(
            "The share of the k steepest directions (left) and of the curvature's diagonal (middle) on the weights "
            "that the mask keeps, or that the next level would prune; dotted, a random set. Right, the overlap of the "
            "steepest directions with the level before."
        ),
        trap=(
            "The diagonal ignores how weights act together. A mask that keeps steep weights and a training that makes "
            "the kept ones steep look alike: compare with a random mask's solution."
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
            "The largest fraction that one step of magnitude pruning may remove, so that the subspace of the others "
            "still reaches a train loss eps above the solution's. There their number equals the effective dimension of "
            "the quadratic basin."
        ),
        trap=("The prediction assumes a quadratic and a random subspace. Compare it with retrained one-shot tickets."),
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
            "Rays in many dimensions see the typical direction only. An error moves in steps of one example. Heights "
            "in nats and points differ in kind: compare the order of solutions, not the distances of two sets."
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
