"""One training by several processes: each computes its share of every batch, and all take the same step.

`sublevel.train.engine` uses this if torch.distributed is initialised (by torchrun, Ray Train or the user). Each of R
processes takes one of R contiguous shares of the batch. One all-reduce adds up the gradients, the loss and, if needed,
the running statistics, as one flat vector. All processes hold the same weights, momentum and masks, to the bit.

With ``synchronised``, BatchNorm uses the whole batch (PyTorch's SyncBatchNorm does not support the CPU); otherwise each
process uses its share. With statistics of the whole batch the result equals that of one process up to rounding. Random
numbers of the network, such as dropout, differ between processes.

gloo serves the CPU, nccl the GPUs. If a process ends, the others wait; the launcher must end them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from sublevel._types import Tensor
from sublevel.errors import ConfigError, ModelError


@dataclass(frozen=True)
class Team:
    """The processes that train together: this one's ``rank`` among ``size``; alone, rank 0 of 1."""

    rank: int = 0
    size: int = 1

    def share(self, begin: int, end: int) -> tuple[int, int]:
        """This process's part of the examples ``begin`` to ``end`` of an epoch.

        Raises ConfigError if there are fewer examples than processes.

        >>> Team(1, 3).share(0, 128)
        (43, 86)
        """
        n = end - begin
        if n < self.size:
            raise ConfigError(f"a batch of {n} examples cannot be shared by {self.size} processes: use fewer of them")
        bounds = [begin + r * (n // self.size) + min(r, n % self.size) for r in (self.rank, self.rank + 1)]
        return bounds[0], bounds[1]

    def add(self, parts: list[Tensor]) -> list[Tensor]:
        """The sums of these tensors over all processes, by one all-reduce; with one process, the tensors themselves."""
        if self.size == 1:
            return parts
        flat = torch.cat([part.reshape(-1) for part in parts])
        dist.all_reduce(flat)
        pieces = flat.split([part.numel() for part in parts])
        return [piece.view_as(part) for piece, part in zip(pieces, parts, strict=True)]

    @contextmanager
    def of_whole_batch(self, module: nn.Module) -> Iterator[None]:
        """Inside the block, every BatchNorm of the network uses the whole batch."""
        norms = [each for each in module.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)]
        if self.size == 1 or not norms:
            yield
            return
        for each in norms:
            if each.momentum is None and each.track_running_stats:
                raise ModelError("a BatchNorm with momentum None (a cumulative average) cannot be trained by several")
            each.forward = MethodType(_normalised, each)
        try:
            yield
        finally:
            for each in norms:
                del each.forward


ALONE = Team()


def team() -> Team:
    """The team of this process."""
    if not (dist.is_available() and dist.is_initialized()):
        return ALONE
    return Team(dist.get_rank(), dist.get_world_size())


class _Sum(torch.autograd.Function):
    """The sum over all processes; backward, the sum of their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


_sum: Callable[[Tensor], Tensor] = _Sum.apply  # type: ignore[assignment]


def _normalised(self: Any, x: Tensor) -> Tensor:
    """BatchNorm in training with the mean and the variance of all processes' examples (Ioffe and Szegedy 1502.03167).

    The variance is a second sum about the mean, which avoids cancellation. As in PyTorch, the running variance is
    unbiased.
    """
    if not (self.training or not self.track_running_stats):
        return nn.functional.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
        )
    others = [d for d in range(x.dim()) if d != 1]
    shape = [1, -1] + [1] * (x.dim() - 2)
    here = torch.full((1,), x.numel() / x.shape[1], dtype=x.dtype, device=x.device)
    first = _sum(torch.cat([x.sum(others), here]))
    n = first[-1].detach()
    mean = first[:-1] / n
    centred = x - mean.view(shape)
    variance = _sum((centred * centred).sum(others)) / n
    if self.track_running_stats:
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.detach(), self.momentum)
            self.running_var.lerp_(variance.detach() * (n / (n - 1)), self.momentum)
    out = centred * torch.rsqrt(variance + self.eps).view(shape)
    return out if self.weight is None else out * self.weight.view(shape) + self.bias.view(shape)
