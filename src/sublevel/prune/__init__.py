"""Pruning: scores rate the weights, and selection turns scores into a mask with an exact count."""

from sublevel.prune.masks import Pruning, prune
from sublevel.prune.registry import SCORES, Criterion, ScoreContext, Scores, score, score_function
from sublevel.prune.select import counts, counts_at, layer_counts, select

__all__ = [
    "SCORES",
    "Criterion",
    "Pruning",
    "ScoreContext",
    "Scores",
    "counts",
    "counts_at",
    "layer_counts",
    "prune",
    "score",
    "score_function",
    "select",
]
