"""The exact Gauss-Newton diagonal, and weights with constant inputs, from the inputs and outputs of layers.

A weight of a linear layer or convolution multiplies an example's input a once. The gradient of an output in the weight
is a times the gradient in the layer's output, and its square needs no vector [D] per example.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import nan

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from sublevel._types import Bool, Float, Tensor
from sublevel.field import PointLike
from sublevel.risk.empirical import EmpiricalRisk
from sublevel.space import as_point

MOST_OUTPUTS = 128
"""Most outputs of an example for which the diagonal is computed."""

EXAMPLES = 100
"""Examples per pass: the patches of a convolution's inputs are in memory."""

Look = Callable[[str, Tensor, Tensor], None]


def constant_inputs(field: EmpiricalRisk, at: PointLike) -> Bool[Tensor, "D"]:
    """The coordinates of weights whose input is constant over the examples of the field, at a point.

    The input is a feature of a linear layer or a channel of a convolution (over all positions), such as a pixel that is
    dark in every image or a hidden unit that never fires. Such a weight acts as a bias, so its curvature says nothing
    about the feature. Other kinds of layers have none.
    """
    space, point = field.space, as_point(at)
    field.settle(point)  # recomputes statistics before the layers are watched
    readers = _readers(field)
    low: dict[str, Tensor] = {}
    high: dict[str, Tensor] = {}

    def look(name: str, x: Tensor, out: Tensor) -> None:
        axis = x.ndim - 1 if isinstance(readers[name], nn.Linear) else 1
        features = x.movedim(axis, -1).reshape(-1, x.shape[axis])
        least, most = features.amin(dim=0), features.amax(dim=0)
        low[name] = torch.minimum(low.get(name, least), least)
        high[name] = torch.maximum(high.get(name, most), most)

    with _watching(readers, look):
        field.evaluate(point)
    out = torch.zeros(space.dim, dtype=torch.bool, device=point.theta.device)
    for layer in space.prunable_layers:
        if layer.name in low:
            shape, groups = layer.shape, int(getattr(readers[layer.name], "groups", 1))
            same = (low[layer.name] == high[layer.name]).reshape(groups, 1, shape[1])
            rows = same.expand(groups, shape[0] // groups, shape[1]).reshape(*shape[:2], *[1] * (len(shape) - 2))
            out[layer.coordinates] = rows.expand(shape).reshape(-1)
    return out


@sdpa_kernel(SDPBackend.MATH)
def ggn_diagonal(field: EmpiricalRisk, at: PointLike) -> Float[Tensor, "D"] | None:
    """The exact Gauss-Newton diagonal at every prunable coordinate, in float64; nan at the others.

    ``1/N sum_i sum_k l_ik (J_i^T u_ik)^2`` with the eigenpairs (l_ik, u_ik) of the Hessian of example i's loss in its C
    outputs: one backward pass for each output. Returns None under ``batch`` statistics, which couple the examples, for
    more than `MOST_OUTPUTS` outputs, and unless every prunable weight belongs to a linear layer or a plain
    two-dimensional convolution, is used once per example, and is not tied to another.
    """
    readers = _readers(field)
    names = [id(p) for _, p in field.module.named_parameters(remove_duplicate=False)]
    if len(set(names)) < len(names):
        return None
    if field.policy == "batch" or any(not _plain(readers.get(x.name)) for x in field.space.prunable_layers):
        return None
    point = field.settle(at)
    theta = point.theta.detach().requires_grad_()
    total = torch.full((field.dim,), nan, dtype=torch.float64, device=theta.device)
    total[field.space.prunable.to(theta.device)] = 0
    layers = {layer.name: layer for layer in field.space.prunable_layers}
    for start in range(0, len(field.x), EXAMPLES):
        rows = slice(start, min(start + EXAMPLES, len(field.x)))
        met: dict[str, tuple[Tensor, Tensor]] = {}
        repeated = False

        def look(name: str, x: Tensor, out: Tensor, met: dict[str, tuple[Tensor, Tensor]] = met) -> None:
            nonlocal repeated
            repeated = repeated or name in met
            met[name] = x, out

        with _watching(readers, look):
            outputs, y = field.outputs(theta, point.buffers, field.prepare(field.x[rows]), field.policy), field.y[rows]
        if repeated or len(met) < len(readers) or outputs[0].numel() > MOST_OUTPUTS or len(outputs) != len(y):
            return None
        values, vectors = _bends(field, outputs.detach(), y)
        for k in range(values.shape[1]):
            pulled = torch.autograd.grad(outputs, [out for _, out in met.values()], vectors[:, k], retain_graph=True)
            for (name, (x, _)), g in zip(met.items(), pulled, strict=True):
                where = layers[name].coordinates
                total[where] += _squares(readers[name], x, g, values[:, k]).reshape(-1).double()
    return total / len(field.x)


def _bends(field: EmpiricalRisk, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalues [B, C] and eigenvectors [B, C, ...] of the Hessians of the examples' losses in their outputs."""

    def bend(z: Tensor, target: Tensor) -> Tensor:
        def loss(flat: Tensor) -> Tensor:
            return field.loss_of(flat.reshape(1, *z.shape), target[None])[0]

        return torch.func.jacrev(torch.func.jacrev(loss))(z.flatten())

    values, vectors = torch.linalg.eigh(torch.func.vmap(bend)(outputs, y))
    return values, vectors.mT.reshape(len(outputs), -1, *outputs.shape[1:])


def _squares(module: nn.Module, x: Tensor, g: Tensor, weights: Float[Tensor, "B"]) -> Tensor:
    """``sum_b w_b G_b^2`` with the gradient G_b [out, in, ...] of an example's output in a layer's weight."""
    if isinstance(module, nn.Linear):
        if x.ndim == 2:
            return (weights[:, None] * g.square()).T @ x.square()
        each = torch.einsum("bto,bti->boi", g.flatten(1, -2), x.flatten(1, -2))
        return torch.einsum("b,boi->oi", weights, each.square())
    assert isinstance(module, nn.Conv2d)
    patches = F.unfold(x, module.kernel_size, module.dilation, module.padding, module.stride)  # pyright: ignore[reportArgumentType]
    groups = module.groups
    patches, g = (t.reshape(len(x), groups, -1, patches.shape[-1]) for t in (patches, g.flatten(2)))
    return torch.einsum("b,bgoi->goi", weights, (g @ patches.mT).square())


def _readers(field: EmpiricalRisk) -> dict[str, nn.Module]:
    """The linear layer or convolution of every prunable weight that has one."""
    modules = dict(field.module.named_modules())
    found = {}
    for layer in field.space.prunable_layers:
        owner, _, kind = layer.name.rpartition(".")
        if kind == "weight" and isinstance(modules.get(owner), nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d):
            found[layer.name] = modules[owner]
    return found


def _plain(module: nn.Module | None) -> bool:
    if isinstance(module, nn.Conv2d):
        return module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return isinstance(module, nn.Linear)


@contextmanager
def _watching(readers: Mapping[str, nn.Module], look: Look) -> Iterator[None]:
    """Call ``look`` on the inputs and outputs of layers; later layers get a copy of the outputs that they may write."""

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def seen(module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
            look(name, args[0].detach(), out)
            return out.clone()

        return seen

    hooks = [module.register_forward_hook(hook(name)) for name, module in readers.items()]
    try:
        yield
    finally:
        for each in hooks:
            each.remove()
