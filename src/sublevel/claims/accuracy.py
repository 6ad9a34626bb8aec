"""The claims about test error and train loss: C1 to C4, and the sweep of the fraction, C12."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from sublevel.claims.combine import sequence
from sublevel.claims.margins import ERROR_MARGIN, LARGE_FRACTION, SMALL_FRACTION
from sublevel.claims.parts import Part
from sublevel.claims.query import Measured, Rows, Tables, densities, difference, end_losses, look
from sublevel.claims.registry import claim

UNITS = {"test error": "test_error", "train loss": "train_loss"}
"""Unit of an effect -> column of ``levels``."""

SWEEP = re.compile(r"imp-(0?\.\d+)(?:-\w+)?")
"""A branch that prunes another fraction."""


@claim(
    "C1",
    "IMP with rewinding matches the dense network's test error down to a density, which is named.",
    figure="accuracy",
    combine=sequence,
)
def matches_dense(tables: Tables) -> Iterator[Part]:
    """Non-inferiority of imp to dense, from the densest level down."""
    yield matching(tables)


@claim("C2", "IMP's mask from a new initialisation, or a random mask, does worse.", figure="accuracy")
def needs_mask_and_weights(tables: Tables) -> Iterator[Part]:
    """Test error of either control over imp's."""
    for branch in ("reinit", "random-prune"):
        yield worse_than_imp(tables, branch)


@claim("C3", "Iterative pruning beats one-shot pruning to the same number of weights.", figure="accuracy")
def beats_oneshot(tables: Tables) -> Iterator[Part]:
    """Test error of one-shot pruning over imp's; beside it that of the one-shot mask at imp's training cost."""
    yield worse_than_imp(tables, "oneshot")
    yield worse_than_imp(tables, "oneshot-cyclic", decisive=False)


@claim("C4", "Rewinding beats fine-tuning, in test error and in train loss.", figure="accuracy")
def beats_finetuning(tables: Tables) -> Iterator[Part]:
    """Test error and train loss of fine-tuning over imp's, with its own mask and with imp's, told apart."""
    for branch in ("finetune", "finetune-mask"):
        for unit in UNITS:
            yield worse_than_imp(tables, branch, unit)


@claim(
    "C12",
    "Too small a fraction returns SGD to the dense network's minimum, and too large a one ruins the baseline.",
    figure="fractions",
)
def fraction_between(tables: Tables) -> Iterator[Part]:
    """One step of the smallest fraction against one of the largest: error, and the barrier to the dense network."""
    small, large = swept(tables)
    yield Part(
        name=f"{small} - dense",
        unit="test error",
        measured=compared(tables, small, "dense", "test error", reference_level=0),
        low=-ERROR_MARGIN,
        high=ERROR_MARGIN,
        levels=(1,),
        holds="equals dense",
        fails="differs from dense",
    )
    yield barrier_to_dense(tables, small)
    yield Part(
        name=f"{large} - dense",
        unit="test error",
        measured=compared(tables, large, "dense", "test error", reference_level=0),
        low=ERROR_MARGIN,
        levels=(1,),
        holds=f"worse than dense by more than {100 * ERROR_MARGIN:g} points",
        fails=f"within {100 * ERROR_MARGIN:g} points of dense",
    )


def matching(tables: Tables) -> Part:
    """Imp's test error over the dense network's, below the margin."""
    return Part(
        name="imp - dense",
        unit="test error",
        measured=compared(tables, "imp", "dense", "test error", reference_level=0),
        high=ERROR_MARGIN,
        holds=f"within {100 * ERROR_MARGIN:g} points of dense",
        fails=f"worse than dense by more than {100 * ERROR_MARGIN:g} points",
    )


def worse_than_imp(tables: Tables, branch: str, unit: str = "test error", *, decisive: bool = True) -> Part:
    """A branch minus imp, above 0: less is better."""
    measured = compared(tables, branch, "imp", unit)
    return Part(
        name=f"{branch} - imp",
        unit=unit,
        measured=measured,
        low=0.0,
        holds="imp better",
        fails="imp worse",
        decisive=decisive,
    )


def compared(tables: Tables, branch: str, reference: str, unit: str, *, reference_level: int | None = None) -> Measured:
    """``branch`` minus ``reference`` at every level that both have, or against one level for all.

    ``unit`` is one of `UNITS`.
    """
    ours, theirs = (look(tables, "levels", branch=name) for name in (branch, reference))
    values = difference(ours.cells(UNITS[unit]), theirs.cells(UNITS[unit]), reference_level)
    asked = next((rows.asked for rows in (ours, theirs) if not len(rows)), f"{branch} and {reference} at one level")
    notes = [collapsed(rows, name) for rows, name in ((ours, branch), (theirs, reference))]
    return Measured(values, densities(tables, branch), asked, tuple(filter(None, notes)))


def collapsed(rows: Rows, branch: str) -> str:
    """Say how many networks have a layer without weights: they are no longer the network that was meant."""
    broken = int((rows.numbers("collapsed_layers") > 0).sum())
    networks = "1 network" if broken == 1 else f"{broken} networks"
    return f"{networks} of {branch} with a layer that has no weights left, counted as they are" if broken else ""


def swept(tables: Tables) -> tuple[str, str]:
    """The branches of the smallest and the largest fraction, or in words what is missing."""
    names = set(look(tables, "levels", level=1).words("branch"))
    found = {float(m[1]): name for name in sorted(names, reverse=True) if (m := SWEEP.fullmatch(name))}
    low, high = min(found, default=np.inf), max(found, default=-np.inf)
    return (
        found[low] if low <= SMALL_FRACTION else f"imp with a fraction of at most {SMALL_FRACTION:g}",
        found[high] if high >= LARGE_FRACTION else f"imp with a fraction of at least {LARGE_FRACTION:g}",
    )


def barrier_to_dense(tables: Tables, branch: str) -> Part:
    """The loss barrier between the dense network and the first level of a branch, equivalent to 0."""
    rows = look(tables, "paths", path=("successive", "to-dense"), branch=branch, level_to=1, split="train")
    rows = rows.prefer("path", ("successive", "to-dense")).prefer("order", ("shared", "independent"), "{} data order")
    rows = rows.one_view()
    margin = end_losses(rows)
    notes = (rows.note,) if rows.note else ()
    return Part(
        name=f"dense to {branch}, loss barrier",
        unit="loss barrier",
        measured=Measured(rows.cells("loss_barrier", "level_to"), densities(tables, branch), rows.asked, notes),
        low=-margin,
        high=margin,
        levels=(1,),
        holds="no barrier on the segment",
        fails="separated by a barrier",
    )
