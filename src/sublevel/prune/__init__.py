"""Pruning: scores rate the weights, and selection turns scores into a mask with an exact count."""

from importlib import import_module
from pkgutil import iter_modules

from sublevel.prune.masks import Pruning, prune
from sublevel.prune.registry import SCORES, Criterion, ScoreContext, Scores, score, score_function
from sublevel.prune.select import counts, counts_at, layer_counts, select

for found in iter_modules(__path__):  # every module registers its criteria
    import_module(f"{__name__}.{found.name}")

__all__ = [
    "SCORES", "Criterion", "Pruning", "ScoreContext", "Scores", "counts", "counts_at", "layer_counts", "prune", "score",
    "score_function", "select",
]  # fmt: skip
