"""Large output layers: cross-entropy in chunks equals the plain one, with its gradient and its Hessian products."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sublevel as sl
from sublevel import heads
from sublevel.heads import DeferredScores, deferred, large_heads
from sublevel.train.recipe import Duration, Recipe

F64 = torch.float64
V, WIDTH, T = 17, 5, 3


class Words(nn.Module):
    """A language model with a tied head, or one with a bias, whose scores may be changed on their way out."""

    def __init__(self, bias: bool, soft: bool) -> None:
        super().__init__()
        self.embedding, self.mixing = nn.Embedding(V, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head, self.soft = nn.Linear(WIDTH, V, bias=bias), soft
        if not bias:
            self.head.weight = self.embedding.weight

    def forward(self, x):
        z = self.head(torch.tanh(self.mixing(self.embedding(x))))
        return 3 * torch.tanh(z / 3) if self.soft else z


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(heads, "LARGE", V)
    monkeypatch.setattr(heads, "CHUNK", 4 * V)


@pytest.mark.parametrize(("bias", "soft"), [(False, False), (True, False), (True, True)])
def test_a_field_of_a_large_head_is_that_of_the_plain_loss(bias: bool, soft: bool, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    x, y = torch.randint(0, V, (10, T)), torch.randint(0, V, (10, T))
    y[2:4, 1:] = -100

    def measured():
        torch.manual_seed(1)
        net = Words(bias, soft).double()
        field = sl.EmpiricalRisk(sl.Space.of(net), net, x, y, batch_size=4)
        at = field.space.point(net)
        v = torch.randn(2, field.dim, dtype=F64, generator=torch.Generator().manual_seed(2))
        evaluation, gradient = field.evaluation_and_grad(at)
        steps = sl.MiniBatches(field, batch_size=3).loss_and_grad(at, 0)
        return [
            *(torch.tensor([e.loss, e.error]) for e in (evaluation, field.evaluate(at))),
            *(gradient, field.grad(at), field.hvp(at, v), field.ggn_vp(at, v), field.losses(at), *steps),
        ]

    found = measured()
    monkeypatch.setattr(heads, "LARGE", V + 1)
    for a, b in zip(found, measured(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("bias", "soft", "tokens"), [(False, False, T), (True, False, T), (True, True, T), (True, False, 0)]
)
def test_gauss_newton_and_fisher_products_hold_no_scores(bias, soft, tokens, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    x, y = torch.randint(0, V, (2, 6, tokens) if tokens else (2, 6))
    net = Words(bias, soft).double()
    field = sl.EmpiricalRisk(sl.Space.of(net), net, x, y, batch_size=4)
    at = field.space.point(net)
    v = torch.randn(2, field.dim, dtype=F64, generator=torch.Generator().manual_seed(2))
    computed, whole = [], DeferredScores.computed
    monkeypatch.setattr(DeferredScores, "computed", lambda scores: computed.append(1) or whole(scores))
    found = field.ggn_vp(at, v), field.fisher_vp(at, v), field.fisher_vp(at, v, kind="monte-carlo")
    assert bool(computed) == soft

    def scores(theta):
        return torch.func.functional_call(net, field.space.views(theta), (x,))

    z = scores(at.theta).detach()
    jacobian = torch.autograd.functional.jacobian(scores, at.theta).flatten(0, -2)
    bend = torch.autograd.functional.hessian(lambda z: F.cross_entropy(z.flatten(0, -2), y.flatten()), z)
    dense = jacobian.T @ bend.reshape(z.numel(), z.numel()) @ jacobian
    torch.testing.assert_close(found[0], v @ dense, rtol=1e-9, atol=1e-12)
    monkeypatch.setattr(heads, "LARGE", V + 1)
    plain = sl.EmpiricalRisk(field.space, net, x, y, batch_size=4)
    for kind, product in zip(("empirical", "monte-carlo"), found[1:], strict=True):
        torch.testing.assert_close(product, plain.fisher_vp(at, v, kind=kind), rtol=1e-9, atol=1e-12)


def test_a_training_is_that_of_the_plain_loss(monkeypatch: pytest.MonkeyPatch):
    x, y = torch.randint(0, V, (2, 12, T), generator=torch.Generator().manual_seed(0))
    y[3, 1:] = -100
    recipe = Recipe(length=Duration(3, "it"), batch_size=5, lr=0.5, dtype="float64")

    def trained():
        p = sl.Problem(Words, train=(x, y), test=(x, y), validation=0, dtype="float64",
                       options={"bias": False, "soft": False})  # fmt: skip
        return p.trained(p.init(0), recipe=recipe, seed=0).end.theta

    found = trained()
    monkeypatch.setattr(heads, "LARGE", V + 1)
    torch.testing.assert_close(found, trained(), rtol=1e-10, atol=1e-12)


def test_derivatives_are_exact():
    torch.manual_seed(0)
    h, w, b = (torch.randn(*s, dtype=F64, requires_grad=True) for s in ((7, 2), (5, 2), (5,)))
    y = torch.tensor([0, 1, -100, 3, 4, 2, 2])

    def losses(h, w, b):
        return DeferredScores.of(h, w, b).losses(y)

    assert torch.autograd.gradcheck(losses, (h, w, b))
    assert torch.autograd.gradgradcheck(losses, (h, w, b))
    assert torch.equal(losses(h, w, b), F.cross_entropy(F.linear(h, w, b), y, reduction="none"))


def test_scores_describe_themselves_and_are_computed_for_all_else():
    net = nn.Linear(WIDTH, V)
    x = torch.randn(2, T, WIDTH)
    assert large_heads(nn.Sequential(net, nn.Linear(V, 2))) == [net]
    with deferred([net]):
        scores = net(x)
    assert isinstance(scores, DeferredScores)
    assert (scores.shape, scores.ndim, len(scores), scores._known) == ((2, T, V), 3, 2, None)
    assert torch.equal(scores.answers(), net(x).argmax(-1))
    assert torch.equal(scores.movedim(-1, 1)[:, 3], net(x)[..., 3])
    assert not isinstance(net(x), DeferredScores)
