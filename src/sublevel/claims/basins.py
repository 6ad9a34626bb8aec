"""The claims about connected sublevel sets and barriers: C7, C8 and C11."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf, isfinite

import numpy as np
from numpy.typing import NDArray

from sublevel.claims.accuracy import matching
from sublevel.claims.combine import agreement
from sublevel.claims.margins import ERROR_BARRIER, PREDICTION, loss_margin
from sublevel.claims.parts import Part
from sublevel.claims.query import Measured, Rows, Tables, densities, end_losses, look
from sublevel.claims.registry import claim
from sublevel.stats import prediction_bound

ORDERS = {"shared": ("imp", "imp-shared"), "independent": ("imp", "imp-independent")}
"""Data order -> what imp's solutions under it may be called."""


@claim(
    "C7",
    "Rewound starts and their solutions stay in the dense network's sublevel set; re-initialisation and random masks "
    "leave it.",
    figure="membership",
)
def stays_inside(tables: Tables) -> Iterator[Part]:
    """Path maxima over the dense threshold, a t prediction bound over the dense networks.

    A start is judged at its own height, by the path from it to the dense solution: no trained network's threshold lies
    above an untrained loss. Beside them stand the end-point losses alone, and random masks after weight matching,
    which start from the same weights and need none.
    """
    yield excess(tables, "imp", "lowest_max", inside=True)
    yield start_to_dense(tables, "imp")
    for branch in ("reinit", "random-prune"):
        yield excess(tables, branch, "lowest_max", inside=False)
    yield aligned(tables, "reinit")
    yield excess(tables, "imp", "loss", inside=True, decisive=False)
    for branch in ("reinit", "random-prune"):
        yield excess(tables, branch, "loss", inside=False, decisive=False)
    yield start_to_dense(tables, "reinit", decisive=False)
    yield aligned(tables, "random-prune", decisive=False)


@claim(
    "C8",
    "Successive IMP solutions are separated by a barrier in the train loss, and by none in the train error.",
    figure="barriers",
)
def barrier_in_loss_alone(tables: Tables) -> Iterator[Part]:
    """Superiority in loss and equivalence in error, under both data orders."""
    for order in ORDERS:
        rows = successive(tables, order)
        margin = end_losses(rows)
        yield Part(
            name=f"successive, {order} order, loss barrier",
            unit="loss barrier",
            measured=of_paths(tables, rows, "loss_barrier"),
            low=margin,
            holds="a barrier",
            fails="no barrier",
        )
        yield error_barrier(tables, rows, f"successive, {order} order, error barrier")


@claim(
    "C11",
    "The error barrier between successive IMP solutions is zero if and only if the ticket matches the dense network.",
    figure="barriers",
    combine=agreement,
)
def zero_barrier_iff_matching(tables: Tables) -> Iterator[Part]:
    """Of Paul et al. (2210.03044), at each of the densities. Their other half is not tested here.

    That half, how flatness bounds the fraction that can be pruned, needs flatness over a sweep of fractions.
    """
    order = next((o for o in ORDERS if len(successive(tables, o))), "shared")
    yield error_barrier(
        tables, successive(tables, order), "error barrier", "how flatness bounds the fraction is not measured"
    )
    yield matching(tables)


def successive(tables: Tables, order: str) -> Rows:
    """The segments between imp's levels under a data order, on the training set, under one buffer policy."""
    rows = look(tables, "paths", path="successive", branch=ORDERS[order], order=order, split="train")
    return rows.prefer("branch", ORDERS[order]).one_view()


def of_paths(tables: Tables, rows: Rows, values: str | NDArray[np.float64], *notes: str) -> Measured:
    """A value of each path, by the level that it leads to."""
    known = densities(tables, *sorted({"imp", *rows.words("branch")}))
    chosen = (f"{rows.note} on paths",) if rows.note else ()
    return Measured(rows.cells(values, "level_to"), known, rows.asked, (*chosen, *notes))


