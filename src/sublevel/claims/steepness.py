"""The claims about curvature and the pruning step: C6 and C10."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sublevel.claims.accuracy import label
from sublevel.claims.parts import ClaimPart
from sublevel.claims.query import Cells, Measured, Tables, densities, difference, look
from sublevel.claims.registry import claim

MOMENTS = {"before": "before pruning", "retrained": "at the retrained point"}


@claim("C6", "The dimensions that pruning removes are the steep ones.", figure="coordinates")
def removes_the_steep(tables: Tables) -> Iterator[ClaimPart]:
    """How often a pruned weight has more curvature than a kept one of its layer, at the dense network and each level.

    The statistic is fixed: the area under the curve (AUC) of the ranks, a mean over layers, without inputs that do not
    vary and dead units; 0.5 for no difference. It needs no positive curvature.
    """
    for when, words in MOMENTS.items():
        yield ClaimPart(
            name=f"pruned against kept, {words}",
            unit="AUC - 0.5",
            measured=ranks(tables, when),
            low=0.0,
            dense=when == "before",
            holds=f"the pruned weights are the steeper ones {words}",
            fails=f"the pruned weights are the flatter ones {words}",
        )


@claim(
    "C10",
    "Pruning small weights raises the train loss less than pruning random ones of the same layers.",
    figure="prunings",
)
def small_weights_cost_less(tables: Tables) -> Iterator[ClaimPart]:
    """The mean rise over random draws minus the criterion's own."""
    mine = look(tables, "prunings", branch=label(tables, "imp")).one_view()
    draws = mine.numbers("draw")[np.array([by == "random" for by in mine.words("chosen_by")], dtype=bool)]
    chosen, random = (rise(tables, by) for by in ("criterion", "random"))
    notes = (f"{len(np.unique(draws))} random draws", *([mine.note] if mine.note else []))
    measured = Measured(difference(random, chosen), densities(tables, label(tables, "imp")), mine.asked, notes)
    yield ClaimPart(
        name="random - small weights, rise of the train loss",
        unit="train loss",
        measured=measured,
        low=0.0,
        holds="pruning random weights raises the train loss by {} more",
        fails="pruning small weights raises the train loss by {} more",
    )


def ranks(tables: Tables, when: str) -> Measured:
    """The rank statistic over 0.5, by level and seed; level 0 is the dense network."""
    names = (label(tables, "imp"), label(tables, "dense"))
    rows = look(tables, "coordinates", branch=names, when=when, set="pruned").one_view()
    present = "rank" in rows.columns.names
    values: Cells = rows.cells(rows.numbers("rank") - 0.5) if present else {}
    asked = rows.asked if present else f"{rows.asked} that have a rank"
    return Measured(values, densities(tables, names[0]), asked, (rows.note,) if rows.note else ())


def rise(tables: Tables, chosen_by: str) -> Cells:
    """What pruning adds to the train loss, the mean over draws."""
    rows = look(tables, "prunings", branch=label(tables, "imp"), chosen_by=chosen_by).one_view()
    return rows.cells(rows.numbers("loss_end") - rows.numbers("loss_start"))
