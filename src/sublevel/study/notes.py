"""Notes for the user on how a study runs."""

from __future__ import annotations

from collections.abc import Sequence

from sublevel.models import pretrained
from sublevel.problem import Problem
from sublevel.study.given import Given
from sublevel.study.spec import StudySpec

ALONE = (
    "cells run one at a time, since worker processes cannot import your network or your own code: move that code to a "
    "module (a .py file) to use several processes"
)
"""The note on one job; there is nothing to say to who asks for one."""


def notes(spec: StudySpec, problem: Problem, given: Sequence[Given], *, cached: bool) -> list[str]:
    """The notes on a study; ``cached`` says whether another run can find its cells again by their keys."""
    space = problem.space
    found = [note for each in given for note in each.notes]
    if not given and problem.loop is None and (unused := problem.unused):
        some = ", ".join(unused[:4]) + (f" and {len(unused) - 4} more" if len(unused) > 4 else "")
        found.append(
            f"the training loss does not depend on {some}: their gradient is 0, and only weight decay moves them"
        )
    if problem.pretrained and not given and (fresh := pretrained.fresh_weights(problem.module)):
        found.append(f"{problem.name} has no {', '.join(fresh)}: these weights of the head are drawn for every seed")
    if 2 * int(space.prunable.sum()) < space.dim:
        found.append(
            f"only {space.describe_prunable()}; a density is a share of the prunable ones; prunable = 'matrices' "
            "(--set 'model.prunable=[\"matrices\"]') adds recurrent weights, attention's in_proj and GPT-2's Conv1D"
        )
    if problem.loop is None and problem.unordered:
        found.append(
            f"PyTorch has no kernel with a fixed order of its sums on a GPU for {', '.join(problem.unordered)}: two "
            "runs of this network may differ in their last digits"
        )
    if not cached:
        own = ["network"]
        own += (name for name in ("loss", "loop") if callable(code := getattr(problem, name)) or ":" in str(code))
        found.append(
            f"the code of the {' or the '.join(own)} cannot be read whole (it was typed, edited since it was "
            "imported, or holds objects that no text tells) and has no version, so its cells are not cached: "
            "give Problem(version=...) to keep them"
        )
    if not problem.portable:
        found.append(ALONE)
    rates = spec.train.rates(len(problem.splits.train))
    rate = next((r for r in reversed(rates) if r > 0), spec.train.lr)
    tunes = any(b.name.startswith("finetune") for b in spec.branches)
    if tunes and spec.finetune_lr is None and rate < spec.train.lr / 1000:
        found.append(
            f"fine-tuning runs at the schedule's last rate, {rate:.2g}, which hardly moves a weight: "
            "set finetune_lr (chosen on held-out images) to compare with it"
        )
    return found
