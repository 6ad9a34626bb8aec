"""An empirical risk as a stochastic field: batches in a planned order."""

from __future__ import annotations

import torch

from sublevel._types import Float, Tensor
from sublevel.field import At, Stochastic
from sublevel.risk.empirical import EmpiricalRisk
from sublevel.rng import generator
from sublevel.space import as_point


class MiniBatches(Stochastic):
    """An empirical risk seen in batches of ``batch_size``, in an order planned by (seed, ``stream``, epoch).

    The last, smaller batch of an epoch is kept. BatchNorm follows the risk's policy, but for ``recomputed``, which has
    no meaning for one batch and becomes ``batch``. No augmentation; dropout is off.
    """

    def __init__(self, risk: EmpiricalRisk, *, batch_size: int = 128, seed: int = 0, stream: str = "batches") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        self.risk = risk
        self.batch_size, self.seed, self.stream = min(batch_size, len(risk.x)), seed, stream
        self.policy = "batch" if risk.policy == "recomputed" else risk.policy
        self._plan: tuple[int, Tensor] | None = None

    @property
    def dim(self) -> int:
        """D."""
        return self.risk.dim

    @property
    def examples(self) -> int:
        """N."""
        return len(self.risk.x)

    @property
    def per_epoch(self) -> int:
        """Steps in one pass over the examples."""
        return -(-self.examples // self.batch_size)

    def loss_and_grad(self, at: At, step: int) -> tuple[Float[Tensor, ""], Float[Tensor, "D"]]:
        """The mean loss of the batch, and its gradient with the buffers held constant."""
        point = as_point(at)
        theta = point.theta.detach().requires_grad_()
        index = self._batch(step)
        outputs = self.risk.outputs(theta, point.buffers, self.risk.prepare(self.risk.x[index]), self.policy)
        loss = self.risk.loss_of(outputs, self.risk.y[index]).mean()
        return loss.detach(), torch.autograd.grad(loss, theta)[0]

    def _batch(self, step: int) -> Tensor:
        epoch, inside = divmod(step, self.per_epoch)
        if self._plan is None or self._plan[0] != epoch:
            order = torch.randperm(self.examples, generator=generator(self.seed, self.stream, epoch))
            self._plan = (epoch, order.to(self.risk.x.device))
        return self._plan[1][inside * self.batch_size : (inside + 1) * self.batch_size]
