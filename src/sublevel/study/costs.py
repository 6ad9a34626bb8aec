"""The costs of cells, for their order and for the plan. Results do not depend on them."""

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

TRANSFORMERS = 150 * 2**20
"""Resident bytes of transformers."""

TRAINING_VECTORS = 8
"""Vectors [D] of a training: weights, gradients and moments, in several forms."""

PRODUCT_VECTORS = 6
"""Vectors [D] at the peak of a Hessian product: network, point, gradient, its parts, product, sum over batches."""

STEPS = 200
"""Steps of a Lanczos run by default."""


def units(problem: Problem) -> Callable[[Node], float]:
    """The cost of a node in training-example passes (forward and backward); a forward pass alone is a third."""
    sizes = {name: len(part) for name, part in problem.splits.parts.items()}
    return lambda node: KINDS[node.kind].cost(node.inputs, sizes)


def rate(problem: Problem, recipe: Recipe, threads: int, seconds: float = 0.5) -> float:
    """Training examples per second of one job, measured for about ``seconds``.

    A first call is not timed, because on a GPU it loads libraries and kernels.
    """
    start, steps = problem.init(0), 2

    def spent() -> float:
        began = time.perf_counter()
        with arithmetic(threads, problem.device):
            problem.trained(start, recipe=recipe, seed=0, rates=[1e-6] * steps)
        return time.perf_counter() - began

    spent()
    while (took := spent()) <= seconds:
        steps *= 4
    return steps * recipe.batch_size / took


def memory(problem: Problem, recipe: Recipe, waiting: list[Node], keep: int | None = None) -> dict[str, int]:
    """Bytes of a worker by purpose, without the data, which all workers share.

    They hold the vectors of training and products, a batch's activations, points that are evaluated together, and the
    basis and graphs of Lanczos. A Lanczos run holds ``rows`` vectors if that is set; otherwise half of its steps is the
    estimate. Within a limit, where cells keep ``keep`` bytes of graphs, it is all of its steps.
    """
    vector, limit = vector_bytes(problem, recipe), keep is not None
    held = max((_held(n, limit) for n in waiting), default=0)
    batches = [n.inputs["batch"] for n in waiting if n.inputs.get("batch")]
    products = any(KINDS[n.kind].products and not n.inputs.get("rows") for n in waiting)
    trained = any(KINDS[n.kind].trains for n in waiting)
    vectors = TRAINING_VECTORS if trained or not limit else PRODUCT_VECTORS
    batch = min(batches, default=problem.field_batch)
    return {
        "the process": process(problem),
        f"{vectors} vectors of training and products": vectors * vector,
        f"a batch of {batch} examples": batch_bytes(problem, recipe, batch),
        f"{held:.0f} vectors of Lanczos": int(held * vector),
        "points that are evaluated together": 0 if limit else vector * together(problem.space.dim),
        "graphs of gradients": (KEEP if keep is None else keep) if products else 0,
    }


def _held(node: Node, limit: bool) -> float:
    """The vectors that a cell's Lanczos runs hold."""
    o = node.inputs.get("options", node.inputs)
    if o.get("rows"):
        return o["rows"]
    if node.kind in ("spectrum", "volume-pair") and "steps" in o:
        return o["steps"] * min(o.get("probes", 1), TOGETHER) * (1.0 if limit else 0.5)
    if not limit:
        return 0
    return o["steps"] * min(o["probes"], TOGETHER) if node.kind == "density" else STEPS * (node.kind == "eigenvectors")


def vector_bytes(problem: Problem, recipe: Recipe) -> int:
    """Bytes of a vector [D]."""
    return problem.space.dim * (8 if recipe.dtype == "float64" else 4)


def batch_bytes(problem: Problem, recipe: Recipe, examples: int) -> int:
    """Bytes of the activations of a batch: those of the forward pass, and twice as many for second derivatives."""
    return 3 * (8 if recipe.dtype == "float64" else 4) * examples * problem.activations


def process(problem: Problem) -> int:
    """Resident bytes of a process that has imported what it needs."""
    return BASE + (TRANSFORMERS if problem.pretrained else 0)


def disk(node: Node, problem: Problem) -> int:
    """Bytes that a cell adds to the store."""
    if node.kind == "train":
        return 4 * problem.space.dim * (1 + len(node.inputs["checkpoints"])) + 4096
    return problem.space.dim // 8 + 1024 if node.kind == "mask" else 4096
