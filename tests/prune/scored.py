"""Every criterion by its definition, in float64, from dense matrices; and what any criterion is held to."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from cases import Case, dense, dense_example_grads, naive_losses, naive_outputs
from sublevel.errors import ConfigError
from sublevel.prune import ScoreContext, prune, score_function
from sublevel.prune.select import counts, layer_counts
from sublevel.risk.synflow import flow
from sublevel.space import Point


@cache
def start(case: Case) -> Point:
    """Somewhere that training may have begun: some signs differ, and one weight is exactly 0."""
    rng = torch.Generator().manual_seed(case.seed + 400)
    theta = case.point.theta + 0.3 * torch.randn(case.space.dim, generator=rng, dtype=torch.float64)
    theta[1] = 0.0
    return Point(theta, case.point.buffers)


def context(case: Case, mask: str = "all") -> ScoreContext:
    """All that a criterion may ask for."""
    chosen = case.masks()[mask]
    whole = case.space.full_mask() if chosen is None else chosen
    return ScoreContext(case.space, whole, start(case), flow(case.space, case.module, torch.zeros(1, *case.shape)))


def look(name: str, case: Case, mask: str = "all", **options) -> Tensor:
    """The scores of a criterion at the case's point, pruned by one of its masks."""
    seen = context(case, mask)
    rng = torch.Generator().manual_seed(3)
    return score_function(name).look(case.point.project(seen.mask), case.field(**options), rng, seen).values


# --- Definitions, from (theta, theta_0, gradient, Hessian, gradients of examples, mask, case).


def at_mask(case: Case, mask: str) -> Case:
    """The case moved to its pruned point."""
    moved = copy.copy(case)
    chosen = context(case, mask).mask
    moved.__dict__["point"] = case.point.project(chosen)
    object.__setattr__(moved, "name", f"{case.name}/{mask}")
    return moved


def naive_lamp(case: Case, mask: Tensor) -> Tensor:
    out, theta = torch.zeros(case.space.dim, dtype=torch.float64), case.point.theta
    for layer in case.space.prunable_layers:
        place = range(layer.start, layer.start + layer.size)
        for i in place:
            above = sum(float(theta[j]) ** 2 for j in place if (abs(theta[j]), j) >= (abs(theta[i]), i))
            out[i] = float(theta[i]) ** 2 / above if theta[i] else 0.0
    return out


def naive_flow(case: Case, mask: Tensor) -> Tensor:
    net = copy.deepcopy(case.module)
    case.space.write(net, case.point)
    for name, part in list(net.named_modules()):
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.LayerNorm | nn.GroupNorm):
            owner, _, own = name.rpartition(".")
            setattr(net.get_submodule(owner), own, nn.Identity())
        if isinstance(part, nn.Dropout):
            part.eval()
    trained = {layer.name: layer for layer in case.space.layers}
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(torch.zeros_like(parameter) if name.endswith("bias") else parameter.abs())
    net(torch.ones(1, *case.shape, dtype=torch.float64)).sum().backward()
    out = torch.zeros(case.space.dim, dtype=torch.float64)
    for name, parameter in net.named_parameters():
        if name in trained and parameter.grad is not None:
            out[trained[name].coordinates] = (parameter.grad * parameter).detach().reshape(-1)
    return out


def naive_blocks(case: Case, mask: Tensor) -> list[Tensor]:
    out = []
    for layer in case.space.prunable_layers:
        alive = [i for i in range(layer.start, layer.start + layer.size) if mask[i]]
        out += [torch.tensor(alive[i : i + 32]) for i in range(0, len(alive), 32)]
    return out


def naive_inverse(case: Case, block: Tensor) -> Tensor:
    g = dense_example_grads(case, "stored")[:, block]
    return torch.linalg.inv(g.T @ g / len(g) + 1e-5 * torch.eye(len(block), dtype=torch.float64))


def naive_woodfisher(case: Case, mask: Tensor) -> Tensor:
    out = torch.zeros(case.space.dim, dtype=torch.float64)
    for block in naive_blocks(case, mask):
        out[block] = case.point.theta[block] ** 2 / (2 * naive_inverse(case, block).diagonal())
    return out


def naive_snip(case: Case, mask: Tensor) -> Tensor:
    """By multipliers of the weights, as the paper puts it."""
    c = torch.ones(case.space.dim, dtype=torch.float64, requires_grad=True)
    outputs = naive_outputs(case, "stored", case.point)
    (g,) = torch.autograd.grad(naive_losses(case, outputs(c * case.point.theta), case.data[1]).mean(), c)
    return g.abs() / g[case.space.prunable].abs().sum()


def naive_grasp(case: Case, mask: Tensor) -> Tensor:
    _, g, h = dense(case, "stored")
    return case.point.theta * (h @ (g * mask))


