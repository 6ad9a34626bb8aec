"""Three findings in plain words, for a reader who has a minute: does the ticket match, what makes it, where it lies.

They use the tests of the claims, and a verdict where one answers the question. Below three seeds they only report.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite
from typing import Any

from sublevel.claims.accuracy import RANDOM, first_measured, label, matching, worse_than_imp
from sublevel.claims.basins import best_path, end_loss, successive
from sublevel.claims.decide import designed
from sublevel.claims.levels import Design, tested_levels
from sublevel.claims.margins import ALPHA, ERROR_MARGIN, RISE_MARGIN
from sublevel.claims.parts import ClaimPart, Tested, assess, densities_text
from sublevel.claims.paths import of_paths, relative_rise, rise_part
from sublevel.claims.query import Indexed, Tables, indexed, look
from sublevel.claims.words import amount, interval, listed
from sublevel.stats import fixed_sequence

MOST = 3
WHERE = "Where does IMP's solution lie?"
BARRIER = f"a barrier: {100 * RISE_MARGIN:g}%"


@dataclass(frozen=True)
class Finding:
    """A question, its answer as a number with a few words, and the sentence with effect, interval and seeds."""

    question: str
    number: str
    sentence: str


def findings(tables: Tables, study: Mapping[str, Any] | None = None) -> list[Finding]:
    """At most three findings: accuracy first, then the controls, then the landscape, then what else was measured."""
    known = indexed(tables, study)
    design = designed(known, study)
    return list(islice(_found(known, design), MOST))


def _found(tables: Indexed, design: Design) -> Iterator[Finding]:
    makers = (_matches, _controls, _basin, _segment, _neighbours, _iterative, _finetuning)
    asked: set[str] = set()
    for make in makers:
        found = make(tables, design)
        if found and found.question not in asked:
            asked.add(found.question)
            yield found


def _matches(tables: Indexed, design: Design) -> Finding | None:
    """Down to which density the main branch is within the margin of the dense network, and where it is worse."""
    branches = [name for name in ("imp", *tables.branches.variants) if name != "dense"]
    parts = (matching(tables, branch) for branch in dict.fromkeys(branches))
    part = next((p for p in parts if any(p.present)), None)
    tests = [assess(part, level) for level in sorted(part.present) if level] if part else []
    tests = [t for t in tests if t.n]
    if not tests:
        return None
    question, name = "Does the ticket match the dense network?", tests[0].part.holds.partition(" is ")[0]
    error = look(tables, "levels", branch=label(tables, "dense")).numbers("test_error").mean()
    dense = f"the dense network ({100 * error:.1f}% test error)"
    few, margin = [t for t in tests if t.reason], f"margin {100 * ERROR_MARGIN:g}"
    if len(few) == len(tests):
        return Finding(question, "not decided", f"{name} differs from {dense} by {_size(few[-1])}. {_few(few[-1])}")
    reached = fixed_sequence([t.p for t in tests], ALPHA)
    worse = next((t for t in tests[reached:] if t.p_contrary <= ALPHA), None)
    after = f" At {_left(worse)} it is worse: {_size(worse)}." if worse else ""
    if reached:
        t = tests[reached - 1]
        said = f"{name} matches {dense} down to {_left(t)}: {_size(t, margin)}."
        return Finding(question, f"yes, down to {densities_text([t.density])}", said + after)
    t = tests[0]
    if worse is t:
        said = f"{name} is worse than {dense} already at {_left(t)}: {_size(t, margin)}."
        return Finding(question, "no", said)
    said = f"{name} is not shown to match {dense} at {_left(t)}: {_size(t, margin)}."
    return Finding(question, "inconclusive", said + after)


def _controls(tables: Indexed, design: Design) -> Finding | None:
    parts = [worse_than_imp(tables, b) for b in ("reinit", first_measured(tables, "levels", RANDOM))]
    return _costs(tables, design, "C2", "Are its mask and its weights both needed?", parts)


def _iterative(tables: Indexed, design: Design) -> Finding | None:
    return _costs(tables, design, "C3", "Is pruning level by level needed?", [worse_than_imp(tables, "oneshot")])


def _finetuning(tables: Indexed, design: Design) -> Finding | None:
    parts = [worse_than_imp(tables, b) for b in ("finetune", "finetune-mask")]
    return _costs(tables, design, "C4a", "Is rewinding needed?", parts)


def _costs(tables: Indexed, design: Design, claim: str, question: str, parts: Sequence[ClaimPart]) -> Finding | None:
    """What the controls cost over IMP, at one density that all measured ones share.

    The answer is the claim's verdict, which corrects for the number of claims; without verdicts it is the tests'.
    """
    tests = _at_one_level(parts, design)
    if not tests:
        return None
    answers = {"yes" if t.p <= ALPHA else "no" if t.p_contrary <= ALPHA else "inconclusive" for t in tests}
    number = answers.pop() if len(answers) == 1 else "in part"
    if verdict := next(iter(look(tables, "verdicts", claim=claim).words("verdict")), ""):
        number = {"supported": "yes", "contradicted": "no"}.get(verdict, "inconclusive")
    few = _few(tests[0])
    said = f"At {_left(tests[0])}, {listed([_cost(t) for t in tests])}. {few}".strip()
    return Finding(question, "not decided" if few else number, said)


def _cost(t: Tested) -> str:
    sure = not t.reason and min(t.p, t.p_contrary) <= ALPHA
    words = t.part.fails if sure and t.mean < 0 else t.part.holds
    size = amount(t.mean, t)
    bounds = "" if t.reason else f" ({interval(t, flip=sure and t.mean < 0)}{'' if sure else ', inconclusive'})"
    return words.format(size.lstrip("+-") if sure else size) + bounds


def _basin(tables: Indexed, design: Design) -> Finding | None:
    """Whether the ticket lies in the dense network's sublevel set: its own height, and the best path that was found."""
    parts = [best_path(tables, "imp", inside=True), end_loss(tables, "imp", inside=True)]
    tests = _at_one_level(parts, design, densest=True)
    if len(tests) < 2 or any(t.reason for t in tests):
        return None
    path, end = tests
    side, flip = ("below", True) if end.mean < 0 else ("above", False)
    height = f"{amount(end.mean, end).lstrip('+-')} {side} the dense threshold ({interval(end, flip=flip)})"
    if path.p_contrary <= ALPHA:
        number = "no path found"
    elif path.p > ALPHA:
        number = "inconclusive"
    elif min(end.p, end.p_contrary) > ALPHA:
        number = "joined, height inconclusive"
    else:
        number = "in the dense network's basin" if end.p <= ALPHA else "same valley, higher up"
    said = f"At {_left(path)}, the best path to the dense network rises by {_size(path, BARRIER)}."
    sparser = (assess(path.part, level) for level in _levels(parts, design) if level > path.level)
    later = [t for t in sparser if t.p_contrary <= ALPHA]
    apart = f" At {_left(later[-1])} no such path was found: it rises by {_size(later[-1])}." if later else ""
    none = " Failing to find a path does not prove that there is none." * (number == "no path found" or bool(later))
    at = f", at {densities_text([path.density])}" if later and path.p <= ALPHA else ""
    return Finding(WHERE, number + at, f"{said} The train loss is {height}.{apart}{none}")


