"""Measure checkpoints that were trained elsewhere in one call, and compare them in one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sublevel._types import Tensor
from sublevel.checkpoints import Source, named_tensors
from sublevel.claims import checkpoints as read
from sublevel.claims.checkpoints import Answer
from sublevel.engine.store import serialised
from sublevel.errors import ConfigError
from sublevel.files import replacing
from sublevel.problem import Problem
from sublevel.study.result import Result
from sublevel.study.study import RUNS, Study

GEOMETRY: dict[str, Any] = {
    "paths": {"size": 2000},
    "spectra": {"size": 1000, "spaces": ["own", "all"]},
    "density": {"size": 1000},
    "overlaps": {"size": 1000},
    "volumes": {"size": 1000, "methods": ["logdet", "importance"]},
    "topology": {"size": 1000},
}
"""The default measurements of checkpoints."""


def measure(
    checkpoints: Mapping[str, Source],
    problem: Problem,
    *,
    masks: Mapping[str, Source] | None = None,
    geometry: Mapping[str, Any] | None = None,
    name: str = "measured",
    out: str | Path = RUNS,
    memory: str | None = None,
    **run: Any,
) -> Result:
    """Measure networks that were trained elsewhere: losses, paths between them, curvature, volumes.

    ``checkpoints`` maps a name to a file, a state dict or a network; ``masks`` likewise, or ``"zeros"``. The first is
    the reference of paths and overlaps. Every training example of ``problem`` is measured: none is held out.
    ``geometry`` replaces blocks of the default measurements (None leaves a block out), ``memory`` limits
    a worker (see `Study`), and ``run`` goes to `Study.run`.
    `answer` of the result says whether they share a basin.

    Raises ConfigError for masks without a checkpoint, and DataError where a checkpoint is another function than the
    network's (see `sublevel.checkpoints.read`).
    """
    stray = set(masks or {}) - set(checkpoints)
    if stray or not checkpoints:
        raise ConfigError(f"masks name no checkpoint: {sorted(stray)}" if stray else "name at least one checkpoint")
    folder = Path(out) / name / "checkpoints"
    given = [
        {"name": each, "path": _file(source, folder / f"{i}.safetensors")}
        | ({"mask": _file(masks[each], folder / f"{i}-mask.safetensors")} if masks and each in masks else {})
        for i, (each, source) in enumerate(checkpoints.items())
    ]
    blocks = {key: block for key, block in {**GEOMETRY, **(geometry or {})}.items() if block is not None}
    whole = replace(problem, validation=0)
    return Study(whole, name=name, given=given, geometry=blocks, out=out, memory=memory).run(**run)


def _file(source: Source, path: Path) -> str:
    """The file of a checkpoint or a mask; one in memory is written to ``path`` first."""
    if isinstance(source, str | Path):
        return str(source)
    with replacing(path) as whole:
        whole.write_bytes(serialised({k: t for k, t in named_tensors(source).items() if isinstance(t, Tensor)}))
    return str(path)


def answer(result: Result) -> Answer:
    """Say of measured checkpoints whether they share a basin: see `sublevel.claims.checkpoints.answer`."""
    return read.answer(result.tables)
