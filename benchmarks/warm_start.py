"""Does it pay to begin the eigenvalues of a level with the eigenvectors of the level before?

    python benchmarks/warm_start.py       # about two minutes

A perceptron is trained, pruned by magnitude, rewound and trained again, four times. At every level the twenty largest
eigenvalues of the Hessian in the subspace of the mask are found twice: from a random start, as the package does, and
from the eigenvectors of the level before, added up with their eigenvalues as weights, and a random vector of a
hundredth of that length, so that new directions are not missed. Products count; the values must agree.
"""

from __future__ import annotations

import torch

from common import record, spread
from sublevel.geometry.curvature import hessian, top_eigenvalues
from sublevel.geometry.curvature.top_eigenpairs import top_eigenpairs
from sublevel.problem import Problem
from sublevel.prune import counts, select
from sublevel.prune.scores import magnitude
from sublevel.rng import generator
from sublevel.train.recipe import Duration, Recipe

LEVELS, FRACTION, K, EXAMPLES, TOLERANCE = 4, 0.5, 20, 1000, 1e-4


def main() -> None:
    """Measure and record."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    problem = Problem("lenet-300-100", train_size=4000)
    recipe = Recipe(length=Duration(5, "ep"), lr=0.05)
    field, mask = problem.field("train", size=EXAMPLES), None
    done = problem.trained(problem.init(0), recipe=recipe, seed=0, checkpoints=[20])
    start, before = done.checkpoints[20], None
    rows, apart = [], []
    for level in range(LEVELS + 1):
        if level:
            parent = problem.space.full_mask() if mask is None else mask
            draw = generator(0, "prune")
            mask = select(
                problem.space, magnitude(done.end, None, draw), parent, counts(problem.space, FRACTION, level)
            )
            done = problem.trained(start, recipe=recipe, seed=0, mask=mask, first=20)
        cold = top_eigenvalues(field, done.end, k=K, mask=mask, restarts=0, negative=0)
        if before is not None:
            operator = hessian(field, done.end, mask)
            known = before.values.to(before.vectors) @ before.vectors
            known = known[mask] if mask is not None else known
            noise = operator.draw(0, 0)
            first = known + 0.01 * known.norm() / noise.norm() * noise
            warm = top_eigenpairs(operator, lambda run, v=first: v, k=K, tolerance=TOLERANCE, steps=400, restarts=0)
            rows.append(warm.products / cold.products)
            apart.append(float(abs(warm.values - cold.values).max() / cold.values.max()))
        before = cold
    result = {"k": K, "levels": LEVELS, "products from the level before / from random": spread(rows)}
    result |= {"largest difference of the values / lambda_1": max(apart)}
    record("warm-start", __file__, result | {"needed": "clearly below 1 at every level, with values that agree"})


if __name__ == "__main__":
    main()
