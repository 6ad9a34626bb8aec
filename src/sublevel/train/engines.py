"""The engines by name: implementations of the training step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sublevel.train.graph import Graphed
from sublevel.train.recipe import Recipe
from sublevel.train.sparse import Sparse
from sublevel.train.weights import Weights

ENGINE = "eager-4"
"""The name of the engine ``auto`` in a cell's numerics class."""

BUILD: dict[str, Callable[..., Weights]] = {"auto": Weights, "eager": Weights, "graph": Graphed, "sparse": Sparse}


def weights(space: Any, module: Any, start: Any, mask: Any, recipe: Recipe, prepare: Any, loss: Any) -> Weights:
    """The weights of the recipe's engine; the arguments are those of `Weights`."""
    return BUILD[recipe.engine](space, module, start, mask, recipe, prepare, loss)
