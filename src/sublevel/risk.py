"""The loss of a network over a fixed set of examples, as a field.

The buffer policy is part of the function. With BatchNorm, L(theta) is not defined before it is said which
statistics belong to theta:

- ``stored``: the point's own buffers;
- ``batch``: the statistics of each batch, so the partition into batches is part of the function;
- ``recomputed``: the average over the un-augmented calibration examples, weighted by batch size, held constant when
  differentiating;
- ``none``: the network has no BatchNorm. (One without running statistics always has the policy ``batch``.)

(``averaged`` is ``stored`` along a path whose ends are lerped with their buffers: see `sublevel.space.lerp`.)
Dropout is off in every policy. Losses and errors are accumulated in float64, batches are weighted by their size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import nan

import torch
from torch import nn
from torch.nn import functional as F

from sublevel._types import Float, Tensor
from sublevel.errors import ModelError, unknown
from sublevel.field import At, Evaluation, Field, Stochastic, hessian_products
from sublevel.rng import generator
from sublevel.space import STATISTICS, Point, Space, as_point

POLICIES = ("stored", "batch", "recomputed")

Loss = Callable[[Tensor, Tensor], Float[Tensor, "batch"]]


def cross_entropy(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """Cross-entropy of each example, in nats."""
    return F.cross_entropy(outputs, targets, reduction="none")


def squared(outputs: Tensor, targets: Tensor) -> Float[Tensor, "batch"]:
    """Half the squared error of each example, averaged over its outputs.

    Raises ModelError where an example has not as many outputs as targets: they would broadcast.
    """
    z, t = outputs.reshape(len(outputs), -1), targets.reshape(len(targets), -1)
    if z.shape != t.shape:
        got, want = list(outputs.shape), list(targets.shape)
        raise ModelError(f"squared loss: outputs of shape {got} do not fit targets of shape {want}")
    return 0.5 * (z - t).square().mean(dim=1)


LOSSES: dict[str, Loss] = {"cross-entropy": cross_entropy, "squared": squared}


def loss_function(loss: str | Loss) -> Loss:
    """A per-example loss by its name, or the function itself."""
    if isinstance(loss, str) and loss not in LOSSES:
        raise unknown("loss", loss, LOSSES)
    return LOSSES[loss] if isinstance(loss, str) else loss


class EmpiricalRisk(Field):
    """The mean loss of ``module`` over the examples ``(x, y)``, with its buffer policy.

    ``prepare(x)`` makes the network's input from a batch of stored examples (normalisation). ``calibration`` are the
    examples that ``recomputed`` averages statistics over; by default ``x``. The module is used as a function:
    its own parameters and buffers are neither read nor written.
    """

    def __init__(
        self,
        space: Space,
        module: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        loss: str | Loss = "cross-entropy",
        prepare: Callable[[Tensor], Tensor] | None = None,
        policy: str = "stored",
        batch_size: int = 1000,
        calibration: Tensor | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise unknown("buffer policy", policy, POLICIES)
        if not len(x):
            raise ValueError("a field over no examples has no loss")
        self.space, self.module = space, module
        self.x, self.y = x, y
        self.calibration = x if calibration is None else calibration
        self.loss_of = loss_function(loss)
        self.prepare = prepare or (lambda batch: batch)
        self.policy = _policy(policy, space, module)
        self.batch_size = batch_size
        self._settled: tuple[Point, int, Point] | None = None

    @property
    def dim(self) -> int:
        """D."""
        return self.space.dim

    def evaluate(self, at: At) -> Evaluation:
        """Mean loss and share of wrong answers."""
        point = self.settle(at)
        loss = wrong = torch.zeros((), dtype=torch.float64, device=point.theta.device)
        with torch.no_grad():
            for x, y in self._batches():
                outputs = self.outputs(point.theta, point.buffers, x, self.policy)
                loss = loss + self.loss_of(outputs, y).sum(dtype=torch.float64)
                if y.dtype == torch.int64:
                    wrong = wrong + (outputs.argmax(dim=-1) != y).sum()
        n = len(self.x)
        return Evaluation(float(loss) / n, float(wrong) / n if self.y.dtype == torch.int64 else nan, n)

    def losses(self, at: At) -> Float[Tensor, "N"]:
        """The loss of every example."""
        point = self.settle(at)
        with torch.no_grad():
            parts = [self.loss_of(self.outputs(point.theta, point.buffers, x, self.policy), y) for x, y in self._batches()]
        return torch.cat(parts)

    def grad(self, at: At) -> Float[Tensor, "D"]:
        """The gradient of the mean loss, buffers held constant."""
        return self._accumulate(at, lambda loss, theta: torch.autograd.grad(loss, theta)[0])

    def hvp(self, at: At, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """Hessian products; each batch's graph is built once for all rows of v."""
        return self._accumulate(at, lambda loss, theta: hessian_products(loss, theta, v))

    def settle(self, at: At) -> Point:
        """The point with the buffers that the policy gives it."""
        point = as_point(at)
        if self.policy != "recomputed":
            return point
        version = point.theta._version
        if self._settled and self._settled[0] is point and self._settled[1] == version:
            return self._settled[2]
        settled = Point(point.theta, self._statistics(point))
        self._settled = (point, version, settled)
        return settled

    def _accumulate(self, at: At, differentiate: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        point = self.settle(at)
        theta = point.theta.detach().requires_grad_()
        total: Tensor | None = None
        for x, y in self._batches():
            loss = self.loss_of(self.outputs(theta, point.buffers, x, self.policy), y).sum() / len(self.x)
            part = differentiate(loss, theta)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self.x), self.batch_size):
            part = slice(start, start + self.batch_size)
            yield self.prepare(self.x[part]), self.y[part]

    def outputs(self, theta: Tensor, buffers: Mapping[str, Tensor], x: Tensor, policy: str) -> Tensor:
        """The network's outputs for prepared inputs, with BatchNorm's statistics those of ``buffers`` or the batch's."""
        batch = policy == "batch"
        if batch:  # the module writes running statistics: let it write copies
            buffers = {name: b.clone() for name, b in buffers.items()}
        with fixed_mode(self.module, statistics=batch):
            return self.space.call(self.module, theta, buffers, x)

    def _statistics(self, point: Point) -> dict[str, Tensor]:
        return recomputed_statistics(
            self.space,
            self.module,
            point,
            (
                self.prepare(self.calibration[i : i + self.batch_size])
                for i in range(0, len(self.calibration), self.batch_size)
            ),
        )


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


