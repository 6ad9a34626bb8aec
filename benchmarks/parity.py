"""Whether the engine of captured graphs ends where the eager one does."""

from __future__ import annotations

from dataclasses import replace

from sublevel.errors import ConfigError
from sublevel.problem import Problem
from sublevel.train.recipe import Recipe


def apart(problem: Problem, recipe: Recipe, steps: int = 20) -> float | str:
    """How far apart the two end after some steps from one start, relative to the weights; or what failed.

    The first epoch ends half-way, so that the smaller last batch is among the steps.
    """
    ends, first = {}, max(0, recipe.steps_per_epoch(len(problem.splits.train)) - steps // 2)
    for engine in ("eager", "graph"):
        again = replace(recipe, engine=engine)
        try:
            ends[engine] = problem.trained(
                problem.init(0), recipe=again, seed=0, first=first, rates=[0.01] * (first + steps)
            ).end.theta
        except (RuntimeError, ConfigError) as error:
            return f"{engine} failed: {error}"
    return float((ends["graph"] - ends["eager"]).norm() / ends["eager"].norm())
