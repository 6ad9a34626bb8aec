"""Pruning scores: the weights with the lowest are removed first.

A score is one function ``(point, field, generator) -> [D]`` and one line of registration. ``field`` is the training
loss on a fixed sample, for scores that look at data; ``generator`` the study's ``prune`` stream.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sublevel._types import Float, Tensor
from sublevel.errors import unknown
from sublevel.field import Field
from sublevel.space import Point

Score = Callable[[Point, Field | None, torch.Generator], Tensor]
SCORES: dict[str, Score] = {}
DRAWS: set[str] = set()
"""Scores that use their generator: their masks depend on the seed."""


def score(name: str, *, draws: bool = False) -> Callable[[Score], Score]:
    """Register a pruning score under its name; ``draws`` if it uses the generator."""

    def register(function: Score) -> Score:
        SCORES[name] = function
        if draws:
            DRAWS.add(name)
        return function

    return register


def score_function(name: str) -> Score:
    """A score by its name; ConfigError with the nearest one if there is none."""
    if name not in SCORES:
        raise unknown("pruning score", name, SCORES)
    return SCORES[name]


@score("magnitude")
def magnitude(point: Point, field: Field | None, generator: torch.Generator) -> Float[Tensor, "D"]:
    """``|theta_i|`` (Han et al. 1506.02626)."""
    return point.theta.abs()


@score("random", draws=True)
def random(point: Point, field: Field | None, generator: torch.Generator) -> Float[Tensor, "D"]:
    """A uniform draw for every coordinate: the control that any score must beat."""
    return torch.rand(len(point.theta), generator=generator).to(point.theta.device)
