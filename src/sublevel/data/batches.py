"""An epoch as data: which sample comes when, and how each is shifted and flipped.

A plan is drawn on the CPU from (seed, stream, epoch) and nothing else. The images stay on their device as
uint8 with a border of zeros, and a batch is one gather.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sublevel.data.streamed import Rows, Streamed
from sublevel.errors import DataError
from sublevel.rng import generator


@dataclass(frozen=True)
class EpochPlan:
    """The order of N samples and the augmentation of each, all in the order of visit.

    ``index`` int64 ``[N]`` is a permutation; ``dy`` and ``dx`` int64 ``[N]`` in 0..2*pad are the corner of
    the crop in the padded image (pad is the centre); ``flip`` bool ``[N]`` mirrors left and right. ``pad``
    and ``flips`` say what may occur, so that a plan without augmentation is known without reading a tensor.
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

    With a ``block`` the permutation is one of long runs, for data that are read from files: the examples stand in
    blocks of that many, which come in a random order, and the examples of ``mix`` blocks at a time are shuffled. The
    batches are then no independent draws: where neighbours are alike, mix many blocks, or shuffle before writing.

    >>> plan = epoch_plan(4, seed=0, epoch=0, pad=2, flip=True)
    >>> sorted(plan.index.tolist()), bool((plan.dy <= 4).all())
    ([0, 1, 2, 3], True)
    """
    suffix = f":{order}" if order else ""
    draw = generator(seed, f"order{suffix}", epoch)
    index = torch.cat(list(_runs(n, block, mix, draw))) if block else torch.randperm(n, generator=draw)
    rng = generator(seed, f"augment{suffix}", epoch)
    dy = torch.randint(0, 2 * pad + 1, (n,), generator=rng)
    dx = torch.randint(0, 2 * pad + 1, (n,), generator=rng)
    flips = torch.randint(0, 2, (n,), generator=rng).bool()
    return EpochPlan(index, dy, dx, flips & flip, pad, flip)


def _runs(n: int, block: int, mix: int, draw: torch.Generator) -> Iterator[Tensor]:
    """The examples of ``mix`` blocks at a time, shuffled."""
    order = torch.randperm(-(-n // block), generator=draw)
    for some in order.split(mix):
        rows = torch.cat([torch.arange(b * block, min((b + 1) * block, n)) for b in some.tolist()])
        yield rows[torch.randperm(len(rows), generator=draw)]


def padded(x: Rows, pad: int) -> Rows:
    """Images ``[N, C, H, W]`` with a border of ``pad`` zeros: ``[N, C, H + 2 pad, W + 2 pad]``.

    Zero is black before normalisation. Done once, not per batch; ``pad = 0`` returns ``x`` itself, and so do images
    that are streamed, of which `gather` pads a batch at a time.
    """
    if pad == 0:
        return x
    if x.dim() != 4 or pad < 0:
        raise DataError(f"padding by {pad} of samples {list(x.shape)}; allowed: pad >= 0, images [N, C, H, W]")
    return x if isinstance(x, Streamed) else torch.nn.functional.pad(x, (pad,) * 4)


def gather(x_padded: Rows, plan: EpochPlan, start: int, stop: int, *, height: int = 0, width: int = 0) -> Tensor:
    """Samples ``start`` to ``stop`` of the plan, shifted and flipped: ``[B, C, height, width]``, dtype of the
    input.

    ``x_padded`` is what `padded` made with the pad of the plan. Without shifts and flips it may have any
    shape ``[N, ...]``, and ``height`` and ``width`` are not used. One gather: pixel (c, i, j) of sample b is
    ``x[index_b, c, dy_b + i, dx_b + j]``, with ``width - 1 - j`` for j where it is flipped. Raises
    `DataError` when the padding is not the one of the plan.
    """
    index = plan.index[start:stop]
    if plan.pad == 0 and not plan.flips:
        return x_padded.index_select(0, index)
    if isinstance(x_padded, Streamed):
        images = torch.nn.functional.pad(x_padded[index], (plan.pad,) * 4)
        index = torch.arange(len(index), device=images.device)
    else:
        images = x_padded
    if images.dim() != 4 or images.shape[2:] != (height + 2 * plan.pad, width + 2 * plan.pad):
        needed = f"[N, C, {height + 2 * plan.pad}, {width + 2 * plan.pad}]"
        raise DataError(
            f"samples have shape {list(images.shape)}; a plan with pad {plan.pad} on {height} x {width} "
            f"images needs {needed}"
        )
    crops = images.unfold(2, height, 1).unfold(3, width, 1)  # [N, C, dy, dx, height, width], a view
    batch = crops[index, :, plan.dy[start:stop], plan.dx[start:stop]]
    return torch.where(plan.flip[start:stop, None, None, None], batch.flip(3), batch) if plan.flips else batch
