"""The plan of an epoch: the order of the samples, and the shift and flip of each.

A plan is drawn on the CPU from (seed, stream, epoch) alone. The images stay on their device as uint8, and a batch is
one gather.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sublevel.data.streamed import Rows
from sublevel.errors import DataError
from sublevel.rng import generator


@dataclass(frozen=True)
class EpochPlan:
    """The order of N samples and the augmentation of each, in that order.

    ``index`` int64 ``[N]`` is a permutation; ``dy`` and ``dx`` int64 ``[N]`` in 0..2*pad are the corner of the crop in
    the padded image (pad is the centre); ``flip`` bool ``[N]`` mirrors left and right. ``pad`` and ``flips`` are the
    settings, so a plan without augmentation is recognised without reading a tensor.
    """

    index: Tensor
    dy: Tensor
    dx: Tensor
    flip: Tensor
    pad: int
    flips: bool

    def __len__(self) -> int:
        return len(self.index)

    def to(self, device: torch.device | str) -> EpochPlan:
        """The same plan on ``device``."""
        moved = {name: getattr(self, name).to(device) for name in ("index", "dy", "dx", "flip")}
        return replace(self, **moved)


def epoch_plan(
    n: int, *, seed: int, epoch: int, order: str = "", pad: int = 0, flip: bool = False, block: int = 0, mix: int = 1
) -> EpochPlan:
    """The plan of one epoch over ``n`` samples.

    The permutation comes from the stream ``order`` of (seed, epoch), the shifts and flips from ``augment``; a
    name in ``order`` selects other streams, ``order:NAME`` and ``augment:NAME``, for the same seed. A flip
    has probability 1/2, a shift is uniform on 0..2*pad.

    With a ``block`` the permutation has long runs, for data read from files. Blocks of that many neighbouring examples
    come in a random order, and the examples of ``mix`` blocks at a time are shuffled. The batches are then not
    independent draws. If neighbours are similar, mix many blocks, or shuffle before writing.

    >>> plan = epoch_plan(4, seed=0, epoch=0, pad=2, flip=True)
    >>> sorted(plan.index.tolist()), bool((plan.dy <= 4).all())
    ([0, 1, 2, 3], True)
    """
    suffix = f":{order}" if order else ""
    draw = generator(seed, f"order{suffix}", epoch)
    if block:
        groups = torch.randperm(-(-n // block), generator=draw).split(mix)
        rows = [[torch.arange(b * block, min((b + 1) * block, n)) for b in group.tolist()] for group in groups]
        runs = [torch.cat(parts) for parts in rows]
        index = torch.cat([run[torch.randperm(len(run), generator=draw)] for run in runs])
    else:
        index = torch.randperm(n, generator=draw)
    rng = generator(seed, f"augment{suffix}", epoch)
    dy = torch.randint(0, 2 * pad + 1, (n,), generator=rng)
    dx = torch.randint(0, 2 * pad + 1, (n,), generator=rng)
    flips = torch.randint(0, 2, (n,), generator=rng).bool()
    return EpochPlan(index, dy, dx, flips & flip, pad, flip)


def spans(n: int, size: int, least: int = 1) -> list[tuple[int, int]]:
    """Begin and end of each batch of ``size`` among ``n`` examples; each has at least ``least`` examples if possible.

    If the last batch is smaller than ``least``, the last two batches share their examples evenly, which keeps the
    number of batches; if they have too few examples for two, they become one.

    >>> spans(7, 3), spans(7, 3, least=2), spans(5, 2, least=2)
    ([(0, 3), (3, 6), (6, 7)], [(0, 3), (3, 5), (5, 7)], [(0, 2), (2, 5)])
    """
    ends = [*range(size, n, size), n]
    if len(ends) > 1 and n - ends[-2] < least:
        begin = ends[-3] if len(ends) > 2 else 0
        half = n - (n - begin) // 2
        ends[-2:] = [half, n] if n - half >= least else [n]
    return list(zip([0, *ends[:-1]], ends, strict=True))


def gather(x: Rows, plan: EpochPlan, start: int, stop: int) -> Tensor:
    """Samples ``start`` to ``stop`` of the plan, shifted and flipped: ``[B, ...]``, with the dtype of ``x``.

    A shift moves an image inside a border of ``pad`` zeros, which are black before normalisation: pixel (c, i, j) of
    sample b is ``bordered[index_b, c, dy_b + i, dx_b + j]``, with ``W - 1 - j`` for j if it is flipped. Only the batch
    is padded, so ``x`` may be files or shared memory. Without shifts and flips ``x`` may have any shape ``[N, ...]``.
    With them it must be images ``[N, C, H, W]``; otherwise a DataError is raised.
    """
    return augmented(x.index_select(0, plan.index[start:stop]), plan, start, stop)


def augmented(rows: Tensor, plan: EpochPlan, start: int, stop: int) -> Tensor:
    """The samples ``start`` to ``stop`` of the plan, as stored, shifted and flipped (see `gather`)."""
    if plan.pad == 0 and not plan.flips:
        return rows
    if rows.dim() != 4:
        raise DataError(
            f"a plan that shifts or flips is for images [N, C, H, W]; samples have shape {list(rows.shape)}"
        )
    height, width = rows.shape[2:]
    i, j = (torch.arange(size, device=rows.device) for size in (height, width))
    down = plan.dy[start:stop, None] + i
    right = plan.dx[start:stop, None] + torch.where(plan.flip[start:stop, None], width - 1 - j, j)
    pixel = down[:, :, None] * (width + 2 * plan.pad) + right[:, None, :]
    bordered = torch.nn.functional.pad(rows, (plan.pad,) * 4).flatten(2)
    return bordered.gather(2, pixel.flatten(1)[:, None].expand(-1, rows.shape[1], -1)).view_as(rows)
