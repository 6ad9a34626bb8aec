"""The claims about test error and train loss: C1 to C4, and the sweep of the fraction, C12."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import nan

from sublevel.claims.combine import sequence
from sublevel.claims.margins import ERROR_MARGIN, LARGE_FRACTION, MIDDLE_FRACTION, RISE_MARGIN, SMALL_FRACTION
from sublevel.claims.parts import ClaimPart
from sublevel.claims.paths import of_paths, relative_rise, rise_part
from sublevel.claims.query import Measured, Selection, Tables, densities, difference, indexed, look
from sublevel.claims.registry import claim

UNITS = {"test error": "test_error", "train loss": "train_loss"}
"""Unit of an effect -> column of ``levels``."""

RANDOM = ("random-prune", "random-imp")
"""Trained random masks with as many weights as IMP's, from step k; the first that was measured is read."""

WITHIN = f"within {100 * ERROR_MARGIN:g} points of the dense network"
NO_WORSE = f"at most {100 * ERROR_MARGIN:g} points worse than the dense network"
BEYOND = f"worse than the dense network by more than {100 * ERROR_MARGIN:g} points"

SUBJECTS = {
    "reinit": "re-initialising",
    "random-prune": "a random mask",
    "random-imp": "a random mask",
    "oneshot": "one-shot pruning",
    "oneshot-cyclic": "one-shot pruning at equal cost",
    "finetune": "iterative fine-tuning",
    "finetune-mask": "fine-tuning IMP's mask",
}
"""What a branch does, as the subject of a sentence."""


@claim(
    "C1",
    "IMP with rewinding matches the dense network's test error down to some density.",
    figure="accuracy",
    combine=sequence,
)
def matches_dense(tables: Tables) -> Iterator[ClaimPart]:
    """Non-inferiority of IMP to the dense network, from the densest level down."""
    yield matching(tables)


@claim("C2", "IMP's mask from a new initialisation, or a random mask, does worse.", figure="accuracy")
def needs_mask_and_weights(tables: Tables) -> Iterator[ClaimPart]:
    """Test error of both controls minus IMP's."""
    yield worse_than_imp(tables, "reinit")
    yield worse_than_imp(tables, first_measured(tables, "levels", RANDOM))


@claim("C3", "Iterative pruning beats one-shot pruning to the same number of weights.", figure="accuracy")
def beats_oneshot(tables: Tables) -> Iterator[ClaimPart]:
    """Test error of one-shot pruning minus IMP's; for comparison, of the one-shot mask at IMP's training cost."""
    yield worse_than_imp(tables, "oneshot")
    yield worse_than_imp(tables, "oneshot-cyclic", decisive=False)


@claim("C4a", "Rewinding beats fine-tuning in test error.", figure="accuracy")
def beats_finetuning_in_error(tables: Tables) -> Iterator[ClaimPart]:
    """Test error of fine-tuning minus IMP's, with its own mask and with IMP's."""
    for branch in ("finetune", "finetune-mask"):
        yield worse_than_imp(tables, branch)


@claim("C4b", "Rewinding beats fine-tuning in train loss.", figure="accuracy")
def beats_finetuning_in_loss(tables: Tables) -> Iterator[ClaimPart]:
    """Train loss of fine-tuning minus IMP's, with its own mask and with IMP's."""
    for branch in ("finetune", "finetune-mask"):
        yield worse_than_imp(tables, branch, "train loss")


@claim(
    "C12",
    "Too small a fraction returns SGD to the dense network's minimum, a middle one does not, and too large a one ruins "
    "the baseline.",
    figure="fractions",
)
def fraction_between(tables: Tables) -> Iterator[ClaimPart]:
    """One pruning step of a small, a middle and a large fraction: test error, and the rise of a path to dense.

    The middle fraction is the contrast: where no fraction leaves the dense network's minimum, nothing is shown.
    """
    small, middle, large = swept(tables)
    yield ClaimPart(
        name=f"{small} - dense",
        unit="test error",
        measured=compared(tables, small, "dense", "test error", reference_level=0),
        low=-ERROR_MARGIN,
        high=ERROR_MARGIN,
        holds=f"the small fraction ends {WITHIN}",
        fails="the small fraction's test error differs from the dense network's",
        levels=(1,),
    )
    yield rise_to_dense(tables, small, barrier=False)
    yield rise_to_dense(tables, middle, barrier=True)
    yield ClaimPart(
        name=f"{large} - dense",
        unit="test error",
        measured=compared(tables, large, "dense", "test error", reference_level=0),
        low=ERROR_MARGIN,
        holds=f"the large fraction is {BEYOND}",
        fails=f"the large fraction is {NO_WORSE}",
        levels=(1,),
    )


