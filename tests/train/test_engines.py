"""What the engines refuse and promise beyond the reference: sparse layers, lower precision by name, keys."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cases import named
from sublevel import Problem
from sublevel.errors import ConfigError, ModelError
from sublevel.numerics import tf32
from sublevel.rng import generator
from sublevel.space import Space
from sublevel.train import sparse
from sublevel.train.engine import train
from sublevel.train.engines import weights
from sublevel.train.recipe import ENGINES, Duration, Recipe
from sublevel.train.team import Team

RECIPE = Recipe(length=Duration(6, "it"), batch_size=32, lr=0.05)
TINY = named("perceptron")


def lenet(**changes):
    """Six steps of a perceptron at 5%, from one start."""
    problem = Problem("lenet-300-100", train_size=500)
    space = problem.space
    mask = (torch.rand(space.dim, generator=generator(0, "mask")) < 0.05) | ~space.prunable
    return problem.trained(problem.init(0), recipe=replace(RECIPE, **changes), seed=0, mask=mask), mask


def test_sparse_layers_of_a_real_network_in_float32() -> None:
    (dense, _), (few, mask) = lenet(), lenet(engine="sparse")
    (again, _) = lenet(engine="sparse")
    assert torch.equal(few.end.theta, again.end.theta)
    assert not torch.equal(few.end.theta, dense.end.theta), "other sums: an engine of its own"
    assert float((few.end.theta - dense.end.theta).norm() / dense.end.theta.norm()) < 1e-5
    assert bool((few.end.theta[~mask] == 0).all())


def test_only_large_layers_of_few_weights_are_sparse() -> None:
    problem = Problem("lenet-300-100", train_size=500)
    space = problem.space
    kept = torch.ones(space.dim)
    list(space.views(kept).values())[2][:, 10:] = 0  # a thirtieth of the second layer is left
    recipe = replace(RECIPE, engine="sparse")
    run = weights(problem.setup(recipe=recipe, seed=0), problem.init(0), kept > 0)
    assert isinstance(run, sparse.Sparse)
    sizes = [part.numel() for part in run._loss_and_grad.parts]
    assert sizes == [784 * 300, 300, 100 * 10, 100, 1000, 10]


class Regularised(nn.Module):
    """Its weights are read by a linear layer, and once more."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        return self.out(torch.relu(self.layer(x))) + F.dropout(self.layer.weight, 0.5).mean()


def test_a_weight_that_something_else_reads_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(sparse, "BELOW", 1.0)
    monkeypatch.setattr(sparse, "LARGE", 1)
    net = Regularised().double()
    space = Space.of(net)
    with pytest.raises(ModelError, match=r"layer.weight is also read by dropout, which train.engine 'sparse'"):
        train(TINY.setup(space=space, module=net, recipe=replace(RECIPE, engine="sparse"), seed=0), space.point(net))


def test_inputs_of_more_dimensions() -> None:
    x, layer = torch.randn(2, 5, 6, dtype=torch.float64, requires_grad=True), nn.Linear(6, 4).double()
    with torch.no_grad():
        layer.weight[torch.rand(4, 6) < 0.6] = 0.0
    kept = layer.weight != 0
    pattern, values = sparse.Pattern.of(kept), layer.weight.detach()[kept].requires_grad_()
    with sparse.Multiply({id(layer.weight): ("w", values, pattern)}):
        y = layer(x)
    torch.testing.assert_close(y, F.linear(x, layer.weight, layer.bias))
    assert torch.autograd.gradcheck(lambda a, v: sparse.Product.apply(a, v, pattern), (x[0], values))


def test_a_lower_precision_is_named_and_moves_full_weights() -> None:
    (single, _), (half, _) = lenet(), lenet(bf16=True)
    assert half.end.theta.dtype == torch.float32
    distance = float((half.end.theta - single.end.theta).norm() / single.end.theta.norm())
    assert 1e-5 < distance < 1e-2
    with pytest.raises(ValueError, match="bf16 must be off with engine = 'sparse'"):
        replace(RECIPE, bf16=True, engine="sparse")


@pytest.mark.parametrize("allowed", [False, True])
def test_tf32_holds_for_the_training_alone(allowed: bool) -> None:
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [b.allow_tf32 for b in backends]
    with tf32(allowed):
        assert [b.allow_tf32 for b in backends] == [allowed, allowed]
    assert [b.allow_tf32 for b in backends] == before


@pytest.mark.parametrize("changes", [{"engine": e} for e in ENGINES if e != "auto"] + [{"tf32": True}, {"bf16": True}])
def test_what_changes_arithmetic_is_in_the_key(changes) -> None:
    assert "engine" not in RECIPE.document()
    assert replace(RECIPE, **changes).document() == RECIPE.document() | changes


def test_an_unknown_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="engine must be one of auto, eager, graph, sparse, got 'warp'"):
        replace(RECIPE, engine="warp")


def test_a_graph_is_for_one_process(monkeypatch) -> None:
    monkeypatch.setattr("sublevel.train.graph.team", lambda: Team(0, 2))
    net = TINY.build().double()
    with pytest.raises(ConfigError, match="'graph' is for one process"):
        weights(TINY.setup(module=net, recipe=replace(RECIPE, engine="graph"), seed=0), TINY.point, None)
