"""The claims about volume, curvature and the pruning step: C5, C6, C9 and C10."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from sublevel.claims.accuracy import matching, worse_than_imp
from sublevel.claims.parts import Part
from sublevel.claims.query import Measured, Rows, Tables, densities, difference, look
from sublevel.claims.registry import claim

CONTROLS = ("random-imp", "random-prune")
"""Trained random masks of imp's count, the better control first."""

MOMENTS = {"before": "before pruning", "retrained": "at the retrained point"}


@claim(
    "C5",
    "IMP solutions generalise as well as the dense network, yet have less volume in the original space.",
    figure="volume-pairs",
)
def generalises_with_less_volume(tables: Tables) -> Iterator[Part]:
    """Non-inferiority of the error, and a smaller volume at matched loss between filter-normalised directions.

    Both are of the same networks: the error is read at the levels at which volumes are.
    Beside them the same for trained random masks, and how much further imp falls than they do: where it does not, less
    volume is what any mask of that count brings.
    """
    mine, control = volumes(tables, "imp", "matched-loss", "adaptive"), control_of(tables)
    smaller = less_volume("imp - dense, log volume at matched loss", mine)
    yield replace(matching(tables), levels=smaller.chosen or None)
    yield smaller
    other = volumes(tables, control, "matched-loss", "adaptive")
    yield less_volume(f"{control} - dense, log volume at matched loss", other, decisive=False)
    apart = difference(mine.values, other.values)
    yield Part(
        name=f"imp - {control}, log volume at matched loss",
        unit="log volume",
        measured=Measured(apart, mine.density, other.asked),
        high=0.0,
        holds=f"imp falls further than {control}",
        fails=f"{control} falls further than imp, so the fall is none of imp's own",
        neither=f"{control} falls as much, as far as these seeds tell, so the fall may be none of imp's own",
        decisive=False,
    )


@claim("C6", "The dimensions that pruning removes are the steep ones.", figure="coordinates")
def removes_the_steep(tables: Tables) -> Iterator[Part]:
    """Mean curvature along pruned against kept weights of equal count per layer: log ratio, or else the difference."""
    for when, words in MOMENTS.items():
        measured, unit = curvatures(tables, when)
        yield Part(
            name=f"pruned against kept, {words}",
            unit=unit,
            measured=measured,
            low=0.0,
            holds="the pruned are steeper",
            fails="the pruned are flatter",
        )


@claim(
    "C9",
    "A pruning step raises the loss and lowers the volume in the original space; retraining ends below fine-tuning.",
    figure="volume-pairs",
)
def both_legs(tables: Tables) -> Iterator[Part]:
    """Theta against m * theta with one k, and the train loss of fine-tuning from that point over imp's.

    Volumes of the Hessian decide; those between filter-normalised directions, free of the norm, stand beside them.
    """
    yield less_volume("pruning step, log volume", volumes(tables, "imp", "prune", "hessian"))
    rows = pairs(tables, "imp", "prune", "hessian")
    yield Part(
        name="pruning step, rise of the train loss",
        unit="train loss",
        measured=measured_pairs(tables, "imp", rows, rows.numbers("loss") - rows.numbers("loss_reference")),
        low=0.0,
        holds="rises",
        fails="falls",
    )
    yield worse_than_imp(tables, "finetune-mask", "train loss")
    normalised = volumes(tables, "imp", "prune", "adaptive")
    yield less_volume("pruning step, log volume, filter-normalised", normalised, decisive=False)


@claim(
    "C10",
    "Pruning small weights raises the train loss less than pruning random ones of the same layers.",
    figure="prunings",
)
def small_weights_cost_less(tables: Tables) -> Iterator[Part]:
    """The mean rise over random draws minus the criterion's own."""
    mine = look(tables, "prunings", branch="imp").one_view()
    draws = mine.numbers("draw")[np.array([by == "random" for by in mine.words("chosen_by")], dtype=bool)]
    chosen, random = (rise(tables, by) for by in ("criterion", "random"))
    notes = [f"{len(np.unique(draws))} random draws"] + ([mine.note] if mine.note else [])
    yield Part(
        name="random - small weights, rise of the train loss",
        unit="train loss",
        measured=Measured(difference(random, chosen), densities(tables, "imp"), mine.asked, tuple(notes)),
        low=0.0,
        holds="small weights cost less",
        fails="small weights cost more",
    )


def less_volume(name: str, measured: Measured, *, decisive: bool = True) -> Part:
    """A difference of log volumes, below 0."""
    return Part(
        name=name,
        unit="log volume",
        measured=measured,
        high=0.0,
        holds="less volume",
        fails="more volume",
        decisive=decisive,
    )


def control_of(tables: Tables) -> str:
    """The first of `CONTROLS` that has volumes at matched loss."""
    return next((name for name in CONTROLS if len(look(tables, "volume_pairs", branch=name))), CONTROLS[0])


def pairs(tables: Tables, branch: str, pair: str, operator: str) -> Rows:
    """Pairs of volumes of one operator: the first part, the most eigenvalues, the lowest height."""
    rows = look(tables, "volume_pairs", branch=branch, pair=pair, operator=operator).one_view()
    return rows.extreme("k", np.max, "k = {}").extreme("eps", np.min, "eps = {}")


def volumes(tables: Tables, branch: str, pair: str, operator: str) -> Measured:
    """Log volume minus the reference's; missing where the table gives a reason not to trust it."""
    rows = pairs(tables, branch, pair, operator)
    values = rows.numbers("log_volume") - rows.numbers("log_volume_reference")
    trusted = np.array([word in ("", "nan", "None") for word in rows.words("reason")], dtype=bool)
    values = np.where(trusted, values, np.nan)
    return measured_pairs(tables, branch, rows, values, *untrusted(rows.reasons(), int((~trusted).sum())))


def measured_pairs(tables: Tables, branch: str, rows: Rows, values: np.ndarray, *notes: str) -> Measured:
    """Values of pairs, by level and seed."""
    chosen = (rows.note,) if rows.note else ()
    return Measured(rows.cells(values), densities(tables, branch), rows.asked, (*chosen, *notes))


def untrusted(reasons: list[str], count: int) -> list[str]:
    """What is said of pairs that were left out."""
    return [f"{count} of the pairs left out ({reasons[0]})"] if count and reasons else []


def curvatures(tables: Tables, when: str) -> tuple[Measured, str]:
    """The log ratio of mean curvatures, pruned over kept; their difference where one of them is not positive."""
    both = look(tables, "coordinates", branch=("imp", "dense"), when=when, set=("pruned", "kept")).one_view()
    sets = [both.keep(np.array([w == name for w in both.words("set")], dtype=bool)) for name in ("pruned", "kept")]
    positive = all(bool((rows.numbers("curvature")[np.isfinite(rows.numbers("curvature"))] > 0).all()) for rows in sets)
    pruned, kept = (rows.cells(np.log(v) if positive else v) for rows, v in ((r, r.numbers("curvature")) for r in sets))
    notes = [both.note] if both.note else []
    notes += [] if positive else ["differences, since a mean curvature is not positive"]
    measured = Measured(difference(pruned, kept), densities(tables, "imp"), both.asked, tuple(notes))
    return measured, "log ratio of curvature" if positive else "curvature"


def rise(tables: Tables, chosen_by: str) -> dict[tuple[int, int], float]:
    """What pruning adds to the train loss, the mean over draws."""
    rows = look(tables, "prunings", branch="imp", chosen_by=chosen_by).one_view()
    return rows.cells(rows.numbers("loss_end") - rows.numbers("loss_start"))
