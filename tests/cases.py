"""The cases that every fast path runs through, and the dense float64 answers it is compared with.

A new network is one row of ``CASES``; a new closed form one row of ``QUADRATICS``. The oracle shares no code with the
package: BatchNorm is a formula, its statistics come from hooks and hand-written moments, the Hessian from
``torch.func.hessian``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from types import MethodType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sublevel.data.splits import Part
from sublevel.risk import LOSSES, EmpiricalRisk
from sublevel.space import Point, Space
from sublevel.train.setup import TrainingSetup

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


class Tied(nn.Module):
    """Encoder and decoder share one matrix, and the second layer is met under its own name too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.second.weight = self.first.weight
        self.out = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.second(torch.tanh(self.first(x)))))


class Attention(nn.Module):
    """Softmax attention by the library's function, whose fused kernels have no second derivative."""

    def forward(self, qkv: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*qkv.chunk(3, dim=-1))


def attention() -> nn.Module:
    layers = nn.Unflatten(1, (1, 4, 3)), nn.Linear(3, 12), Attention(), nn.Flatten(), nn.Linear(16, 3)
    return nn.Sequential(*layers)


def perceptron() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def relu() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def wide() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 30), nn.Tanh(), nn.Linear(30, 3))


def convolution() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1, bias=False),
        nn.BatchNorm2d(3),
        nn.Tanh(),
        nn.Conv2d(3, 4, 3, stride=2),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def normalised() -> nn.Module:
    """BatchNorm1d, one with a cumulative average (momentum None) and one that is not affine."""
    return nn.Sequential(
        nn.Linear(6, 5),
        nn.BatchNorm1d(5, momentum=None),
        nn.Tanh(),
        nn.Linear(5, 5),
        nn.BatchNorm1d(5, affine=False),
        nn.Softplus(),
        nn.Linear(5, 3),
    )


def layer_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))


def group_norm() -> nn.Module:
    layers = nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.Tanh(), nn.Flatten(), nn.Linear(64, 3)
    return nn.Sequential(*layers)


def dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Dropout(0.5), nn.Linear(8, 3))


def frozen() -> nn.Module:
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh(), nn.Linear(5, 3))
    for parameter in net[2].parameters():
        parameter.requires_grad_(False)
    return net


def regression() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))


