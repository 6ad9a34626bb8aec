"""The work of a worker for a cell of a study: build the problem, and call the computation of its kind.

`compute` is the function that every job of a study names (`sublevel.engine.job.Job`). The job's ``context`` holds
``problem`` (its spec as JSON), ``identity`` (the digest of its fingerprint, or None), ``splits`` (the name of splits
that are shared on this machine, or None) and ``threads``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from sublevel._types import Tensor
from sublevel.engine.job import Job, Progress
from sublevel.engine.partial import Partial
from sublevel.engine.store import Store, canonical, digest, serialised
from sublevel.errors import ModelError
from sublevel.foreign import load_tensors
from sublevel.numerics import arithmetic
from sublevel.own_code import contained
from sublevel.problem import Problem
from sublevel.problem.spec import ProblemSpec
from sublevel.study.catalogue import KINDS
from sublevel.study.cells import KEEP, Context
from sublevel.train import resume
from sublevel.train.resume import Snapshot

FUNCTION = "sublevel.study.compute:compute"


def compute(
    job: Job, store: Store, partial: Partial, progress: Progress, problem: Problem | None = None
) -> tuple[dict[str, Any], Mapping[str, Mapping[str, Tensor]]]:
    """Compute a cell in the study's arithmetic; ``problem`` is passed if this process has it already."""
    about = job.context
    device = about["problem"]["device"] if problem is None else problem.device
    # if the code forks or exits in here, one process still writes the result
    with arithmetic(about["threads"], device), contained():
        if problem is None:
            text = canonical(about["problem"]).decode()
            problem = _problem(text, about["identity"], about["splits"], store.get_tensors)
        kind = KINDS[job.kind]
        keep = about.get("keep_bytes", KEEP)
        output = kind.run(Context(problem, store, progress, CellCheckpointer(partial), keep), job.inputs)
    return {"version": kind.version, "values": output.values}, output.objects


@lru_cache(maxsize=1)
def _problem(
    description: str, identity: str | None, splits: str | None, get: Callable[[str], dict[str, Tensor]]
) -> Problem:
    """The problem of a spec. Raises ModelError if its fingerprint is another: the code or the data were edited."""
    problem = Problem.of(ProblemSpec.of(json.loads(description)), get, splits)
    if identity is not None and digest(canonical(problem.fingerprint())) != identity:
        raise ModelError("the network's code or the data have changed since the run began: start it again")
    return problem


class CellCheckpointer:
    """Saves snapshots of a running training in the cell's `Partial` (a `sublevel.train.resume.Checkpointer`)."""

    def __init__(self, partial: Partial) -> None:
        self._partial = partial

    def due(self) -> bool:
        """Whether to save a snapshot now."""
        return self._partial.due()

    def save(self, snapshot: Snapshot) -> None:
        """Save the snapshot; replace the previous one. Raises StoreError if it cannot be written."""
        about = {"step": snapshot.step, "total": snapshot.total, "seen": snapshot.seen, "history": snapshot.history}
        self._partial.write(about, serialised(resume.tensors(snapshot)))

    def load(self) -> Snapshot | None:
        """The last snapshot; None if there is none or it is damaged."""
        found = self._partial.read()
        if found is None:
            return None
        try:
            tensors = load_tensors(found[1])
            at = Snapshot(state=resume.state(tensors), saved=resume.points(tensors), **found[0])
            known = type(at.step) is type(at.seen) is int and isinstance(at.total, float) and min(at.step, at.seen) >= 0
            return at if known and all(isinstance(row, dict) for row in at.history) else None
        except (ValueError, KeyError, TypeError):
            return None
