"""Open questions about tickets, as exploratory claims: a study that measures none of them has no row for them.

They are judged by the rules of all claims, at the level of a single test: no claim of the paper depends on them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from math import isfinite, log2, nan

import numpy as np
import pandas as pd

from sublevel.claims.accuracy import compared, label
from sublevel.claims.margins import LIMIT_FACTOR, RANK_RESOLUTION
from sublevel.claims.parts import ClaimPart
from sublevel.claims.query import Cells, Measured, Selection, Tables, densities, indexed, look
from sublevel.claims.registry import claim

OVER_ALL = 0
"""The level of a number that is of all solutions of a seed together."""

TINY = 1e-9
"""A predicted share of weights left is at least this."""

Values = dict[tuple[int, str, int], float]
"""(seed, branch, level) -> value."""


@claim("Q1", "A mask of another seed does better once its hidden units are permuted to match.", figure="accuracy",
       exploratory=True)  # fmt: skip
def permuting_helps(tables: Tables) -> Iterator[ClaimPart]:
    """Test error of the mask as it is over that of the permuted one; beside it new weights under imp's own mask."""
    permuted = "the permuted one"
    yield _costs(tables, "other-mask", "permuted-mask", "the mask as it is", permuted)
    yield _costs(tables, "reinit", "permuted-mask", "the mask of imp on new weights", permuted, decisive=False)


@claim("Q2", "Signs and normalisation of the trained ticket carry more than the signs it started from.",
       figure="accuracy", exploratory=True)  # fmt: skip
def trained_signs_carry_more(tables: Tables) -> Iterator[ClaimPart]:
    """Test error with the start's signs over that with the trained ticket's; beside it the distance to imp."""
    yield _costs(tables, "reinit-signs", "ticket-signs", "reinit-signs", "ticket-signs")
    yield _costs(tables, "ticket-signs", "imp", "ticket-signs", "imp", decisive=False)


@claim("Q3", "The spectrum predicts the largest fraction that one step may prune.", figure="limits", exploratory=True)
def spectrum_predicts_the_limit(tables: Tables) -> Iterator[ClaimPart]:
    """Predicted over measured fewest weights, at the largest rise of the train loss that was asked for.

    Measured is the fraction at which one-shot tickets, rewound and trained, end at that rise above the dense network's
    train loss, linear between levels. Seeds whose sparsest ticket still ends below it are left out.
    """
    rows = look(tables, "limits", branch="dense").one_view().extreme("eps", np.max, "a rise of {}")
    predicted = rows.cells("fraction")
    rise = float(np.max(rows.numbers("eps"), initial=0.0))
    found = {
        (level, seed): log2(max(1 - value, TINY) / (1 - measured_limit(tables, seed, rise)))
        for (level, seed), value in predicted.items()
    }
    yield ClaimPart(
        name="log2 of predicted over measured fewest weights",
        unit="log2",
        measured=Measured(found, {0: 1.0}, rows.asked, (rows.note,) if rows.note else ()),
        low=-log2(LIMIT_FACTOR),
        high=log2(LIMIT_FACTOR),
        levels=(0,),
        holds=f"the prediction is within a factor of {LIMIT_FACTOR:g} of the fewest weights that were measured",
        fails=f"the prediction is off by more than a factor of {LIMIT_FACTOR:g}",
    )


@claim("Q4", "The weights that IMP keeps carry more of the steepest directions than random ones.", figure="anatomy",
       exploratory=True)  # fmt: skip
def kept_weights_are_steep(tables: Tables) -> Iterator[ClaimPart]:
    """Share of the steepest directions on imp's kept weights over their share of all; beside it a random mask's."""
    for branch, words, decisive in (
        ("imp", "IMP's kept weights", True),
        ("random-prune", "randomly kept weights", False),
    ):
        rows = look(tables, "anatomy", branch=label(tables, branch), set="kept").one_view()
        yield ClaimPart(
            name=f"{branch}, steepest directions over chance",
            unit="share of the whole",
            measured=_per_level(tables, rows, rows.numbers("eigenspace") - rows.numbers("share")),
            low=0.0,
            holds=f"{words} carry {{}} more of the steepest directions than random ones",
            fails=f"{words} carry {{}} less of the steepest directions than random ones",
            decisive=decisive,
        )


@claim("Q5", "A pruning step removes less curvature than a random set with as many weights in every layer.",
       figure="anatomy", exploratory=True)  # fmt: skip
def pruning_removes_little_curvature(tables: Tables) -> Iterator[ClaimPart]:
    """Share of the diagonal on a random set minus that on what the next level prunes, at dense and imp's solutions."""
    names = (label(tables, "imp"), label(tables, "dense"))
    rows = look(tables, "anatomy", branch=names, set="next").one_view()
    yield ClaimPart(
        name="random set - pruned set, curvature",
        unit="share of the whole",
        measured=_per_level(tables, rows, rows.numbers("trace_matched") - rows.numbers("trace")),
        low=0.0,
        dense=True,
        holds="pruning removes {} less of the curvature than a random set",
        fails="pruning removes {} more of the curvature than a random set",
    )


