"""What cells cost: for the order they run in, and for the plan. No number of a result depends on this."""

from __future__ import annotations

import time
from collections.abc import Callable

from sublevel.engine.graph import Node
from sublevel.numerics import arithmetic
from sublevel.problem import Problem
from sublevel.risk.empirical import together
from sublevel.study.catalogue import KINDS
from sublevel.study.cells import KEEP
from sublevel.train.recipe import Recipe

TOGETHER = 8
"""Lanczos runs of a quadrature that advance together, each with a basis of its own."""

BASE = 450 * 2**20
"""Resident bytes of a process that has imported torch."""


def units(problem: Problem) -> Callable[[Node], float]:
    """The cost of a node in training-example passes (forward and backward); a forward pass alone is a third."""
    sizes = {name: len(part) for name, part in problem.splits.parts.items()}
    return lambda node: KINDS[node.kind].cost(node.inputs, sizes)


def rate(problem: Problem, recipe: Recipe, threads: int, seconds: float = 0.5) -> float:
    """Training examples per second of one job, measured for about ``seconds``.

    After a call that is not timed: the first one on a GPU loads libraries and kernels.
    """
    start, steps = problem.init(0), 2

    def spent() -> float:
        began = time.perf_counter()
        with arithmetic(threads):
            problem.trained(start, recipe=recipe, seed=0, rates=[1e-6] * steps)
        return time.perf_counter() - began

    spent()
    while (took := spent()) <= seconds:
        steps *= 4
    return steps * recipe.batch_size / took


def memory(problem: Problem, recipe: Recipe, waiting: list[Node]) -> int:
    """Bytes of a worker beside the data, which all share.

    A batch's activations, the vectors of training, points that are evaluated together, the basis and graphs of Lanczos.
    """
    width = 8 if recipe.dtype == "float64" else 4
    asked = [n.inputs.get("options", n.inputs) for n in waiting if n.kind in ("spectrum", "volume-pair")]
    basis = max((o["steps"] * min(o.get("probes", 1), TOGETHER) for o in asked if "steps" in o), default=0) / 2
    vectors = problem.space.dim * width * (8 + basis)
    graphs = KEEP if any(KINDS[n.kind].products for n in waiting) else 0
    points = problem.space.dim * width * together(problem.space.dim)
    return int(BASE + graphs + vectors + points + 3 * width * problem.field_batch * problem.activations)


def disk(node: Node, problem: Problem) -> int:
    """Bytes that a cell adds to the store."""
    if node.kind == "train":
        return 4 * problem.space.dim * (1 + len(node.inputs["checkpoints"])) + 4096
    return problem.space.dim // 8 + 1024 if node.kind == "mask" else 4096
