"""The channels last, where a network takes them: the same numbers, to rounding, and no network is broken by it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sublevel import Problem
from sublevel.train.recipe import Duration, Recipe


class Net(nn.Module):
    """A convolution and a linear layer; between them a flattening that asks for strides, or not."""

    def __init__(self, strides: bool) -> None:
        super().__init__()
        self.strides = strides
        self.conv, self.linear = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.conv(x).relu()
        return self.linear(h.view(len(h), -1) if self.strides else h.flatten(1))


def problem(strides: bool) -> Problem:
    g = torch.Generator().manual_seed(0)
    x = torch.randint(0, 256, (60, 3, 8, 8), generator=g, dtype=torch.uint8)
    data = x, torch.arange(60) % 5
    return Problem(lambda: Net(strides), train=data, test=data, validation=0, version="1", dtype="float64")


def test_a_network_that_asks_for_strides_gets_what_it_can_take() -> None:
    images = problem(True).splits.train.x[:4]
    assert problem(True).prepare(images).is_contiguous()
    assert problem(False).prepare(images).is_contiguous(memory_format=torch.channels_last)


def test_a_perceptron_and_tokens_are_left_alone() -> None:
    p = Problem("lenet-300-100", train_size=50, test_size=50)
    assert p.prepare(p.splits.train.x[:4]).is_contiguous()


@pytest.mark.parametrize("what", ["loss", "grad", "hvp", "training"])
def test_the_numbers_are_the_same(what: str) -> None:
    found = []
    for strides in (True, False):
        p = problem(strides)
        at = p.init(0)
        field = p.field("train")
        v = torch.linspace(-1, 1, p.space.dim, dtype=torch.float64)
        recipe = Recipe(length=Duration(12, "it"), batch_size=16, lr=0.1, crop=1, flip=True, dtype="float64")
        found.append(
            {
                "loss": lambda f=field, a=at: torch.tensor(f.loss(a)),
                "grad": lambda f=field, a=at: f.grad(a),
                "hvp": lambda f=field, a=at, v=v: f.hvp(a, v),
                "training": lambda p=p, a=at, r=recipe: p.trained(a, recipe=r, seed=0).end.theta,
            }[what]()
        )
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize(("width", "last"), [(2, False), (8, False), (16, True)])
def test_narrow_shortcuts_keep_the_layout_that_does_not_crash(width: int, last: bool) -> None:
    """Strided 1 x 1 convolutions of few channels corrupt the memory of a process with the channels last."""
    g = torch.Generator().manual_seed(0)
    x, y = torch.randint(0, 256, (150, 3, 32, 32), generator=g, dtype=torch.uint8), torch.arange(150) % 2
    p = Problem("resnet-8", train=(x, y), test=(x[:9], y[:9]), validation=0, options={"width": width})
    assert p.prepare(x[:4]).is_contiguous(memory_format=torch.channels_last) is last
    done = p.trained(p.init(0), recipe=Recipe(length=Duration(4, "it"), crop=4, flip=True), seed=0)
    assert bool(done.end.theta.isfinite().all())
