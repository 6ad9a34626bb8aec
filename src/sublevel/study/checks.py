"""Checks that need the network, the data and the user's code, before anything is written."""

from __future__ import annotations

import copy

import torch
from torch import nn

from sublevel.engine.graph import Graph
from sublevel.errors import ConfigError, unknown
from sublevel.inputs import call, format_shapes
from sublevel.problem import Problem, path
from sublevel.prune import SCORES, Criterion, ScoreContext
from sublevel.risk.synflow import flow
from sublevel.rng import generator
from sublevel.study.spec import StudySpec

EXAMPLES = 64
"""Training examples for the check of your own criterion."""

STEPS = ("gradual", "edge-popup", "continuous-sparsification")
"""Kinds of cells with their own training steps: they prune, or learn a mask, during the training."""


def check(problem: Problem, spec: StudySpec) -> None:
    """Raise ConfigError for augmentation of inputs other than images, a last batch on which the network cannot be
    trained, a criterion without valid scores, or an unknown primary claim.
    """
    recipe = spec.train
    if spec.primary:
        from sublevel.claims import CLAIMS

        for name in set(spec.primary) - set(CLAIMS):
            raise unknown("primary claim", name, CLAIMS)
    if isinstance(problem.model, nn.Module) and not spec.given:
        raise ConfigError(
            f"a study trains from the fresh weights of every seed, and the network {problem.name} is built already: "
            "give the function or class that builds it, as Problem(Net, ...)"
        )
    if (recipe.crop or recipe.flip) and problem.splits.train.x.ndim != 4:
        got = format_shapes(problem.splits.input_shape)
        raise ConfigError(f"train.crop and train.flip are for images [C, H, W]; the inputs have shape {got}")
    check_last_batch(problem, recipe.batch_size)
    for name in {spec.criterion, *(b.options.get("criterion", "") for b in spec.branches)} & set(SCORES):
        if not spec.given:
            check_criterion(problem, SCORES[name])


def check_loop(problem: Problem, graph: Graph) -> None:
    """Raise ConfigError if a study has your own training loop and a branch with training steps of its own."""
    for node in graph.nodes.values() if problem.loop is not None else ():
        if node.kind in STEPS:
            raise ConfigError(
                f"branch {node.labels['branch']!r} takes steps of its own, which the training loop "
                f"{path(problem.loop or '')} does not: leave out one of them"
            )


def check_last_batch(problem: Problem, batch_size: int) -> None:
    """Raise ConfigError for a last batch of one example that BatchNorm cannot be trained on."""
    left = len(problem.splits.train) % batch_size
    if left != 1 or batch_size == 1:
        return
    try:
        with torch.no_grad():
            call(copy.deepcopy(problem.module).train(), {}, problem.prepare(problem.splits.train.x[:1]))
    except ValueError as error:
        raise ConfigError(
            f"train.batch_size {batch_size} leaves a last batch of one of the {len(problem.splits.train)} training "
            f"examples, which the network cannot be trained on ({error}); choose another size"
        ) from error


def check_criterion(problem: Problem, criterion: Criterion) -> None:
    """Call your own criterion once, and raise ConfigError if it has too few or too many scores, or one that is nan.

    Two draws of the weights take the places of the start and the end of a training. Criteria of the package are not
    called.
    """
    if not criterion.own:
        return
    space, first = problem.space, problem.prepare(problem.splits.train.x[:1])
    context = ScoreContext(
        space,
        space.full_mask().to(problem.device),
        start=problem.init(0),
        flow=flow(space, problem.module, first) if "flow" in criterion.needs else None,
    )
    few = problem.field("train", size=min(EXAMPLES, len(problem.splits.train)))
    criterion.look(problem.init(1), few, generator(0, "prune"), context)
