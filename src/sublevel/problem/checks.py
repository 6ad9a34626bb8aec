"""A network that does not fit its data is refused before anything is trained."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import torch
from torch import nn

from sublevel._types import Tensor
from sublevel.errors import ModelError
from sublevel.inputs import call, told
from sublevel.risk.losses import by_class

if TYPE_CHECKING:
    from sublevel.problem.problem import Problem


def check_output(problem: Problem, module: nn.Module) -> None:
    """Refuse a network whose output for two examples does not fit their labels, and a loss that gives no loss of each.

    Labels [N] in C classes take outputs [N, C]; a label for every token, [N, T], takes [N, T, C] or [N, C, T]; real
    targets take as many outputs as an example has targets. Raises ModelError.
    """
    splits, name = problem.splits, problem.name
    classes, y = len(splits.classes), splits.train.y[:2].cpu()
    try:
        with torch.no_grad():
            output = call(module.eval(), {}, splits.prepare(splits.train.x[:2].cpu()))
    except Exception as error:
        raise ModelError(f"model {name} fails on inputs of shape {told(splits.input_shape)}: {error}") from error
    finally:
        module.train()
    if not isinstance(output, Tensor):
        raise ModelError(f"model {name} gives a {type(output).__name__} for a batch; expected a tensor")
    each, target = list(output.shape[1:]), list(y.shape[1:])
    if classes and by_class(output, y).shape != (len(y), classes, *target):
        raise ModelError(
            f"model {name} gives outputs of shape {each} for one example, "
            f"but the data have {classes} classes; expected {[*target, classes]}"
        )
    if not classes and prod(each) != prod(target):
        raise ModelError(
            f"model {name} gives outputs of shape {each} for one example, but its target has shape {target}"
        )
    _check_loss(problem, output, y)


def _check_loss(problem: Problem, output: Tensor, y: Tensor) -> None:
    try:
        losses = problem.mean_loss()(output, y)
    except (RuntimeError, TypeError, IndexError) as error:
        kind = "class labels" if problem.splits.classes else "real targets"
        raise ModelError(f"loss {problem.loss!r} does not take {kind}: {error}") from error
    if not isinstance(losses, Tensor) or losses.shape != (len(y),):
        got = list(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        raise ModelError(
            f"loss {problem.loss!r} gives {got} for a batch of {len(y)}; expected one loss for each example"
        )
