"""The training loop around the step. It works in place and reads nothing back from the device within an epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Protocol, runtime_checkable

import torch

from sublevel._types import Bool, Tensor
from sublevel.errors import ConfigError, Diverged
from sublevel.numerics import keep_freed, tf32
from sublevel.rng import reseed, seeded
from sublevel.space import Point
from sublevel.train.engines import weights
from sublevel.train.resume import Snapshot, State
from sublevel.train.setup import EpochProgress, TrainingSetup
from sublevel.train.team import team


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """The end point, the points at the requested steps, and one row of history per epoch."""

    end: Point
    checkpoints: dict[int, Point]
    history: list[dict[str, float]] = field(default_factory=list)


def train(
    setup: TrainingSetup,
    start: Point,
    *,
    mask: Bool[Tensor, "D"] | None = None,
    first: int = 0,
    rates: Sequence[float] | None = None,
    checkpoints: Sequence[int] = (),
    moments: Mapping[str, Tensor] | None = None,
) -> TrainingResult:
    """Train from ``start`` at step ``first`` to the end of the schedule.

    ``rates`` gives the learning rate of every step of the whole run (default: the recipe's); its length is the last
    step. Momentum (both moments of Adam) starts at zero, or at ``moments``. Pruned coordinates are exactly 0
    throughout.

    Raises Diverged, naming the step, if the loss or a weight becomes infinite or NaN.
    """
    run = weights(setup, start, mask)
    if moments is not None:
        run.resume(moments)
    return descend(run, setup, first=first, rates=rates, checkpoints=checkpoints)


@runtime_checkable
class Stepper(Protocol):
    """The state that `descend` updates: weights under a mask, or a learned mask (see `sublevel.train.learned`)."""

    def step(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """Take one step; return the mean loss before it."""
        ...

    def point(self) -> Point:
        """The current point, as a copy."""
        ...

    def state(self) -> State:
        """Everything that a step changes."""
        ...

    def restore(self, state: State) -> None:
        """Restore a state."""
        ...


def descend(
    run: Stepper,
    setup: TrainingSetup,
    *,
    first: int = 0,
    rates: Sequence[float] | None = None,
    checkpoints: Sequence[int] = (),
) -> TrainingResult:
    """The loop around the steps of ``run``; the other arguments are those of `train`."""
    keep_freed()
    data, recipe, seed, checkpointer = setup.data, setup.recipe, setup.seed, setup.checkpointer
    rates = setup.rates if rates is None else rates
    per_epoch, last = setup.per_epoch, len(rates)
    together = team()
    dropout = f"dropout:{setup.order}" + (f":{together.rank}" if together.rank else "")
    at = checkpointer.load() if checkpointer else None
    if at is None:
        at = Snapshot({}, first, saved={first: run.point()} if first in checkpoints else {})
    else:
        run.restore(at.state)
    now, history, saved, before = at.step, list(at.history), dict(at.saved), (at.total, at.seen)
    while now < last:
        epoch, inside = divmod(now, per_epoch)
        stop = min((epoch + 1) * per_epoch, last)
        plan = setup.plan(epoch)
        setup.module.train()
        with seeded(seed, dropout, epoch), tf32(recipe.tf32):
            total = torch.full((), before[0], dtype=torch.float64, device=data.x.device)
            seen, before = before[1], (0.0, 0)
            numbers = range(inside, inside + stop - now)
            for i, (x, y) in zip(numbers, setup.batches(plan, numbers, together), strict=True):
                step = epoch * per_epoch + i
                reseed(seed, dropout, step)  # independent of the step where a run begins
                size = min(recipe.batch_size, len(data) - i * recipe.batch_size)
                total += _stepped(run, x, y, rates[step]) * size
                seen += size
                if step + 1 in checkpoints:
                    saved[step + 1] = run.point()
                if checkpointer and step + 1 < stop and checkpointer.due():
                    checkpointer.save(Snapshot(run.state(), step + 1, float(total), seen, history, saved))
        progress, here = EpochProgress(stop, last, epoch, rates[stop - 1], float(total) / seen), run.point()
        _check_finite(progress, here.theta, now)
        now = stop
        row = {"step": stop, "epoch": epoch, "lr": progress.lr, "train_loss": progress.train_loss}
        history.append({**row, **(setup.watch(progress, here) if setup.watch else {})})
        if checkpointer and now < last and checkpointer.due():
            checkpointer.save(Snapshot(run.state(), now, history=history, saved=saved))
    return TrainingResult(run.point(), saved, history)


def _stepped(run: Stepper, x: Tensor, y: Tensor, lr: float) -> Tensor:
    """Take a step. Raises ConfigError if the batch, or this process's share, is too small for BatchNorm."""
    try:
        return run.step(x, y, lr)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise ConfigError(
            f"BatchNorm cannot be trained on a batch, or a process's share of one, with {len(y)} example ({error}): "
            "choose another batch_size or number of processes, or synchronised = true"
        ) from error


def _check_finite(progress: EpochProgress, theta: Tensor, since: int) -> None:
    """Check the loss and theta; the loss precedes the update, so only theta shows the epoch's last update."""
    finite = bool(torch.isfinite(theta).all())
    if not finite or not isfinite(progress.train_loss):
        what = "a weight is not finite" if isfinite(progress.train_loss) else f"the loss is {progress.train_loss}"
        raise Diverged(
            f"training diverged: {what} between steps {since} and {progress.step} "
            f"of {progress.steps} (epoch {progress.epoch}, lr {progress.lr:g}); a lower lr or a warm-up may help"
        )
