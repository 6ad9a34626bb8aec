"""The engines: ways to compute the same step, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sublevel.train.graph import Graphed
from sublevel.train.recipe import Recipe
from sublevel.train.sparse import Sparse
from sublevel.train.weights import Weights

ENGINE = "eager-4"
"""Names the arithmetic of the engine ``auto`` in a cell's numerics class."""

BUILD: dict[str, Callable[..., Weights]] = {"auto": Weights, "eager": Weights, "graph": Graphed, "sparse": Sparse}


def weights(space: Any, module: Any, start: Any, mask: Any, recipe: Recipe, prepare: Any, loss: Any) -> Weights:
    """What the recipe's engine moves; the arguments are those of `Weights`."""
    return BUILD[recipe.engine](space, module, start, mask, recipe, prepare, loss)
