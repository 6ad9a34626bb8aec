"""A limit on the memory of a worker: how many vectors fit, and what a study measures within it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sublevel.errors import ConfigError
from sublevel.geometry.curvature.restarted import fewest_rows
from sublevel.problem import Problem
from sublevel.study import costs
from sublevel.study.cells import KEEP
from sublevel.study.spec import StudySpec

UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20, "gib": 2**30}

HELD: Mapping[str, Callable[[Any], int]] = {
    "density": lambda block: block.steps * min(block.probes, costs.TOGETHER),
    "overlaps": lambda block: costs.STEPS + 4 * block.k,
    "volumes": lambda block: 0 if set(block.methods) <= {"radial", "llc"} else costs.STEPS,
    "pairs": lambda block: block.steps,
}
"""The vectors [D] that a measurement holds and cannot do without, by its block."""


def parse_memory(text: str) -> int:
    """Bytes of a text such as ``16GB`` or ``16 GiB``.

    Raises ConfigError for another form.

    >>> parse_memory("16GB"), parse_memory("1.5 GiB")
    (16000000000, 1610612736)
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([kmg]?i?b?)\s*", text, re.IGNORECASE)
    unit = found[2].lower() if found else ""
    unit = unit if not unit or unit.endswith("b") else f"{unit}b"
    if found is None or unit not in UNITS or not float(found[1]):
        raise ConfigError(f"memory is written as 16GB or 16GiB, got {text!r}")
    return int(float(found[1]) * UNITS[unit])


@dataclass(frozen=True)
class Limited:
    """A study within a limit: its spec, what is left out, and the bytes of graphs that a cell may keep."""

    spec: StudySpec
    notes: list[str]
    keep_bytes: int


def limited(spec: StudySpec, problem: Problem, memory: int) -> Limited:
    """The study with spectra that fit in ``memory`` bytes of a worker, without the blocks that do not.

    Lanczos restarts within the vectors that fit (`spectra.rows`), and a field takes smaller batches (`spectra.batch`)
    where a usual one leaves too little room. What is left keeps graphs of gradients. Raises ConfigError with the fewest
    bytes if not even these fit.
    """
    vector, block = costs.vector_bytes(problem, spec.train), spec.geometry.spectra  # type: ignore[attr-defined]
    vectors = costs.PRODUCT_VECTORS if spec.given else costs.TRAINING_VECTORS
    fixed, each = costs.process(problem) + vectors * vector, costs.batch_bytes(problem, spec.train, 1)
    changes, notes, batch, held = {}, [], problem.field_batch, 0
    if block is not None:
        k, low = min(block.k, problem.space.dim), min(block.negative, max(problem.space.dim - 1, 0))
        least = fewest_rows(k, low)
        room = memory - fixed - least * vector
        if room < each:
            raise ConfigError(
                f"{block.k} eigenvalues of this network do not fit in {_gb(memory)}: at least "
                f"{_gb(fixed + least * vector + each)}, which are {_gb(costs.process(problem))} for the process, "
                f"{vectors} vectors of {_gb(vector)} for a product, {least} for the eigenvectors, and {_gb(each)} for "
                "one example; ask for fewer (geometry.spectra.k, geometry.spectra.negative), or for blocks alone"
            )
        batch = min(problem.field_batch, room // each)
        rows = (memory - fixed - batch * each) // vector
        held = min(rows, block.steps)
        smaller = batch if batch < problem.field_batch else None
        new = {"rows": int(rows) if rows < block.steps else None, "batch": smaller}
        if new != {"rows": None, "batch": None}:
            changes["spectra"] = block.model_copy(update=new)
    room = memory - fixed - problem.field_batch * each
    for name, needs in HELD.items():
        asked = getattr(spec.geometry, name, None)
        if asked is None:
            continue
        if needs(asked) * vector <= room:
            held = max(held, needs(asked))
            continue
        changes[name] = None
        needed = memory - room + needs(asked) * vector
        notes.append(f"{name} is left out: it needs {_gb(needed)} of memory, and the limit is {_gb(memory)}")
    keep = max(0, min(KEEP, memory - fixed - batch * each - held * vector))
    return Limited(
        spec.model_copy(update={"geometry": spec.geometry.model_copy(update=changes)}), notes, 0 if changes else keep
    )


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"
