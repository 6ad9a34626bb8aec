"""Batch plans: reproducible, and the gather equals a loop over images."""

import pytest
import torch

from sublevel.data import epoch_plan, gather
from sublevel.errors import DataError


def slow_gather(x, plan, start, stop, pad):
    """The definition, one image at a time: pad, mirror the window, crop."""
    height, width = x.shape[2:]
    out = []
    for b in range(start, min(stop, len(plan.index))):
        canvas = torch.zeros(x.shape[1], height + 2 * pad, width + 2 * pad, dtype=x.dtype)
        canvas[:, pad : pad + height, pad : pad + width] = x[plan.index[b]]
        dy, dx = int(plan.dy[b]), int(plan.dx[b])
        crop = canvas[:, dy : dy + height, dx : dx + width]
        out.append(torch.stack([crop[:, :, width - 1 - j] for j in range(width)], 2) if plan.flip[b] else crop)
    return torch.stack(out)


@pytest.mark.parametrize("pad", [0, 1, 4])
@pytest.mark.parametrize("flip", [False, True])
def test_gather_equals_the_loop(pad, flip):
    x = torch.randint(0, 256, (23, 3, 6, 5), dtype=torch.uint8)
    plan = epoch_plan(23, seed=3, epoch=2, pad=pad, flip=flip)
    for start, stop in ((0, 8), (8, 16), (16, 24)):  # the last batch has 7
        fast = gather(x, plan, start, stop)
        assert fast.dtype == torch.uint8
        assert fast.is_contiguous()
        assert torch.equal(fast, slow_gather(x, plan, start, stop, pad))


def test_a_known_shift_and_flip():
    x = torch.tensor([[[[1, 2], [3, 4]]]], dtype=torch.uint8)
    seen = set()
    for epoch in range(200):
        plan = epoch_plan(1, seed=0, epoch=epoch, pad=1, flip=True)
        batch = gather(x, plan, 0, 1)
        seen.add((int(plan.dy), int(plan.dx), bool(plan.flip), tuple(batch.flatten().tolist())))
    assert (1, 1, False, (1, 2, 3, 4)) in seen
    assert (1, 1, True, (2, 1, 4, 3)) in seen
    assert (0, 1, False, (0, 0, 1, 2)) in seen
    assert (1, 2, True, (0, 2, 0, 4)) in seen
    assert len(seen) == 18


def test_samples_of_any_shape_without_augmentation():
    x = torch.rand(10, 7)
    plan = epoch_plan(10, seed=0, epoch=0)
    assert torch.equal(gather(x, plan, 2, 5), x[plan.index[2:5]])


def test_a_plan_depends_on_its_address_only():
    torch.manual_seed(1)
    first = epoch_plan(50, seed=1, epoch=4, pad=4, flip=True)
    torch.manual_seed(2)
    again = epoch_plan(50, seed=1, epoch=4, pad=4, flip=True)
    for name in ("index", "dy", "dx", "flip"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    assert sorted(first.index.tolist()) == list(range(50))
    others = [(2, 4, ""), (1, 5, ""), (1, 4, "level-3")]
    for seed, epoch, order in others:
        plan = epoch_plan(50, seed=seed, epoch=epoch, order=order, pad=4, flip=True)
        assert not torch.equal(plan.index, first.index)
        assert not torch.equal(plan.dy, first.dy)


def test_augmentation_does_not_change_the_order():
    plain, augmented = (epoch_plan(50, seed=0, epoch=0, pad=p, flip=p > 0) for p in (0, 4))
    assert torch.equal(plain.index, augmented.index)
    assert int(plain.dy.sum()) == int(plain.flip.sum()) == 0


def test_shifts_are_uniform_and_flips_fair():
    plan = epoch_plan(9000, seed=0, epoch=0, pad=4, flip=True)
    for shift in (plan.dy, plan.dx):
        assert torch.bincount(shift, minlength=9).sub(1000).abs().max() < 150  # five standard deviations
    assert abs(int(plan.flip.sum()) - 4500) < 240


def test_only_images_are_shifted_and_flipped():
    for augmented in ({"pad": 2}, {"flip": True}):
        plan = epoch_plan(4, seed=0, epoch=0, **augmented)
        with pytest.raises(DataError, match=r"for images \[N, C, H, W\]; samples have shape \[4, 7\]"):
            gather(torch.zeros(4, 7), plan, 0, 4)


def test_the_border_is_black():
    x = torch.full((200, 1, 3, 3), 9, dtype=torch.uint8)
    plan = epoch_plan(200, seed=0, epoch=0, pad=1)
    lit = (3 - (plan.dy - 1).abs()) * (3 - (plan.dx - 1).abs())
    assert torch.equal(gather(x, plan, 0, 200).flatten(1).sum(1), 9 * lit)
