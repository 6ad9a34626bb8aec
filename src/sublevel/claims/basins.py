"""The claims about connected sublevel sets and barriers: C7, C8 and C11."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, isfinite, nan

import numpy as np
from numpy.typing import NDArray

from sublevel.claims.accuracy import RANDOM, first_measured, label, matching
from sublevel.claims.combine import agreement, tickets
from sublevel.claims.margins import ERROR_MARGIN, ERROR_RESOLUTION, FEWEST_SEEDS, PREDICTION, RISE_MARGIN
from sublevel.claims.parts import ClaimPart
from sublevel.claims.paths import of_paths, relative_rise, rise_over, rise_part
from sublevel.claims.query import Cells, Measured, Selection, Tables, densities, indexed, look
from sublevel.claims.registry import claim
from sublevel.stats import Estimated, Excess, prediction_bound

ORDERS = ("shared", "independent")
SOLUTIONS = {
    "imp": "IMP's solution",
    "reinit": "the re-initialised network",
    "random-prune": "the random mask",
    "random-imp": "the random mask",
}
"""The solutions of a branch, in a sentence."""
TEN = f"{100 * RISE_MARGIN:g}%"
NO_PATH = f"we found no path from {{}} that rises less than {TEN}"


@claim(
    "C7",
    "Rewound starts and their solutions stay in the dense network's sublevel set; re-initialisation and random masks "
    "leave it.",
    figure="membership",
    combine=tickets,
)
def stays_inside(tables: Tables) -> Iterator[ClaimPart]:
    """Two questions about each solution: is its loss below the dense threshold, and is there a path to it?

    The threshold is a t prediction bound over the dense networks; the test includes its error. The path is the best of
    a segment and a curve, judged by its rise over the higher end. A solution is outside the set if its loss is above
    the threshold or no path is found. A new initialisation is searched before and after weight matching with equal
    effort, and the lower path counts, since a barrier may be only a permutation. A start is judged at its own height.
    """
    yield end_loss(tables, "imp", inside=True)
    yield best_path(tables, "imp", inside=True)
    start = look(tables, "paths", path="start-to-dense", branch=label(tables, "imp"), split="train").one_view()
    yield rise_part(
        "imp, from its start to dense, rise over the higher end",
        of_paths(tables, start, relative_rise),
        high=RISE_MARGIN,
        holds=f"the segment from IMP's start to the dense network rises by less than {TEN}",
        fails=f"the segment from IMP's start to the dense network rises by more than {TEN}",
    )
    random = first_measured(tables, "membership", RANDOM)
    for branch in ("reinit", random):
        yield end_loss(tables, branch, inside=False)
        yield best_path(tables, branch, inside=False, matched=branch == "reinit")


@claim(
    "C8",
    "Successive IMP solutions are separated by a barrier in the train loss, and by none in the train error.",
    figure="barriers",
    combine=tickets,
)
def barrier_in_loss_alone(tables: Tables) -> Iterator[ClaimPart]:
    """A rise above the margin in loss and equivalence in error, under both data orders.

    For comparison, the height over the chord, in nats and as a share of the fall of the dense run's train loss.
    """
    for order in ORDERS:
        rows = successive(tables, order)
        yield rise_part(
            f"successive, {order} order, rise of the loss over the higher end",
            of_paths(tables, rows, relative_rise),
            low=RISE_MARGIN,
            holds=f"the loss rises by more than {TEN} between successive solutions",
            fails=f"the loss rises by less than {TEN} between successive solutions",
        )
        yield error_barrier(tables, rows, f"successive, {order} order, error barrier")
    for order in ORDERS:
        rows = successive(tables, order)
        chord = of_paths(tables, rows, "loss_barrier")
        yield ClaimPart(name=f"{order} order, height over the chord", unit="nats", measured=chord, decisive=False)
        share = Measured(shares_of_fall(tables, chord.values), chord.density, "levels with a finite train_loss_start")
        yield ClaimPart(
            name=f"{order} order, height over the chord as a share of the dense run's fall",
            unit="share",
            measured=share,
            decisive=False,
        )


@claim(
    "C11",
    "The error barrier between successive IMP solutions is zero if and only if the ticket matches the dense network.",
    figure="barriers",
    combine=agreement,
)
def zero_barrier_iff_matching(tables: Tables) -> Iterator[ClaimPart]:
    """From Paul et al. (2210.03044), decided over the densities, with one margin for both parts.

    Their other result, how flatness bounds the fraction that can be pruned, needs flatness over a sweep of fractions.
    """
    order = next((o for o in ORDERS if len(successive(tables, o))), "shared")
    yield error_barrier(
        tables, successive(tables, order), "error barrier", "how flatness bounds the fraction is not measured"
    )
    yield matching(tables)


def successive(tables: Tables, order: str) -> Selection:
    """The segments between IMP's levels under a data order, on the training set, under one buffer policy."""
    names = tuple(indexed(tables).branches.orders("imp")) or ("imp",)
    rows = look(tables, "paths", path="successive", branch=names, order=order, split="train")
    return rows.prefer("branch", names).one_view()


