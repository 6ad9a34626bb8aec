"""Checkpoints that were trained elsewhere: whether straight segments join them, read from the tables of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from sublevel.claims.margins import RISE_MARGIN


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


def answer(tables: Any) -> Answer:
    """Say of measured checkpoints whether straight segments join them without a barrier in the train loss.

    A segment has a barrier where its loss rises by more than 10% over the higher end, the margin of the claims. A
    barrier on the segment does not exclude a curve without one.
    """
    levels = tables["levels"]
    rows = levels[["branch", "density", "train_loss", "train_error", "test_loss", "test_error"]]
    rows = rows.rename(columns={"branch": "checkpoint"}).reset_index(drop=True)
    own = tables["curvature"].query("space == 'own' and operator == 'hessian' and part == 0")
    rows["lambda_1"] = rows["checkpoint"].map(dict(zip(own["branch"], own["largest"], strict=True)))
    dets = tables["estimates"].query("space == 'own' and quantity == 'log-determinant' and part == 0")
    dets = dets.drop_duplicates("branch", keep="last")
    rows["log_determinant"] = rows["checkpoint"].map(dict(zip(dets["branch"], dets["value"], strict=True)))
    every_two = pairs(tables["joins"], levels)
    return Answer(rows.dropna(axis=1, how="all"), every_two, _sentence(every_two, len(rows)))


def pairs(joins: Any, levels: Any) -> pd.DataFrame:
    """The table ``pairs`` of an answer."""
    names = {f"{r.branch} L{r.level:g} s{r.seed:g}": r.branch for r in levels.itertuples()}
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