@claim(
    "Q6", "Solutions behind a higher barrier of the train loss generalise worse.", figure="barriers", exploratory=True
)
def barriers_go_with_the_gap(tables: Tables) -> Iterator[ClaimPart]:
    """Rank correlation over the solutions of a seed: height to the dense network, with test error minus train error.

    Decided by the barrier of the train loss; beside it those of the train error and the test error, and the barrier of
    the train loss with the test error alone, since a network that does not fit its train set has a small gap.
    """
    levels = look(tables, "levels")
    errors = _solutions(levels, lambda rows: rows.numbers("test_error"))
    gap = _solutions(levels, lambda rows: rows.numbers("test_error") - rows.numbers("train_error"))
    for split, of, with_, values in (
        ("train", "loss", "generalisation gap", gap),
        ("train", "error", "generalisation gap", gap),
        ("test", "error", "generalisation gap", gap),
        ("train", "loss", "test error", errors),
    ):
        rows = look(tables, "paths", path="to-dense", split=split).one_view()
        heights = _solutions(rows, lambda rows, of=of: rows.numbers(f"{of}_height"), "level_to")
        yield _ranked(
            tables, f"barrier of the {split} {of} with the {with_}", heights, values, rows,
            decisive=(split, of) == ("train", "loss") and values is gap,
        )  # fmt: skip


@claim("Q7", "Sublevel sets of the test error rank tickets as those of the train loss do.", figure="exits",
       exploratory=True)  # fmt: skip
def error_sets_rank_alike(tables: Tables) -> Iterator[ClaimPart]:
    """Rank correlation over the tickets of a seed: median exits of the train loss's set with those of an error's.

    Beside it with the dense network, whose exits lie farther out in every set: its space has more dimensions.
    """
    found = {}
    for of in ("train loss", "train error", "test error"):
        rows = look(tables, "exits", of=of).prefer("space", ("own", "all"), "{} space").one_view()
        rows = rows.extreme("height", np.min, "height {}")
        found[of] = rows, _solutions(rows, lambda rows: rows.numbers("radius"))
    losses = found["train loss"][1]
    tickets = {key: value for key, value in losses.items() if key[2]}
    for of, mine, among, decisive in (
        ("test error", tickets, "", True),
        ("train error", tickets, "", False),
        ("test error", losses, ", with the dense network", False),
    ):
        rows, radii = found[of]
        name = f"exits of the train loss with those of the {of}{among}"
        yield _ranked(tables, name, mine, radii, rows, decisive=decisive)


@claim("Q8", "Of two criteria the one with the lower barrier to the dense network has the lower test error.",
       figure="barriers", exploratory=True)  # fmt: skip
def geometry_ranks_criteria(tables: Tables) -> Iterator[ClaimPart]:
    """Rank correlation over one-shot branches at a level, of geometry with test error.

    Decided by the barrier to the dense network; beside it the loss after pruning and the largest eigenvalue.
    """
    branches = tuple(sorted(v.label for v in indexed(tables).branches.variants.values() if v.base == "oneshot"))
    errors = _solutions(look(tables, "levels", branch=branches), lambda rows: rows.numbers("test_error"))
    barrier = look(tables, "paths", path="to-dense", split="train", branch=branches).one_view()
    leg = look(tables, "legs", leg="prune", split="train", branch=branches).one_view()
    steep = look(tables, "curvature", space="own", operator="hessian", branch=branches).one_view()
    for name, rows, of, at, decisive in (
        ("barrier to dense", barrier, "loss_height", "level_to", True),
        ("loss after pruning", leg, "loss_end", "level", False),
        ("largest eigenvalue", steep, "largest", "level", False),
    ):
        mine = _solutions(rows, lambda rows, of=of: rows.numbers(of), at)
        title = f"{name} with the test error, over criteria"
        part = _ranked(tables, title, mine, errors, rows, decisive=decisive, by_level=True)
        if len(branches) < FEWEST_RANKED:
            part = replace(part, measured=Measured({}, {}, "one-shot branches by four criteria or more"))
        yield replace(part, measured=replace(part.measured, density=densities(tables, *branches)))


@claim("Q9", "Estimators of volume rank the solutions of a seed alike.", figure="volume-methods", exploratory=True)
def estimators_agree(tables: Tables) -> Iterator[ClaimPart]:
    """The mean rank correlation of every two estimators that flag nothing, over the solutions of a seed."""
    rows = look(tables, "volumes").prefer("space", ("own", "all"), "{} space").one_view()
    rows = rows.extreme("eps", np.min, "eps {}")
    kept = rows.keep(np.array([not r or r in ("nan", "None") for r in rows.words("reason")], dtype=bool))
    methods = sorted(set(kept.words("method")))
    of = {m: _solutions(kept.keep(np.array([w == m for w in kept.words("method")])), _log_radius) for m in methods}
    found: dict[int, list[float]] = {}
    twins = _twins(tables)
    for i, a in enumerate(methods):
        for b in methods[i + 1 :]:
            for (_, seed), value in _correlations(of[a], of[b], twins, by_level=False).items():
                if isfinite(value):
                    found.setdefault(seed, []).append(value)
    measured = {(OVER_ALL, seed): float(np.mean(values)) for seed, values in found.items()}
    yield ClaimPart(
        name="rank correlation of two estimators",
        unit="rank correlation",
        floor=RANK_RESOLUTION,
        measured=Measured(measured, {}, f"{rows.asked} that no estimator flags"),
        low=0.0,
        levels=(OVER_ALL,),
        holds="two estimators rank alike (rank correlation {})",
        fails="two estimators rank in opposite orders: the rank correlation is negative by {}",
        neither="the rank correlation of two estimators is {}",
    )


