"""An empirical risk as a stochastic field, in batches of a planned order."""

from __future__ import annotations

import torch

from sublevel._types import Float, Tensor
from sublevel.data.batches import spans
from sublevel.field import PointLike, Stochastic
from sublevel.heads import deferred
from sublevel.risk.batchnorm import check_batch_size, least_of
from sublevel.risk.empirical import EmpiricalRisk
from sublevel.rng import generator
from sublevel.space import Point


class MiniBatches(Stochastic):
    """An empirical risk in batches of ``batch_size``, in an order drawn from (seed, ``stream``, epoch).

    The last, smaller batch of an epoch is kept. If BatchNorm takes its statistics from batches, a last batch of a
    single example is merged with the batch before it. BatchNorm follows the policy of the risk, except that
    ``recomputed``, which is undefined for one batch, becomes ``batch``. There is no augmentation and no dropout.
    """

    def __init__(self, risk: EmpiricalRisk, *, batch_size: int = 128, seed: int = 0, stream: str = "batches") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.risk = risk
        self.batch_size, self.seed, self.stream = min(batch_size, len(risk.x)), seed, stream
        self.policy = "batch" if risk.policy == "recomputed" else risk.policy
        check_batch_size(self.policy, batch_size)
        self._spans = spans(len(risk.x), self.batch_size, least_of(self.policy))
        self._plan: tuple[int, Tensor] | None = None

    @property
    def dim(self) -> int:
        """D."""
        return self.risk.dim

    @property
    def examples(self) -> int:
        """The number N of examples."""
        return len(self.risk.x)

    def point(self, at: PointLike) -> Point:
        """Convert ``at`` to a point with all buffers; raises ModelError as `EmpiricalRisk.point` does."""
        return self.risk.completed(at, self.policy)

    @property
    def per_epoch(self) -> int:
        """Steps in one pass over the examples."""
        return len(self._spans)

    def loss_and_grad(self, at: PointLike, step: int) -> tuple[Float[Tensor, ""], Float[Tensor, "D"]]:
        """The mean loss of the batch and its gradient, with constant buffers."""
        point = self.point(at)
        theta = point.theta.detach().requires_grad_()
        index = self._batch(step)
        inputs = self.risk.prepare(self.risk.x[index])
        with deferred(self.risk.heads):
            outputs = self.risk.outputs(theta, point.buffers, inputs, self.policy)
        loss = self.risk.loss_of(outputs, self.risk.y[index]).mean()
        return loss.detach(), torch.autograd.grad(loss, theta)[0]

    def _batch(self, step: int) -> Tensor:
        epoch, inside = divmod(step, self.per_epoch)
        if self._plan is None or self._plan[0] != epoch:
            order = torch.randperm(self.examples, generator=generator(self.seed, self.stream, epoch))
            self._plan = (epoch, order.to(self.risk.x.device))
        return self._plan[1][slice(*self._spans[inside])]
