"""The engines by name: implementations of the training step."""

from __future__ import annotations

from sublevel._types import Bool, Tensor
from sublevel.space import Point
from sublevel.train.graph import Graphed
from sublevel.train.setup import TrainingSetup
from sublevel.train.sparse import Sparse
from sublevel.train.weights import Weights

ENGINE = "eager-4"
"""The name of the engine ``auto`` in a cell's numerics class."""

BUILD: dict[str, type[Weights]] = {"auto": Weights, "eager": Weights, "graph": Graphed, "sparse": Sparse}


def weights(setup: TrainingSetup, start: Point, mask: Bool[Tensor, "D"] | None) -> Weights:
    """The weights of the recipe's engine."""
    return BUILD[setup.recipe.engine](setup, start, mask)