def recomputed_statistics(
    space: Space, module: nn.Module, point: Point, batches: Iterator[Tensor]
) -> dict[str, Tensor]:
    """BatchNorm statistics of the point: each batch's mean and unbiased variance, averaged by batch size."""
    names = [f"{m}.{kind}" for m in space.statistics for kind in ("running_mean", "running_var")]
    scratch = {name: torch.zeros_like(b) if name in names else b.clone() for name, b in point.buffers.items()}
    sums = {name: torch.zeros_like(scratch[name], dtype=torch.float64) for name in names}
    seen = 0
    with torch.no_grad(), fixed_mode(module, statistics=True, momentum=1.0):
        for x in batches:
            space.call(module, point.theta, scratch, x)
            seen += len(x)
            for name in names:
                sums[name] += scratch[name].double() * len(x)
    averaged = {name: (total / seen).to(scratch[name].dtype) for name, total in sums.items()}
    return {**point.buffers, **averaged}


def _policy(asked: str, space: Space, module: nn.Module) -> str:
    if space.statistics:
        return asked
    return "batch" if any(isinstance(m, STATISTICS) for m in module.modules()) else "none"


@contextmanager
def fixed_mode(module: nn.Module, *, statistics: bool, momentum: float | None = None) -> Iterator[None]:
    """Evaluation mode, but for BatchNorm where ``statistics``; modes and momenta are put back."""
    modes = [(m, m.training) for m in module.modules()]
    normalised = [m for m in module.modules() if isinstance(m, STATISTICS)]
    momenta = [m.momentum for m in normalised]
    try:
        for m, _ in modes:
            m.training = False
        for m in normalised:
            m.training = statistics
            m.momentum = m.momentum if momentum is None else momentum
        yield
    finally:
        for m, training in modes:
            m.training = training
        for m, value in zip(normalised, momenta, strict=True):
            m.momentum = value
