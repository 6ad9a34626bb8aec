"""The setup of a training: everything that it depends on except where it starts and which weights it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from sublevel._types import Tensor
from sublevel.data.batches import EpochPlan, augmented, epoch_plan, gather
from sublevel.data.splits import Part
from sublevel.inputs import Inputs
from sublevel.space import Point, Space
from sublevel.train.recipe import Recipe
from sublevel.train.resume import Checkpointer
from sublevel.train.step import Loss
from sublevel.train.team import ALONE, Team


@dataclass(frozen=True)
class EpochProgress:
    """Progress at the end of an epoch: the step, its learning rate, and the epoch's mean loss."""

    step: int
    steps: int
    epoch: int
    lr: float
    train_loss: float


Watch = Callable[[EpochProgress, Point], Mapping[str, float]]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingSetup:
    """A network, its training examples and loss, the recipe, the seed, and the order of the data.

    ``module`` computes the network of ``space``. ``prepare`` makes its inputs of stored examples; ``loss`` gives the
    loss of each example. Runs with the same ``order`` and ``seed`` see the same batches at the same steps. ``watch`` is
    called after every epoch, and its numbers join the history. With a ``checkpointer`` a training resumes from its last
    snapshot, to the same bits.
    """

    space: Space
    module: nn.Module
    data: Part
    prepare: Callable[[Tensor], Inputs]
    loss: Loss
    recipe: Recipe
    seed: int
    order: str = ""
    watch: Watch | None = None
    checkpointer: Checkpointer | None = None

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return self.recipe.steps_per_epoch(len(self.data))

    @property
    def rates(self) -> list[float]:
        """The recipe's learning rate of every step."""
        return self.recipe.rates(len(self.data))

    def plan(self, epoch: int) -> EpochPlan:
        """The order and augmentation of the examples in an epoch, on the device of the data."""
        r = self.recipe
        plan = epoch_plan(
            len(self.data), seed=self.seed, epoch=epoch, order=self.order, pad=r.crop, flip=r.flip, block=r.block,
            mix=r.mix,
        )  # fmt: skip
        return plan.to(self.data.x.device)

    def batch(self, plan: EpochPlan, i: int, team: Team = ALONE) -> tuple[Tensor, Tensor]:
        """The stored examples and labels of batch i of an epoch, or this process's share of them."""
        begin, end = self._span(i, team)
        return gather(self.data.x, plan, begin, end), self.data.y[plan.index[begin:end]]

    def batches(self, plan: EpochPlan, numbers: range, team: Team = ALONE) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of these numbers, as `batch` gives them; data in files are read ahead."""
        if isinstance(self.data.x, Tensor):
            yield from (self.batch(plan, i, team) for i in numbers)
            return
        index, spans = plan.index.cpu(), [self._span(i, team) for i in numbers]
        for rows, span in zip(self.data.x.ahead(index[b:e] for b, e in spans), spans, strict=True):
            yield augmented(rows, plan, *span), self.data.y[plan.index[slice(*span)]]

    def _span(self, i: int, team: Team) -> tuple[int, int]:
        size = self.recipe.batch_size
        return team.share(i * size, min((i + 1) * size, len(self.data)))
