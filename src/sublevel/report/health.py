"""What is missing in a study or cannot be trusted, in sentences that name it and say why."""

from __future__ import annotations

import numpy as np

from sublevel.claims.margins import FEWEST_SEEDS
from sublevel.report.findings import counted
from sublevel.report.frame import Frame
from sublevel.report.prepare import only_measured

NAMED = 4
LAYERS = 8


def faults(tables: dict[str, Frame]) -> list[str]:
    """Sentences on what limits everything else: seeds, the dense network, networks that are absent or broken."""
    levels = tables["levels"]
    if levels.empty:
        return []
    broken = [_infinite(levels), _collapsed(levels, tables.get("layers"))]
    if only_measured(levels):
        return [sentence for sentence in broken if sentence]
    n = int(levels["seed"].nunique())
    what = "has no interval and no test" if n < 2 else "has intervals too wide to decide anything"
    found = [
        f"{counted(n, 'seed')}: a study like this {what}. Set seeds = {FEWEST_SEEDS} or more; what is there is kept."
        * (n < FEWEST_SEEDS),
        "The dense network is missing, so nothing on this page can be compared with it."
        * (not (levels["branch"] == "dense").any()),
        _absent(levels),
        *broken,
    ]
    return [sentence for sentence in found if sentence]


def _absent(levels: Frame) -> str:
    """Networks that other seeds have."""
    keys = levels[["branch", "level", "seed"]].drop_duplicates()
    seeds = sorted(keys["seed"].unique())
    here = set(keys.itertuples(index=False, name=None))
    pairs = keys[["branch", "level"]].drop_duplicates().itertuples(index=False, name=None)
    gone = [(b, v, s) for b, v in pairs for s in seeds if (b, v, s) not in here]
    if not gone:
        return ""
    return f"{len(gone)} networks are missing that other seeds have ({_named(gone)}): means are over the seeds left."


def _infinite(levels: Frame) -> str:
    known = levels[["train_loss", "test_error"]].dropna(axis=1, how="all")
    bad = levels[~np.isfinite(known.to_numpy(dtype=float)).all(axis=1)] if known.shape[1] else levels.iloc[:0]
    if bad.empty:
        return ""
    return (
        f"{len(bad)} of {len(levels)} networks have no finite loss or error ({_named(_keys(bad))}): their training or "
        "their evaluation broke down. They are left out of every mean, so a mean can look better than its branch is."
    )


def _collapsed(levels: Frame, layers: Frame | None) -> str:
    bad = levels[levels["collapsed_layers"] > 0]
    if bad.empty:
        return ""
    empty = [] if layers is None else list(dict.fromkeys(layers.loc[layers["remaining"] == 0, "layer"]))
    which = f" Empty are {', '.join(empty[:LAYERS])}" if empty else ""
    more = f" and {len(empty) - LAYERS} other layers" if len(empty) > LAYERS else ""
    return (
        f"{len(bad)} of {len(levels)} networks have a layer with no weight left ({_named(_keys(bad))}): nothing of the "
        f"input passes it, and their curvature and volume describe a constant function.{which}{more}{'.' * bool(empty)}"
    )


def _keys(rows: Frame) -> list[tuple[str, float, float]]:
    return list(rows[["branch", "level", "seed"]].itertuples(index=False, name=None))


def _named(keys: list[tuple[str, float, float]]) -> str:
    """The first few networks by name.

    >>> _named([("imp", 3.0, 0.0)])
    'imp level 3 seed 0'
    """
    texts = [f"{b} level {v:g} seed {s:g}" for b, v, s in keys[:NAMED]]
    return ", ".join(texts) + (f" and {len(keys) - NAMED} more" if len(keys) > NAMED else "")