@dataclass(frozen=True)
class Case:
    """A network, its examples in ragged batches, and a point that is nowhere special."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (6,)
    examples: int = 37
    batch_size: int = 20
    loss: str = "cross-entropy"
    policies: tuple[str, ...] = ("stored",)
    seed: int = 1

    def __str__(self) -> str:
        return self.name

    @cached_property
    def module(self) -> nn.Module:
        """The network, in train mode, its running statistics moved away from their initial values."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = self.build().double().train()
            for _ in range(3):
                net(1.5 * torch.randn(16, *self.shape, dtype=torch.float64) + 0.3)
        return net

    @cached_property
    def space(self) -> Space:
        return Space.of(self.module)

    @cached_property
    def point(self) -> Point:
        rng = torch.Generator().manual_seed(self.seed + 100)
        at = self.space.point(self.module)
        noise = torch.randn(len(at.theta), generator=rng, dtype=torch.float64)
        return Point(1.3 * at.theta + 0.1 * noise, at.buffers)

    @cached_property
    def data(self) -> tuple[Tensor, Tensor]:
        rng = torch.Generator().manual_seed(self.seed + 200)
        x = torch.randn(self.examples, *self.shape, generator=rng, dtype=torch.float64)
        if self.loss == "squared":
            return x, torch.randn(self.examples, 2, generator=rng, dtype=torch.float64)
        return x, torch.randint(0, 3, (self.examples,), generator=rng)

    def field(self, policy: str = "stored", **options) -> EmpiricalRisk:
        x, y = self.data
        options = {"batch_size": self.batch_size, "loss": self.loss, "policy": policy} | options
        return EmpiricalRisk(self.space, self.module, x, y, **options)

    def setup(self, **how) -> TrainingSetup:
        """A training on the examples; the recipe and the seed are among the arguments."""
        given = {"space": self.space, "module": self.module, "data": Part(*self.data), "loss": LOSSES[self.loss]}
        return TrainingSetup(**given | {"prepare": lambda x: x} | how)

    def masks(self) -> dict[str, Tensor | None]:
        """No mask, a random one, and one that also kills the first filter of the first prunable layer."""
        rng = torch.Generator().manual_seed(self.seed + 300)
        random = (torch.rand(self.space.dim, generator=rng) < 0.5) | ~self.space.prunable
        dead = random.clone()
        layer = next(self.space.prunable_layers)
        dead[layer.start : layer.start + layer.size // layer.shape[0]] = False
        return {"all": None, "random": random, "dead": dead}


EVERY = ("stored", "batch", "recomputed")
CASES = (
    Case("perceptron", perceptron),
    Case("relu", relu, seed=2),
    Case("wide", wide, seed=3),
    Case("convolution", convolution, shape=(1, 6, 6), examples=23, batch_size=12, policies=EVERY),
    Case("normalised", normalised, policies=EVERY, seed=4),
    Case("remainder-of-one", normalised, examples=25, batch_size=12, policies=EVERY, seed=12),
    Case("tied", Tied, seed=5),
    Case("layer-norm", layer_norm, seed=6),
    Case("group-norm", group_norm, shape=(1, 6, 6), examples=11, batch_size=6, seed=7),
    Case("dropout", dropout, seed=8),
    Case("frozen", frozen, seed=9),
    Case("regression", regression, loss="squared", seed=10),
    Case("attention", attention, shape=(12,), seed=11),
)
CASES_BY_POLICY = [(case, policy) for case in CASES for policy in case.policies]


def named(case: str) -> Case:
    return next(c for c in CASES if c.name == case)


def ids(row: tuple) -> str:
    return "-".join(map(str, row))


# --- The oracle: written over the whole set, with nothing from the package but names and shapes of the coordinates.


def naive_views(case: Case, theta: Tensor) -> dict[str, Tensor]:
    """Parameters from theta by hand: ``named_parameters()`` order, those that require a gradient."""
    out, at = {}, 0
    for name, parameter in case.module.named_parameters():
        if parameter.requires_grad:
            out[name] = theta[at : at + parameter.numel()].reshape(parameter.shape)
            at += parameter.numel()
    assert at == len(theta)
    return out


def naive_losses(case: Case, outputs: Tensor, y: Tensor) -> Tensor:
    if case.loss == "squared":
        return ((outputs - y) ** 2).mean(dim=1) / 2
    return -F.log_softmax(outputs, dim=1)[torch.arange(len(y)), y]


def naive_batches(case: Case) -> list[slice]:
    """No batch of one, which has no variance: the last two then share their examples evenly."""
    ends = [*range(case.batch_size, case.examples, case.batch_size), case.examples]
    if case.examples % case.batch_size == 1:
        ends[-2] -= (case.batch_size - 1) // 2
    return [slice(a, b) for a, b in zip([0, *ends], ends, strict=False)]


def naive_statistics(case: Case, theta: Tensor) -> dict[str, Tensor]:
    """Moments of what enters every BatchNorm in train mode, by hooks; averaged with the batch sizes as weights."""
    net = copy.deepcopy(case.module).eval()
    inputs: dict[str, list[Tensor]] = {}
    for name, part in net.named_modules():
        if isinstance(part, NORMS):
            part.train()
            part.register_forward_pre_hook(lambda _, args, name=name: inputs.setdefault(name, []).append(args[0]))
    x, _ = case.data
    sizes = []
    with torch.no_grad():
        for part in naive_batches(case):
            torch.func.functional_call(net, naive_views(case, theta), (x[part],))
            sizes.append(len(x[part]))
    weights = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    out = {}
    for name, seen in inputs.items():
        rows = [z.transpose(0, 1).flatten(1) for z in seen]
        out[f"{name}.running_mean"] = sum(w * z.mean(1) for w, z in zip(weights, rows, strict=True))
        out[f"{name}.running_var"] = sum(w * z.var(1, unbiased=True) for w, z in zip(weights, rows, strict=True))
    return out


def naive_batch_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """By the formula: torch.func differentiates the library's norms twice with errors of percents."""
    axes = [0, *range(2, x.ndim)]
    column = (slice(None), *[None] * (x.ndim - 2))
    mean, var = norm.running_mean[column], norm.running_var[column]
    if norm.training:
        mean = x.mean(axes, keepdim=True)
        var = ((x - mean) ** 2).mean(axes, keepdim=True)
    z = (x - mean) / (var + norm.eps) ** 0.5
    return z if norm.weight is None else z * norm.weight[column] + norm.bias[column]


def naive_layer_norm(norm: nn.Module, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    z = centred / ((centred**2).mean(-1, keepdim=True) + norm.eps) ** 0.5
    return z * norm.weight + norm.bias


def naive_group_norm(norm: nn.Module, x: Tensor) -> Tensor:
    groups = x.reshape(len(x), norm.num_groups, -1)
    centred = groups - groups.mean(-1, keepdim=True)
    z = (centred / ((centred**2).mean(-1, keepdim=True) + norm.eps) ** 0.5).reshape(x.shape)
    return z * norm.weight[:, None, None] + norm.bias[:, None, None]


def naive_attention(_: nn.Module, qkv: Tensor) -> Tensor:
    q, k, v = qkv.chunk(3, dim=-1)
    scores = (q[..., :, None, :] * k[..., None, :, :]).sum(-1) / q.shape[-1] ** 0.5
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    return (weights[..., None] * v[..., None, :, :]).sum(-2)


NAIVE = {
    Attention: naive_attention,
    nn.BatchNorm1d: naive_batch_norm,
    nn.BatchNorm2d: naive_batch_norm,
    nn.LayerNorm: naive_layer_norm,
    nn.GroupNorm: naive_group_norm,
}


def naive_outputs(case: Case, policy: str, point: Point) -> Callable[[Tensor], Tensor]:
    """theta -> outputs [N, ...] under a policy; statistics that are recomputed at ``point`` are constants."""
    net = copy.deepcopy(case.module).eval()
    for part in net.modules():
        if type(part) in NAIVE:
            part.forward = MethodType(NAIVE[type(part)], part)
            part.training = policy == "batch"
    x, _ = case.data
    parts = naive_batches(case) if policy == "batch" else [slice(None)]
    buffers = dict(point.buffers)
    if policy == "recomputed":
        buffers |= naive_statistics(case, point.theta)

    def outputs(theta: Tensor) -> Tensor:
        entries = naive_views(case, theta) | buffers
        return torch.cat([torch.func.functional_call(net, entries, (x[part],)) for part in parts])

    return outputs


@cache
def dense(case: Case, policy: str) -> tuple[Tensor, Tensor, Tensor]:
    """Losses [N], gradient [D] and Hessian [D, D] at the case's point."""
    outputs, theta = naive_outputs(case, policy, case.point), case.point.theta
    losses = lambda t: naive_losses(case, outputs(t), case.data[1])  # noqa: E731
    mean = lambda t: losses(t).mean()  # noqa: E731
    hessian = torch.func.hessian(mean)(theta)
    return losses(theta).detach(), torch.func.grad(mean)(theta), (hessian + hessian.T) / 2


@cache
def dense_gauss_newton(case: Case, policy: str) -> Tensor:
    """``1/N sum_i J_i^T H_i J_i`` [D, D]: the outputs' Jacobian by torch.func, the loss's Hessian by formula."""
    outputs, theta = naive_outputs(case, policy, case.point), case.point.theta
    jacobian, z = torch.func.jacrev(outputs)(theta), outputs(theta).detach()
    if case.loss == "squared":
        inner = torch.eye(z.shape[1], dtype=z.dtype).expand(len(z), -1, -1) / z.shape[1]
    else:
        p = z.exp() / z.exp().sum(1, keepdim=True)
        inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    return torch.einsum("nca,ncd,ndb->ab", jacobian, inner, jacobian) / len(z)


@cache
def dense_example_grads(case: Case, policy: str) -> Tensor:
    """The gradient of every example's loss [N, D], by torch.func."""
    outputs = naive_outputs(case, policy, case.point)
    return torch.func.jacrev(lambda t: naive_losses(case, outputs(t), case.data[1]))(case.point.theta)


# --- Quadratics with a constructed spectrum.


@dataclass(frozen=True)
class Spec:
    """A quadratic in a rotated basis with these eigenvalues."""

    name: str
    values: tuple[float, ...]

    def __str__(self) -> str:
        return self.name

    @cached_property
    def hessian(self) -> Tensor:
        rng = torch.Generator().manual_seed(len(self.values))
        q, _ = torch.linalg.qr(torch.randn(len(self.values), len(self.values), generator=rng, dtype=torch.float64))
        h = (q * torch.tensor(self.values, dtype=torch.float64)) @ q.T
        return (h + h.T) / 2

    @property
    def top(self) -> Tensor:
        return torch.tensor(self.values, dtype=torch.float64).sort(descending=True).values


def spread(low: float, high: float, n: int) -> tuple[float, ...]:
    return tuple(torch.logspace(low, high, n, dtype=torch.float64).tolist())


def even(low: float, high: float, n: int) -> tuple[float, ...]:
    return tuple(torch.linspace(low, high, n, dtype=torch.float64).tolist())


QUADRATICS = (
    Spec("six-decades", spread(-4, 2, 120)),
    Spec("double", (*spread(-3, 0, 100), 3.0, 3.0, 2.0)),
    Spec("triple-inside", (*spread(-3, 0, 100), 5.0, 4.0, 4.0, 4.0, 2.0)),
    Spec("two-doubles", (*spread(-3, 0, 100), 5.0, 5.0, 4.0, 4.0, 2.0)),
    Spec("double-near-the-bulk", (*even(0, 0.97, 300), 1.05, 1.05, 1.0)),
    Spec("negative", (*spread(-3, 0, 80), -7.0, -0.5, 3.0, 2.0)),
    Spec("all-negative", tuple(-v for v in spread(-2, 1, 60))),
    Spec("rank-one", (2.0, *([0.0] * 29))),
    Spec("rank-three", (3.0, 2.0, 1.0, *([0.0] * 27))),
    Spec("identity", (1.0,) * 25),
    Spec("zero", (0.0,) * 20),
    Spec("one-dimension", (2.5,)),
)