def matching(tables: Tables, branch: str = "imp") -> ClaimPart:
    """Test error of a branch over the dense network's, below the margin."""
    name = "IMP" if branch == "imp" else branch
    return ClaimPart(
        name=f"{branch} - dense",
        unit="test error",
        measured=compared(tables, branch, "dense", "test error", reference_level=0),
        high=ERROR_MARGIN,
        holds=f"{name} is {NO_WORSE}",
        fails=f"{name} is {BEYOND}",
    )


def worse_than_imp(tables: Tables, branch: str, unit: str = "test error", *, decisive: bool = True) -> ClaimPart:
    """A branch minus IMP, above 0 where IMP is better."""
    subject = SUBJECTS.get(branch, branch)
    words = ("costs {} of test error", "saves {} of test error")
    words = words if unit == "test error" else (f"ends {{}} higher in {unit}", f"ends {{}} lower in {unit}")
    return ClaimPart(
        name=f"{branch} - imp",
        unit=unit,
        measured=compared(tables, branch, "imp", unit),
        low=0.0,
        holds=f"{subject} {words[0]}",
        fails=f"{subject} {words[1]}",
        decisive=decisive,
    )


def compared(tables: Tables, branch: str, reference: str, unit: str, *, reference_level: int | None = None) -> Measured:
    """``branch`` minus ``reference`` at every level that both have, or against one level for all.

    ``branch`` is a registered name, read as its main variant in the study, or a label of the tables. ``unit`` is one of
    `UNITS`. Differences of test errors cross seeds with examples where the table ``correct`` has both.
    """
    tables = indexed(tables)
    labels = [label(tables, name) for name in (branch, reference)]
    ours, theirs = (look(tables, "levels", branch=name) for name in labels)
    values = difference(ours.cells(UNITS[unit]), theirs.cells(UNITS[unit]), reference_level)
    asked = next((rows.asked for rows in (ours, theirs) if not len(rows)), f"{branch} and {reference} at one level")
    notes = [collapsed(rows, name) for rows, name in ((ours, branch), (theirs, reference))]
    found = Measured(values, densities(tables, labels[0]), asked, tuple(filter(None, notes)))
    if unit != "test error":
        return found
    law = tables.correct.law(labels[0], labels[1], reference_level, lambda level, seed: values.get((level, seed), nan))
    return replace(found, law=law)


def label(tables: Tables, branch: str, order: str = "") -> str:
    """The label of a registered branch's main variant, or a label as it is."""
    return indexed(tables).branches.label(branch, order)


def first_measured(tables: Tables, table: str, branches: tuple[str, ...]) -> str:
    """The first of some branches that has rows in a table."""
    return next((name for name in branches if len(look(tables, table, branch=label(tables, name)))), branches[0])


def collapsed(rows: Selection, branch: str) -> str:
    """Say how many networks have a layer without weights; they stay in the comparison."""
    broken = int((rows.numbers("collapsed_layers") > 0).sum())
    networks = "1 network" if broken == 1 else f"{broken} networks"
    return f"included: {networks} of {branch} with a layer without weights" if broken else ""


def swept(tables: Tables) -> tuple[str, str, str]:
    """The labels of the smallest, a middle and the largest fraction, or a text that names what is missing."""
    found = indexed(tables).branches.sweep()
    low, high = min(found, default=nan), max(found, default=nan)
    middle = [f for f in found if SMALL_FRACTION < f < LARGE_FRACTION]
    return (
        found[low] if low <= SMALL_FRACTION else f"imp with a fraction of at most {SMALL_FRACTION:g}",
        found[min(middle, key=lambda f: abs(f - MIDDLE_FRACTION))] if middle
        else f"imp with a fraction between {SMALL_FRACTION:g} and {LARGE_FRACTION:g}",
        found[high] if high >= LARGE_FRACTION else f"imp with a fraction of at least {LARGE_FRACTION:g}",
    )  # fmt: skip


def rise_to_dense(tables: Tables, branch: str, *, barrier: bool) -> ClaimPart:
    """The rise of the train loss between the dense network and a branch's first level: below or above the margin."""
    rows = look(tables, "paths", path=("successive", "to-dense"), branch=branch, level_to=1, split="train")
    rows = rows.prefer("path", ("successive", "to-dense")).prefer("order", ("shared", "independent"), "{} data order")
    which = "middle" if barrier else "small"
    part = rise_part(f"dense to {branch}, rise over the higher end", of_paths(tables, rows.one_view(), relative_rise))
    segment = f"the segment from the dense network to the {which} fraction rises"
    none, rises = (f"{segment} by {how} than {100 * RISE_MARGIN:g}%" for how in ("less", "more"))
    if barrier:
        return replace(part, low=RISE_MARGIN, holds=rises, fails=none, levels=(1,))
    return replace(part, high=RISE_MARGIN, holds=none, fails=rises, levels=(1,))