def error_barrier(tables: Tables, rows: Selection, name: str, *notes: str) -> ClaimPart:
    """The error barrier of paths over the chord, equivalent to 0."""
    return ClaimPart(
        name=name,
        unit="error barrier",
        measured=of_paths(tables, rows, "error_barrier", *notes),
        high=ERROR_MARGIN,
        floor=ERROR_RESOLUTION,
        holds="there is no error barrier",
        fails="there is an error barrier",
    )


def shares_of_fall(tables: Tables, heights: Cells) -> Cells:
    """Heights divided by the fall of the dense run's train loss since the rewind step, by level and seed."""
    rows = look(tables, "levels", branch=label(tables, "dense"))
    fallen = rows.cells(rows.numbers("train_loss_start") - rows.numbers("train_loss"))
    falls = {seed: fall for (_, seed), fall in fallen.items()}
    return {
        (level, seed): height / falls[seed]
        for (level, seed), height in heights.items()
        if isfinite(falls.get(seed, nan)) and falls[seed] > 0
    }


def end_loss(tables: Tables, branch: str, *, inside: bool) -> ClaimPart:
    """The loss of a branch's solutions minus the dense threshold, whose error is part of the interval."""
    rows = members(tables, branch)
    dense = dense_losses(tables)
    bound = prediction_bound(list(dense.values()), PREDICTION) if len(dense) > 1 else nan
    losses = rows.cells("loss")

    def law(level: int, seeds: Sequence[int]) -> Estimated:
        others = [loss for seed, loss in dense.items() if seed not in seeds]
        ours = tuple(losses[level, seed] for seed in seeds)
        return Excess(ours, (*(dense[seed] for seed in seeds), *others), PREDICTION)

    stated = (
        f"dense threshold {bound:.4g}: a new dense loss lies below it with probability {PREDICTION:g}; the interval "
        "includes its error"
        if isfinite(bound)
        else "no dense threshold: it needs the losses of two dense networks"
    )
    values = {(level, seed): loss - bound if seed in dense else nan for (level, seed), loss in losses.items()}
    words = [
        f"the loss of {SOLUTIONS.get(branch, branch)} is {side} the dense threshold" for side in ("below", "above")
    ]
    notes = tuple(filter(None, (stated, rows.note)))
    return ClaimPart(
        name=f"{branch}, end loss - dense threshold",
        unit="train loss",
        measured=Measured(values, densities(tables, label(tables, branch)), rows.asked, notes, law),
        holds=words[0] if inside else words[1],
        fails=words[1] if inside else words[0],
        either="" if inside else branch,
        low=-inf if inside else 0.0,
        high=0.0 if inside else inf,
    )


def best_path(tables: Tables, branch: str, *, inside: bool, matched: bool = False) -> ClaimPart:
    """The rise, over its higher end, of the best path found to the dense network.

    ``matched``: the lower of the best paths before and after weight matching, where both were searched.
    """
    rows = members(tables, branch)
    values = rows.cells(rise_of(rows))
    if matched:
        other = members(tables, branch, aligned=True)
        after = other.cells(rise_of(other))
        values = {key: min(values[key], after[key]) for key in values.keys() & after.keys()}
    after_words = ", before or after weight matching" if matched else ""
    end = SOLUTIONS.get(branch, branch)
    joined, apart = f"a path from {end} rises less than {TEN}", NO_PATH.format(end)
    asked = f"{rows.asked}, aligned = 0 and 1" if matched else rows.asked
    measured = Measured(values, densities(tables, label(tables, branch)), asked, (rows.note,) if rows.note else ())
    return rise_part(
        f"{branch}, rise of the best path over the higher end{after_words}",
        measured,
        holds=joined if inside else apart,
        fails=apart if inside else joined,
        either="" if inside else branch,
        low=-inf if inside else RISE_MARGIN,
        high=RISE_MARGIN if inside else inf,
    )


def threshold(losses: Sequence[float]) -> float:
    """The height of the dense networks' sublevel set: the t prediction bound for the loss of a new dense network.

    Below three networks, which give no bound: the mean loss and `RISE_MARGIN` of it.
    """
    known = [loss for loss in losses if isfinite(loss)]
    if len(known) >= FEWEST_SEEDS:
        return float(prediction_bound(known, PREDICTION))
    return (1 + RISE_MARGIN) * float(np.mean(known)) if known else nan


def members(tables: Tables, branch: str, *, aligned: bool = False) -> Selection:
    """Searches for a path to the dense network, before or after weight matching."""
    rows = look(tables, "membership", branch=label(tables, branch))
    return rows.keep((rows.numbers("aligned") == 1) == aligned).one_view()


def rise_of(rows: Selection) -> NDArray[np.float64]:
    """The rise of the lowest path maximum over the higher of the two losses."""
    return rise_over(rows.numbers("lowest_max"), rows.numbers("loss"), rows.numbers("loss_dense"))


def dense_losses(tables: Tables) -> dict[int, float]:
    """The loss of each seed's dense network on the examples of the searches."""
    by_seed: dict[int, list[float]] = {}
    for (_, seed), loss in look(tables, "membership").one_view().cells("loss_dense").items():
        if isfinite(loss):
            by_seed.setdefault(seed, []).append(loss)
    return {seed: float(np.mean(mine)) for seed, mine in sorted(by_seed.items())}
