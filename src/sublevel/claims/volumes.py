"""The claims about volume: C5 and C9."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sublevel.claims.accuracy import label, matching, worse_than_imp
from sublevel.claims.combine import tickets
from sublevel.claims.margins import STEP_VOLUMES, VOLUME
from sublevel.claims.parts import ClaimPart
from sublevel.claims.query import Measured, Selection, Tables, densities, difference, look
from sublevel.claims.registry import claim

CONTROL = "random-imp"
"""Trained random masks with as many weights as IMP's, made level by level."""

METHODS = {"logdet": "GGN log-determinant", "top-k": "top-k ellipsoid", "rays": "rays"}


@claim(
    "C5",
    "IMP solutions generalise as well as the dense network, yet have less volume in the original space, by more than "
    "random masks lose.",
    figure="volume-pairs",
    combine=tickets,
)
def generalises_with_less_volume(tables: Tables) -> Iterator[ClaimPart]:
    """Non-inferiority of the error; volume at matched loss below the dense run's; a fall beyond the random control's.

    Any mask narrows the original space, so only the excess over random masks is due to IMP. Loss is matched at
    checkpoints along each run. One estimator, fixed in advance, decides; the others are shown for comparison.
    """
    yield matching(tables)
    for method in (VOLUME, *(m for m in METHODS if m != VOLUME)):
        mine, control = (matched(tables, branch, method) for branch in ("imp", CONTROL))
        decisive = method == VOLUME
        what = f"log volume at matched loss, {METHODS[method]}"
        yield less_volume(
            f"imp - dense, {what}",
            mine,
            "IMP's solution has less volume than the dense one by {} nats",
            "IMP's solution has more volume than the dense one by {} nats",
            decisive=decisive,
        )
        yield less_volume(
            f"imp - {CONTROL}, {what}",
            Measured(difference(mine.values, control.values), mine.density, control.asked, control.notes),
            "IMP loses {} nats more than random masks do",
            "random masks lose {} nats more than IMP, so the loss is not specific to IMP",
            decisive=decisive,
        )


@claim(
    "C9",
    "A pruning step raises the loss and lowers the volume in the original space; retraining ends below fine-tuning.",
    figure="volume-pairs",
    combine=tickets,
)
def both_legs(tables: Tables) -> Iterator[ClaimPart]:
    """Theta against m * theta with one k, and the train loss of fine-tuning from that point minus IMP's.

    Without volumes nothing is decided, not even the opposite.
    """
    method = next((m for m in STEP_VOLUMES if len(pairs(tables, "imp", "prune", m))), STEP_VOLUMES[0])
    rows = pairs(tables, "imp", "prune", method)
    volume = less_volume(
        f"pruning step, log volume, {METHODS[method]}", volumes(tables, "imp", rows),
        "the pruning step lowers the volume by {} nats", "the pruning step raises the volume by {} nats",
    )  # fmt: skip
    yield replace(volume, required=True)
    legs = look(tables, "legs", branch=label(tables, "imp"), leg="prune", split="train").one_view()
    yield ClaimPart(
        name="pruning step, rise of the train loss",
        unit="train loss",
        measured=Measured(
            legs.cells(legs.numbers("loss_end") - legs.numbers("loss_start")),
            densities(tables, label(tables, "imp")),
            legs.asked,
            (legs.note,) if legs.note else (),
        ),
        low=0.0,
        holds="the pruning step raises the train loss by {}",
        fails="the pruning step lowers the train loss by {}",
    )
    yield worse_than_imp(tables, "finetune-mask", "train loss")


def less_volume(name: str, measured: Measured, less: str, more: str, *, decisive: bool = True) -> ClaimPart:
    """A difference of log volumes, below 0."""
    return ClaimPart(
        name=name, unit="log volume", measured=measured, high=0.0, holds=less, fails=more, decisive=decisive
    )


def pairs(tables: Tables, branch: str, pair: str, method: str) -> Selection:
    """Pairs of volumes by one method: the first part, the middle damping, the most dimensions, the lowest height.

    Rows without a method come from older runs with other matched losses, and are not read.
    """
    rows = look(tables, "volume_pairs", branch=label(tables, branch), pair=pair, method=method).one_view()
    rows = rows.prefer("operator", ("ggn", "adaptive", "hessian"), "{} operator")
    rows = rows.extreme("setting", middle, "setting {}") if method == "logdet" else rows
    return rows.extreme("k", np.max, "k = {}").extreme("eps", np.min, "eps = {}")


def middle(values: np.ndarray) -> float:
    """The middle of the distinct values, the upper of two.

    >>> middle(np.array([1e-4, 1e-2, 1e-3, 1e-2]))
    0.001
    """
    distinct = np.unique(values)
    return float(distinct[len(distinct) // 2])


def matched(tables: Tables, branch: str, method: str) -> Measured:
    """Log volume minus the dense run's at matched loss, by level and seed."""
    return volumes(tables, branch, pairs(tables, branch, "matched-loss", method))


def volumes(tables: Tables, branch: str, rows: Selection) -> Measured:
    """Log volume minus the reference's; missing where the table gives a reason not to trust it."""
    values = rows.numbers("log_volume") - rows.numbers("log_volume_reference")
    trusted = np.array([word in ("", "nan", "None") for word in rows.words("reason")], dtype=bool)
    reasons, count = rows.reasons(), int((~trusted).sum())
    notes = [rows.note] if rows.note else []
    notes += [f"{count} of the pairs of {branch} left out ({reasons[0]})"] if count and reasons else []
    cells = rows.cells(np.where(trusted, values, np.nan))
    return Measured(cells, densities(tables, label(tables, branch)), rows.asked, tuple(notes))
