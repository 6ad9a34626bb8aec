"""What is missing or unreliable in a study, in sentences with the reason."""

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
    what = "no interval and no test" if n < 2 else "nothing is decided"
    found = [
        f"{counted(n, 'seed')}: {what}. Set seeds = {FEWEST_SEEDS} or more; finished cells are kept."
        * (n < FEWEST_SEEDS),
        "The dense network is missing, so nothing is compared with it." * (not (levels["branch"] == "dense").any()),
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
    return f"{len(gone)} networks that other seeds have are missing ({_named(gone)}): means are over the other seeds."


def _infinite(levels: Frame) -> str:
    known = levels[["train_loss", "test_error"]].dropna(axis=1, how="all")
    bad = levels[~np.isfinite(known.to_numpy(dtype=float)).all(axis=1)] if known.shape[1] else levels.iloc[:0]
    if bad.empty:
        return ""
    return (
        f"{len(bad)} of {len(levels)} networks have no finite loss or error ({_named(_keys(bad))}): training or "
        "evaluation failed. Means leave them out, so a mean can look better than its branch is."
    )


def _collapsed(levels: Frame, layers: Frame | None) -> str:
    bad = levels[levels["collapsed_layers"] > 0]
    if bad.empty:
        return ""
    empty = [] if layers is None else list(dict.fromkeys(layers.loc[layers["remaining"] == 0, "layer"]))
    which = f" Empty layers: {', '.join(empty[:LAYERS])}" if empty else ""
    more = f" and {len(empty) - LAYERS} other layers" if len(empty) > LAYERS else ""
    return (
        f"{len(bad)} of {len(levels)} networks have a layer without weights ({_named(_keys(bad))}): they compute a "
        f"constant, and their curvature and volume describe that.{which}{more}{'.' * bool(empty)}"
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