def _segment(tables: Indexed, design: Design) -> Finding | None:
    """The rise of the train loss on the straight segment from the dense network to the ticket."""
    return _rise(tables, design, "to-dense", "on the segment from the dense network to IMP's solution")


def _neighbours(tables: Indexed, design: Design) -> Finding | None:
    return _rise(tables, design, "successive", "on the segment from one level's solution to the next")


def _rise(tables: Indexed, design: Design, path: str, where: str) -> Finding | None:
    rows = (
        successive(tables, "shared")
        if path == "successive"
        else look(tables, "paths", path=path, branch=label(tables, "imp"), split="train").one_view()
    )
    part = rise_part("rise", of_paths(tables, rows, relative_rise), high=RISE_MARGIN, holds="none", fails="a barrier")
    tests = _at_one_level([part], design, densest=True)
    if not tests:
        return None
    t = tests[0]
    number = (
        "inconclusive" if t.reason or min(t.p, t.p_contrary) > ALPHA else "no barrier" if t.p <= ALPHA else "barrier"
    )
    said = f"At {_left(t)}, the train loss rises by {_size(t, BARRIER)} {where}. {_few(t)}".strip()
    return Finding(WHERE, "not decided" if t.reason else number, said)


def _at_one_level(parts: Sequence[ClaimPart], design: Design, *, densest: bool = False) -> list[Tested]:
    """The parts that were measured, at a level that they share.

    The sparsest fixed density at which the ticket matches. Else, of the densities at which all parts hold, the middle
    or the ``densest`` one; and where there is none, the sparsest or the ``densest`` of all.
    """
    here, usable = [p for p in parts if p.present], _levels(parts, design)
    if not usable:
        return []
    matched = [level for level in usable if level in design.matching]
    holding = [level for level in usable if all(assess(p, level).p <= ALPHA for p in here)]
    if matched:
        level = matched[-1]
    elif densest:
        level = (holding or usable)[0]
    else:
        level = holding[len(holding) // 2] if holding else usable[-1]
    return [assess(p, level) for p in here]


def _levels(parts: Sequence[ClaimPart], design: Design) -> list[int]:
    """The levels of the fixed densities at which all parts that were measured have seeds, or all such levels."""
    here = [p for p in parts if p.present]
    if not here:
        return []
    shared = sorted(set.intersection(*(set(p.present) for p in here)) - {0})
    fixed = [x.level for x in tested_levels(here, design) if x.level]
    return [level for level in fixed or shared if all(assess(p, level).n for p in here)]


def _left(t: Tested) -> str:
    return f"{densities_text([t.density])} of the weights" if isfinite(t.density) else f"level {t.level}"


def _size(t: Tested, more: str = "") -> str:
    """``+0.15 points (90% CI -0.17 to 0.47; margin 0.5)``."""
    known = "; ".join(filter(None, ("" if t.reason else interval(t), more)))
    return f"{amount(t.mean, t)} ({known})" if known else amount(t.mean, t)


def _few(t: Tested) -> str:
    return f"Nothing is decided: {t.reason}." if t.reason else ""
