"""No batch of one example where BatchNorm takes statistics of batches: it has no variance, and PyTorch refuses it."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import sublevel as sl
from cases import named
from sublevel.data.batches import spans
from sublevel.errors import ConfigError, ModelError
from sublevel.risk import MiniBatches
from sublevel.train.engine import train
from sublevel.train.recipe import Duration, Recipe

F64 = torch.float64


@given(st.integers(1, 200), st.integers(4, 60), st.integers(1, 4))
def test_batches_hold_every_example_once_and_no_last_batch_is_too_small(n, size, least):
    found = spans(n, size, least)
    assert [a for a, _ in found] == [0, *(b for _, b in found[:-1])]
    assert found[-1][1] == n
    sizes = [b - a for a, b in found]
    assert sizes[:-2] == [size] * (len(sizes) - 2)
    small = 0 < n % size < least and n > size
    if not small:
        assert sizes == [size] * (n // size) + [n % size] * (n % size > 0)
    if small and size + n % size >= 2 * least:
        assert len(sizes) == -(-n // size)
        assert 0 <= sizes[-2] - sizes[-1] <= 1
    if n >= least:
        assert min(sizes) >= least
        assert max(sizes) < size + least


class Seen(nn.BatchNorm1d):
    """BatchNorm that notes the sizes of its batches."""

    sizes: ClassVar[list[int]] = []

    def forward(self, x):
        self.sizes.append(len(x))
        return super().forward(x)


def risk(n: int, policy: str, batch_size: int = 1000):
    net = nn.Sequential(nn.Linear(4, 8), Seen(8), nn.ReLU(), nn.Linear(8, 2)).double()
    x = torch.randn(n, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    space = sl.Space.of(net)
    field = sl.EmpiricalRisk(space, net, x, (x[:, 0] > 0).long(), policy=policy, batch_size=batch_size)
    Seen.sizes.clear()
    return field, space.point(net)


@pytest.mark.parametrize("policy", ["recomputed", "batch"])
@pytest.mark.parametrize(("n", "batch_size"), [(1001, 1000), (21, 5), (3, 2), (7, 2), (2, 1000)])
def test_a_remainder_of_one_is_no_batch(policy, n, batch_size):
    field, at = risk(n, policy, batch_size)
    seen = field.evaluate(at)
    assert seen.examples == n
    sizes = Seen.sizes[: len(spans(n, batch_size, 2))]
    assert sum(sizes) == n
    assert min(sizes) > 1
    field.grad(at)
    field.hvp(at, torch.ones_like(at.theta))


def test_a_remainder_of_one_is_kept_where_it_makes_no_difference():
    """Under stored statistics the batches stay what they were, to the bit."""
    field, at = risk(11, "stored", 5)
    field.loss(at)
    assert Seen.sizes == [5, 5, 1]


def test_curves_and_chains_see_no_batch_of_one():
    field, at = risk(11, "recomputed", 5)
    batches = MiniBatches(field, batch_size=5)
    assert batches.per_epoch == 3
    for step in range(6):
        batches.loss_and_grad(at, step)
    assert Seen.sizes == [5, 3, 3] * 2
    seen = torch.cat([batches._batch(step) for step in range(3)])
    assert sorted(seen.tolist()) == list(range(11))


def test_what_has_no_variance_at_all_is_refused_with_a_remedy():
    for policy in ("recomputed", "batch"):
        with pytest.raises(ValueError, match=f"under the policy '{policy}' .* batch_size must be at least 2, got 1"):
            risk(10, policy, 1)
        field, at = risk(1, policy)
        with pytest.raises(ModelError, match=r"cannot take the variance of one example .*policy='stored'"):
            field.loss(at)
        assert field.module.training
        assert field.module[1].training
    field, at = risk(10, "stored", 1)
    assert field.loss(at) == pytest.approx(risk(10, "stored")[0].loss(at))
    with pytest.raises(ValueError, match="batch_size must be at least 2"):
        MiniBatches(risk(10, "recomputed")[0], batch_size=1)


def test_training_on_a_batch_of_one_is_refused_in_a_sentence():
    """A study refuses it before anything is written (`sublevel.study.checks`); a training of one's own at that step."""
    case = named("normalised")

    def descend(batch_size: int):
        recipe = Recipe(length=Duration(1, "ep"), batch_size=batch_size, lr=0.01, dtype="float64")
        return train(case.setup(recipe=recipe, seed=0), case.point)

    assert case.examples % 36 == 1
    with pytest.raises(ConfigError, match=r"share of one, with 1 example .*choose another batch_size"):
        descend(36)
    assert len(descend(35).history) == 1
