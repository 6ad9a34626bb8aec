"""Checkpoints that were trained elsewhere: measured in one call, and compared in one answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import nn

from sublevel._types import Tensor
from sublevel.checkpoints import Source
from sublevel.claims.margins import RISE_MARGIN
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
"""What is measured of checkpoints by default."""


def measure(
    checkpoints: Mapping[str, Source],
    problem: Problem,
    *,
    masks: Mapping[str, Source] | None = None,
    geometry: Mapping[str, Any] | None = None,
    name: str = "measured",
    out: str | Path = RUNS,
    **run: Any,
) -> Result:
    """Measure networks that were trained elsewhere: losses, paths between them, curvature, volumes.

    ``checkpoints`` maps a name to a file, a state dict or a network; ``masks`` likewise, or ``"zeros"``. The first is
    the reference of paths and overlaps. Every training example of ``problem`` is measured: none is held out.
    ``geometry`` replaces blocks of the default measurements (None leaves a block out), and ``run`` goes to `Study.run`.
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
    return Study(replace(problem, validation=0), name=name, given=given, geometry=blocks, out=out).run(**run)


def _file(source: Source, path: Path) -> str:
    """The file of a checkpoint or a mask; what is in memory is written to ``path`` first."""
    if isinstance(source, str | Path):
        return str(source)
    state = source.state_dict() if isinstance(source, nn.Module) else source
    with replacing(path) as whole:
        whole.write_bytes(serialised({key: value for key, value in state.items() if isinstance(value, Tensor)}))
    return str(path)


@dataclass(frozen=True)
class Answer:
    """What was measured of some checkpoints, in two tables and a sentence.

    ``checkpoints`` has a row for each: density, losses and errors, the largest Hessian eigenvalue in its own subspace,
    and the log-determinant, low for a flat minimum; what was not measured has no column. ``pairs`` has a row for every
    two: the highest loss on the segment between them, its ``rise`` over the higher end as a share of the loss there,
    and whether that is below the margin.
    """

    checkpoints: pd.DataFrame
    pairs: pd.DataFrame
    sentence: str


def answer(result: Result) -> Answer:
    """Say of measured checkpoints whether straight segments join them without a barrier in the train loss.

    A segment has a barrier where its loss rises by more than 10% over the higher end, the margin of the claims. A
    barrier on the segment does not exclude a curve without one.
    """
    tables: Any = result.tables
    levels = tables["levels"]
    rows = levels[["branch", "density", "train_loss", "train_error", "test_loss", "test_error"]]
    rows = rows.rename(columns={"branch": "checkpoint"}).reset_index(drop=True)
    own = tables["curvature"].query("space == 'own' and operator == 'hessian' and part == 0")
    rows["lambda_1"] = rows["checkpoint"].map(dict(zip(own["branch"], own["largest"], strict=True)))
    dets = tables["estimates"].query("space == 'own' and quantity == 'log-determinant' and part == 0")
    dets = dets.drop_duplicates("branch", keep="last")
    rows["log_determinant"] = rows["checkpoint"].map(dict(zip(dets["branch"], dets["value"], strict=True)))
    pairs = _pairs(tables["joins"], levels)
    return Answer(rows.dropna(axis=1, how="all"), pairs, _sentence(pairs, len(rows)))


def _pairs(joins: Any, levels: Any) -> pd.DataFrame:
    names = {f"{r.branch} L{r.level} s{r.seed}": r.branch for r in levels.itertuples()}
    found = joins[joins["of"] == "loss"]
    higher = found[["height_a", "height_b"]].max(axis=1)
    rise = ((found["maximum"] - higher) / higher).clip(lower=0)
    return pd.DataFrame(
        {
            "a": found["a"].map(names),
            "b": found["b"].map(names),
            "higher_end": higher,
            "maximum": found["maximum"],
            "rise": rise,
            "joined": rise <= RISE_MARGIN,
        }
    ).reset_index(drop=True)


def _sentence(pairs: Any, count: int) -> str:
    if count < 2:
        return "One checkpoint: there is no path to judge."
    if pairs.empty:
        return "No segment between the checkpoints was measured (geometry.topology)."
    apart, margin = pairs[~pairs["joined"]], f"{100 * RISE_MARGIN:.0f}%"
    if apart.empty:
        worst = pairs.loc[pairs["rise"].idxmax()]
        rise = f"at most {100 * worst.rise:.1f}% of the loss there"
        return f"Same basin: on the segment between every two, the train loss rises over the higher end by {rise}."
    first = apart.loc[apart["rise"].idxmax()]
    which = "No two share" if len(apart) == len(pairs) else f"{len(apart)} of {len(pairs)} pairs do not share"
    return (
        f"{which} a basin along a straight line: from {first.a} to {first.b} the train loss rises from "
        f"{first.higher_end:.3g} at the higher end to {first.maximum:.3g} (the margin is {margin}). A curve may still "
        "join them: --set 'geometry.connect={}' looks for one."
    )
