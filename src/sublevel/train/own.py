"""Training by the user's loop instead of `sublevel.train.engine.train`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from math import nan
from typing import Any

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import Diverged, ModelError
from sublevel.inputs import Inputs
from sublevel.rng import seeded
from sublevel.space import Point
from sublevel.train.engine import TrainingResult
from sublevel.train.setup import EpochProgress, TrainingSetup

Loop = Callable[..., Any]
"""``(theta [D], mask [D], steps: range, ...) -> theta [D]``, or a `Point` if buffers moved too."""

Batch = Callable[[int], tuple[Inputs, Tensor]]


def by_loop(
    loop: Loop,
    setup: TrainingSetup,
    start: Point,
    *,
    mask: Bool[Tensor, "D"] | None = None,
    first: int = 0,
    rates: Sequence[float] | None = None,
    checkpoints: Sequence[int] = (),
    offered: Mapping[str, Any] | None = None,
) -> TrainingResult:
    """Train from ``start`` at step ``first`` to the end with ``loop(theta, mask, steps)``, called once per interval
    between two checkpoints. The loop's other state (momentum) restarts at each call. The setup's loss and checkpointer
    are not used: the loop has a loss of its own, and a snapshot cannot hold its variables.

    ``theta`` [D] is a copy, 0 where ``mask`` [D] (bool, all True for a dense network) is False; ``steps`` is the range
    of steps to take. The returned weights must be finite, and 0 outside the mask. If its signature names them, the loop
    also receives ``buffers`` (name -> tensor, copies that it may change in place), ``batch`` (step -> the prepared
    inputs and labels in the study's data order, augmented), ``rates`` (the learning rate of every step of the whole
    run), ``recipe``, ``seed``, and the arguments in ``offered``. Before each call the network is set to training mode
    and PyTorch's global generator is seeded.

    Raises ModelError for a vector of another shape or with weights outside the mask, Diverged if it is not finite.
    """
    rates, wanted = setup.rates if rates is None else rates, inspect.signature(loop).parameters
    last, saved, history = len(rates), {}, []
    kept = torch.ones_like(start.theta, dtype=torch.bool) if mask is None else mask
    now = start if mask is None else start.project(mask)
    marks = sorted({first, *(step for step in checkpoints if first <= step <= last), last})
    if first in checkpoints:
        saved[first] = _copy(now)
    for begin, end in pairwise(marks):
        given = _copy(now)
        available = {
            "buffers": given.buffers,
            "batch": _reader(setup),
            "rates": rates,
            "recipe": setup.recipe,
            "seed": setup.seed,
            **(offered or {}),
        }
        if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in wanted.values()):
            available = {name: value for name, value in available.items() if name in wanted}
        setup.module.train()
        with seeded(setup.seed, f"loop:{setup.order}", begin):
            found = loop(given.theta, kept.clone(), range(begin, end), **available)
        now = _checked(loop, found, given, kept, end)
        epoch = (end - 1) // setup.per_epoch
        progress = EpochProgress(end, last, epoch, rates[end - 1], nan)
        watched = setup.watch(progress, now) if setup.watch else {}
        history.append({"step": end, "epoch": epoch, "lr": progress.lr, **watched})
        if end in checkpoints:
            saved[end] = _copy(now)
    return TrainingResult(now, saved, history)


def _reader(setup: TrainingSetup) -> Batch:
    """A function that returns the batch of any step, as `sublevel.train.engine.train` would use it."""
    plan = lru_cache(maxsize=1)(setup.plan)

    def read(step: int) -> tuple[Inputs, Tensor]:
        epoch, inside = divmod(step, setup.per_epoch)
        x, y = setup.batch(plan(epoch), inside)
        return setup.prepare(x), y

    return read


def _checked(loop: Loop, found: Any, given: Point, mask: Bool[Tensor, "D"], step: int) -> Point:
    """Check the weights that a loop returned; return them as a new point."""
    name = f"the training loop {getattr(loop, '__qualname__', type(loop).__name__)}"
    theta: Float[Tensor, "D"] = found.theta if isinstance(found, Point) else found
    if not isinstance(theta, Tensor) or theta.shape != given.theta.shape or theta.dtype != given.theta.dtype:
        got = f"{theta.dtype} {list(theta.shape)}" if isinstance(theta, Tensor) else type(theta).__name__
        raise ModelError(
            f"{name} returned {got} at step {step}; expected {given.theta.dtype} {list(given.theta.shape)}"
        )
    if not bool(torch.isfinite(theta).all()):
        raise Diverged(f"training diverged: a weight that {name} returned at step {step} is not finite")
    if grown := int(theta[~mask].count_nonzero()):
        raise ModelError(f"{name} returned {grown} nonzero pruned weights at step {step}: multiply by the mask")
    buffers = found.buffers if isinstance(found, Point) else given.buffers
    if {name: b.shape for name, b in buffers.items()} != {name: b.shape for name, b in given.buffers.items()}:
        raise ModelError(
            f"{name} returned other buffers than the network's at step {step}: {', '.join(buffers) or 'none'}"
        )
    return _copy(Point(theta.detach(), buffers))


def _copy(point: Point) -> Point:
    return Point(point.theta.detach().clone(), {name: b.detach().clone() for name, b in point.buffers.items()})