FEWEST_RANKED = 4
"""Fewest solutions that a rank correlation is made of."""


def measured_limit(tables: Tables, seed: int, rise: float) -> float:
    """The largest fraction of one-shot pruning after which training ends at most ``rise`` above the dense train loss.

    NaN where the sparsest ticket still does, or none was made.
    """
    dense = look(tables, "levels", branch="dense", seed=float(seed)).numbers("train_loss")
    rows = look(tables, "levels", branch=label(tables, "oneshot"), seed=float(seed))
    if not len(dense) or not len(rows):
        return nan
    points = sorted(zip(1 - rows.numbers("density"), rows.numbers("train_loss") - dense[0], strict=True))
    for (before, low), (after, high) in pairwise([(0.0, 0.0), *points]):
        if high > rise:
            return float(before + (after - before) * (rise - low) / (high - low))
    return nan


def _costs(tables: Tables, branch: str, reference: str, one: str, other: str, *, decisive: bool = True) -> ClaimPart:
    """The test error of a branch minus that of another, above 0; both with their words."""
    return ClaimPart(
        name=f"{branch} - {reference}",
        unit="test error",
        measured=compared(tables, branch, reference, "test error"),
        low=0.0,
        holds=f"{one} costs {{}} of test error over {other}",
        fails=f"{one} saves {{}} of test error over {other}",
        decisive=decisive,
    )


def _per_level(tables: Tables, rows: Selection, values: np.ndarray) -> Measured:
    """A value of each row by level and seed."""
    known = densities(tables, *sorted(set(rows.words("branch"))))
    return Measured(rows.cells(values), known, rows.asked, (rows.note,) if rows.note else ())


def _solutions(rows: Selection, values: Callable[[Selection], np.ndarray], level: str = "level") -> Values:
    """A value of each solution."""
    whole = zip(
        rows.numbers("seed").tolist(), rows.words("branch"), rows.numbers(level).tolist(), values(rows).tolist(),
        strict=True,
    )  # fmt: skip
    return {(int(s), b, int(at)): v for s, b, at, v in whole if isfinite(s) and isfinite(at) and isfinite(v)}


def _log_radius(rows: Selection) -> np.ndarray:
    return np.log(np.maximum(rows.numbers("effective_radius"), 1e-300))


def _twins(tables: Tables) -> set[tuple[int, str, int]]:
    """Solutions that are an earlier one of their seed again: one-shot pruning is IMP at its first level."""
    levels = look(tables, "levels")
    names = _solutions(levels, lambda rows: rows.numbers("train_loss") + rows.numbers("test_loss"))
    seen: set[tuple[int, int, float]] = set()
    found = set()
    for key, loss in sorted(names.items()):
        known = (key[0], key[2], loss)
        if known in seen:
            found.add(key)
        seen.add(known)
    return found


def _correlations(a: Values, b: Values, twins: Collection[tuple[int, str, int]], *, by_level: bool) -> Cells:
    """The rank correlation over the solutions of a seed (at each level by itself) that both have a value of.

    ``twins`` are left out: a solution counts once.
    """
    groups: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for key in sorted((set(a) & set(b)) - set(twins)):
        groups.setdefault((key[2] if by_level else OVER_ALL, key[0]), []).append((a[key], b[key]))
    enough = {cell: pairs for cell, pairs in groups.items() if len(pairs) >= FEWEST_RANKED}
    return {cell: _spearman(*zip(*pairs, strict=True)) for cell, pairs in enough.items()}


def _spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's rank correlation; NaN if one side is constant."""
    one, other = (pd.Series(v).rank() for v in (a, b))
    return float(one.corr(other)) if one.nunique() > 1 and other.nunique() > 1 else nan


def _ranked(
    tables: Tables, name: str, a: Values, b: Values, rows: Selection, *, decisive: bool, by_level: bool = False
) -> ClaimPart:
    """A part that says that two orders of solutions agree."""
    found = _correlations(a, b, _twins(tables), by_level=by_level)
    measured = Measured(found, {}, rows.asked, (rows.note,) if rows.note else ())
    return ClaimPart(
        name=name,
        unit="rank correlation",
        floor=RANK_RESOLUTION,
        measured=measured,
        low=0.0,
        levels=None if by_level else (OVER_ALL,),
        decisive=decisive,
        holds="the two rise together (rank correlation {})",
        fails="one falls as the other rises: the rank correlation is negative by {}",
        neither="the rank correlation is {}",
    )
