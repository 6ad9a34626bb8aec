"""Whether the engine of captured graphs ends where the eager one does."""

from __future__ import annotations

from dataclasses import replace

from sublevel.problem import Problem
from sublevel.train.recipe import Recipe


def apart(problem: Problem, recipe: Recipe, steps: int = 20) -> float | str:
    """How far apart the two end after some steps from one start, relative to the weights; or what failed."""
    ends = {}
    for engine in ("eager", "graph"):
        again = replace(recipe, engine=engine)
        try:
            ends[engine] = problem.trained(problem.init(0), recipe=again, seed=0, rates=[0.01] * steps).end.theta
        except RuntimeError as error:
            return f"{engine} failed: {error}"
    return float((ends["graph"] - ends["eager"]).norm() / ends["eager"].norm())