def naive_two_of_four(case: Case, m: Tensor) -> Tensor:
    """Group by group: the two largest weights of one output at four neighbouring inputs come first."""
    out, most = case.point.theta.abs().clone(), 2 * float(case.point.theta.abs().max()) + 1
    for layer in case.space.prunable_layers:
        where = torch.arange(layer.start, layer.start + layer.size).view(layer.shape)
        for row in where.movedim(1 - layer.axis, -1).reshape(-1, layer.shape[1 - layer.axis]).tolist():
            for begin in range(0, len(row), 4):
                group = row[begin : begin + 4]
                group.sort(key=lambda i: -float(case.point.theta[i].abs()))
                for i in group[: math.ceil(len(group) / 2)]:
                    out[i] += most
    return out


NAIVE: dict[str, Callable[[Case, Tensor], Tensor]] = {
    "magnitude": lambda case, m: case.point.theta.abs(),
    "random": lambda case, m: torch.rand(case.space.dim, generator=torch.Generator().manual_seed(3)).double(),
    "lamp": naive_lamp,
    "magnitude-2:4": naive_two_of_four,
    "gradient": lambda case, m: dense(case, "stored")[1].abs(),
    "taylor": lambda case, m: (case.point.theta * dense(case, "stored")[1]).abs(),
    "snip": naive_snip,
    "grasp": naive_grasp,
    "synflow": naive_flow,
    "obd": lambda case, m: case.point.theta**2 * dense(case, "stored")[2].diagonal() / 2 * m,
    "fisher": lambda case, m: case.point.theta**2 * (dense_example_grads(case, "stored") ** 2).mean(0) / 2,
    "woodfisher": naive_woodfisher,
    "movement": lambda case, m: (case.point.theta**2 - start(case).theta ** 2) / 2,
    "magnitude-increase": lambda case, m: case.point.theta.abs() - start(case).theta.abs(),
    "distance": lambda case, m: (case.point.theta - start(case).theta).abs(),
    "initial-magnitude": lambda case, m: start(case).theta.abs(),
    "same-sign": lambda case, m: torch.where(
        case.point.theta * start(case).theta > 0, case.point.theta.abs(), 0.0
    ),
    "magnitude-increase-same-sign": lambda case, m: (
        case.point.theta * start(case).theta / start(case).theta.abs().clamp(min=1e-300) - start(case).theta.abs()
    ),
}  # fmt: skip


# --- What every criterion is held to, registered today or tomorrow.


def shape_and_kind(name: str, case: Case) -> None:
    """One finite real number per coordinate, without a graph."""
    values = look(name, case)
    assert values.shape == (case.space.dim,)
    assert values.is_floating_point()
    assert not values.requires_grad
    assert bool(values.isfinite().all())


def determinism(name: str, case: Case) -> None:
    """No randomness but the generator's, and another generator says so where the criterion draws."""
    assert torch.equal(look(name, case), look(name, case))
    criterion, seen = score_function(name), context(case)
    other = criterion.look(case.point, case.field(), torch.Generator().manual_seed(9), seen).values
    if not criterion.draws:
        assert torch.equal(other, look(name, case))


def batches(name: str, case: Case) -> None:
    """How the examples are cut into batches makes no difference."""
    torch.testing.assert_close(look(name, case, batch_size=5), look(name, case), rtol=1e-9, atol=1e-12)


def nothing_written(name: str, case: Case) -> None:
    """Point, start, mask and the module's own weights are as before."""
    seen, module = context(case), {k: v.clone() for k, v in case.module.state_dict().items()}
    before = case.point.theta.clone(), start(case).theta.clone(), seen.mask.clone()
    mode = case.module.training
    score_function(name).look(case.point, case.field(), torch.Generator().manual_seed(3), seen)
    assert all(map(torch.equal, before, (case.point.theta, start(case).theta, seen.mask)))
    assert all(torch.equal(v, module[k]) for k, v in case.module.state_dict().items())
    assert case.module.training == mode


def exact_masks(name: str, case: Case) -> None:
    """Exact counts under every scope, level after level, each nested in the one before; what is gone is exactly 0."""
    for scope in ("global", "layer", "erk"):
        at, seen = case.point, context(case)
        for level in (1, 2):
            keep = counts(case.space, 0.5, level, scope)
            done = prune(name, at, case.field(), torch.Generator().manual_seed(level), seen, keep)
            assert case.space.remaining(done.mask) == sum(keep)
            if scope != "global":
                assert layer_counts(case.space, done.mask) == keep
            assert not bool((done.mask & ~seen.mask).any())
            assert bool((done.theta[~done.mask] == 0).all())
            if not score_function(name).updates:
                assert torch.equal(done.theta, case.point.project(done.mask).theta)
            at, seen = Point(done.theta, at.buffers), ScoreContext(seen.space, done.mask, seen.start, seen.flow)


CHECKS = (shape_and_kind, determinism, batches, nothing_written, exact_masks)


def refused(name: str, case: Case) -> str:
    """What a criterion is refused with."""
    try:
        look(name, case)
    except ConfigError as error:
        return str(error)
    return ""