def error_barrier(tables: Tables, rows: Rows, name: str, *notes: str) -> Part:
    """The error barrier of paths, equivalent to 0."""
    return Part(
        name=name,
        unit="error barrier",
        measured=of_paths(tables, rows, "error_barrier", *notes),
        low=-ERROR_BARRIER,
        high=ERROR_BARRIER,
        holds="no barrier",
        fails="a barrier",
    )


def excess(tables: Tables, branch: str, column: str, *, inside: bool, decisive: bool = True) -> Part:
    """Path maximum, or end-point loss, of a branch over the threshold of the dense networks.

    A path that stays below proves membership. One that does not only says that none was found with this effort, unless
    the end point itself lies above.
    """
    rows = look(tables, "membership", branch=branch).one_view()
    every = look(tables, "membership").one_view()
    bound = threshold(every.cells("loss_dense"))
    what = "path maximum" if column == "lowest_max" else "end-point loss"
    outside = "outside, as far as was searched" if column == "lowest_max" else "above the threshold"
    within = "inside" if column == "lowest_max" else "below the threshold"
    return Part(
        name=f"{branch}, {what} - dense threshold",
        unit="train loss",
        measured=over(rows, bound, rows.cells(rows.numbers(column) - bound), densities(tables, branch)),
        high=0.0 if inside else inf,
        low=-inf if inside else 0.0,
        holds=within if inside else outside,
        fails=outside if inside else within,
        decisive=decisive,
    )


def start_to_dense(tables: Tables, branch: str, *, decisive: bool = True) -> Part:
    """Whether the loss rises above the start on the way from it to the dense solution."""
    rows = look(tables, "paths", path="start-to-dense", branch=branch, split="train").one_view()
    return Part(
        name=f"{branch}, from its start to dense, height over the higher end",
        unit="train loss",
        measured=of_paths(tables, rows, "loss_height"),
        high=end_losses_of_dense(rows),
        holds="inside at its own height",
        fails="behind a barrier",
        decisive=decisive,
    )


def aligned(tables: Tables, branch: str, *, decisive: bool = True) -> Part:
    """Path maximum after weight matching over the dense threshold: a barrier may be only a permutation."""
    rows = look(tables, "paths", path="to-dense-aligned", branch=branch, split="train").one_view()
    bound = threshold(rows.cells("loss_from", "level_to"))
    known = densities(tables, branch)
    return Part(
        name=f"{branch} after weight matching, path maximum - dense threshold",
        unit="train loss",
        measured=over(rows, bound, rows.cells(rows.numbers("loss_max") - bound, "level_to"), known),
        low=0.0,
        holds="outside, as far as was searched",
        fails="inside",
        decisive=decisive,
    )


def over(rows: Rows, bound: float, values: dict[tuple[int, int], float], known: dict[int, float]) -> Measured:
    """Values over a threshold, and what the threshold is."""
    said = (
        f"dense threshold {bound:.4g}, below which a new dense loss lies with probability {PREDICTION:g}"
        if isfinite(bound)
        else "no dense threshold: it needs the losses of two dense networks"
    )
    return Measured(values, known, rows.asked, tuple(filter(None, (said, rows.note))))


def threshold(losses: dict[tuple[int, int], float]) -> float:
    """The t prediction bound over dense networks, one loss for each seed; NaN below two."""
    by_seed: dict[int, list[float]] = {}
    for (_, seed), loss in losses.items():
        if isfinite(loss):
            by_seed.setdefault(seed, []).append(loss)
    return prediction_bound([float(np.mean(mine)) for mine in by_seed.values()], PREDICTION)


def end_losses_of_dense(rows: Rows) -> float:
    """The loss margin by the dense ends alone: a start's loss is no end of training."""
    cells = rows.cells("loss_to", "level_to")
    return loss_margin([[v for (at, _), v in cells.items() if at == level] for level in {at for at, _ in cells}])
