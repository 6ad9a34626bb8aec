"""The exact Gauss-Newton diagonal against products with unit vectors; and which weights read a constant."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from sublevel.geometry import curvature
from sublevel.risk import EmpiricalRisk
from sublevel.risk.gauss_newton_diagonal import constant_inputs, ggn_diagonal
from sublevel.space import Point, Space


class Residual(nn.Module):
    """In-place activations, a skip, groups, stride: what a hook could get wrong."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.two = nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=2)
        self.last = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu_(self.norm(self.one(x)))
        y = self.two(x)
        y += x
        return self.last(torch.relu_(y).mean(dim=(2, 3)))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(5, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.tanh(self.mix(x)))


CASES: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], str]] = {
    "perceptron": (lambda: nn.Sequential(nn.Linear(5, 7), nn.ReLU(True), nn.Linear(7, 3)), (5,), "cross-entropy"),
    "regression": (lambda: nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 2)), (5,), "mse"),
    "convolutions": (Residual, (2, 6, 6), "cross-entropy"),
    "tokens": (Tokens, (4, 5), "cross-entropy"),
}  # fmt: skip


def field_of(
    build: Callable[[], nn.Module], shape: tuple[int, ...], loss: str = "cross-entropy", policy: str = "stored"
) -> tuple[EmpiricalRisk, Point]:
    torch.manual_seed(0)
    net = build().double()
    x = torch.randn(130, *shape, dtype=torch.float64)  # more than are taken at a time
    with torch.no_grad():
        z = net(x)
    y = torch.randn_like(z) if loss == "mse" else torch.randint(z.shape[-1], (130, *z.shape[1:-1]))
    space = Space.of(net)
    return EmpiricalRisk(space, net, x, y, loss=loss, policy=policy, batch_size=50), space.point(net)


@pytest.mark.parametrize("policy", ["stored", "recomputed"])
@pytest.mark.parametrize("case", CASES)
def test_it_is_that_of_the_matrix(case: str, policy: str) -> None:
    build, shape, loss = CASES[case]
    field, at = field_of(build, shape, loss, policy)
    found, prunable = ggn_diagonal(field, at), field.space.prunable
    assert found is not None
    true = curvature.diagonal_entries(field, at, torch.arange(field.dim), operator="ggn")
    torch.testing.assert_close(found[prunable], true[prunable], rtol=1e-9, atol=1e-12)
    assert found[~prunable].isnan().all()


def tied() -> nn.Module:
    net = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Tanh(), nn.Linear(5, 5, bias=False))
    net[2].weight = net[0].weight
    return net


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(torch.tanh(self.layer(x)))


@pytest.mark.parametrize(
    ("build", "shape", "policy"),
    [(tied, (5,), "stored"), (Twice, (5,), "stored"), (lambda: nn.Linear(3, 200), (3,), "stored"),
     (Residual, (2, 6, 6), "batch"), (lambda: nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten()), (2, 4), "stored")],
    ids=["tied", "twice", "many outputs", "batch statistics", "another layer"],
)  # fmt: skip
def test_where_it_cannot_be_exact_there_is_none(
    build: Callable[[], nn.Module], shape: tuple[int, ...], policy: str
) -> None:
    assert ggn_diagonal(*field_of(build, shape, policy=policy)) is None


def test_hooks_are_gone_and_nothing_is_changed() -> None:
    field, at = field_of(Residual, (2, 6, 6))
    before = field.evaluate(at)
    ggn_diagonal(field, at)
    constant_inputs(field, at)
    assert field.evaluate(at) == before
    assert not any(m._forward_hooks for m in field.module.modules())


def test_weights_of_dark_pixels_and_of_units_that_never_fire() -> None:
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).double()
    with torch.no_grad():
        net[0].bias[1] = -100.0  # the second hidden unit never fires
    x = torch.randn(60, 4, dtype=torch.float64)
    x[:, 2] = -0.4  # a dark pixel, after normalisation
    x[:, 3] = torch.where(torch.arange(60) < 59, 0.0, 1.0)  # one that a single image lights
    space = Space.of(net)
    field = EmpiricalRisk(space, net, x, torch.randint(2, (60,)), batch_size=25)
    at = space.point(net)
    found = space.views(constant_inputs(field, at).double())
    assert found["0.weight"].tolist() == [[0, 0, 1, 0]] * 3
    assert found["2.weight"].tolist() == [[0, 1, 0]] * 2
    assert not found["0.bias"].any()
    entries = ggn_diagonal(field, at)
    assert entries is not None
    assert bool((space.views(entries)["0.weight"][1] == 0).all()), "no output depends on what feeds a silent unit"
    assert bool((space.views(entries)["0.weight"][0, :3] > 0).all())


def test_a_channel_that_is_the_same_everywhere_is_constant() -> None:
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(), nn.Linear(16, 2)).double()
    x = torch.randn(20, 4, 4, 4, dtype=torch.float64)
    x[:, 3] = 2.0  # the second input of the second group
    space = Space.of(net)
    field = EmpiricalRisk(space, net, x, torch.randint(2, (20,)))
    found = space.views(constant_inputs(field, space.point(net)).double())
    assert found["0.weight"].flatten(2).mean(dim=2).tolist() == [[0, 0]] * 2 + [[0, 1]] * 2
