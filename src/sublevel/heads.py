"""Large output layers: their scores are computed where they are needed, and cross-entropy takes them in chunks.

The scores of a language model, [N, T, V] with a vocabulary V of 50,000, are larger than all other activations together.
Inside `deferred`, a linear layer with `LARGE` outputs or more returns `DeferredScores`, a tensor that holds the layer's
input and weights instead. `DeferredScores.losses` is the cross-entropy in chunks of tokens, with first and second
derivatives that compute each chunk again; `DeferredScores.curvature` is its Gauss-Newton matrix. Every other
operation computes the scores, so a network that does more with them is still the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from sublevel._types import Float, Int, Tensor
from sublevel.data.sources import IGNORED

LARGE = 8192
"""Outputs of a layer from which its scores are deferred; fixed per release."""

CHUNK = 2**22
"""Scores in one chunk."""

_DESCRIBE = {
    torch.Tensor.size,
    torch.Tensor.dim,
    torch.Tensor.numel,
    torch.Tensor.is_floating_point,
    torch.Tensor.is_complex,
    torch.Tensor.__len__,
    *(getattr(torch.Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "layout", "is_sparse")),
}
"""Operations that only describe a tensor."""


@contextmanager
def deferred(heads: Sequence[nn.Linear]) -> Iterator[None]:
    """Inside the block, these layers return `DeferredScores`."""
    for head in heads:
        head.forward = lambda x, head=head: DeferredScores.of(x, head.weight, head.bias)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for head in heads:
            del head.forward


def large_heads(module: nn.Module) -> list[nn.Linear]:
    """The linear layers with `LARGE` outputs or more, with the forward pass of their class."""
    every = (m for m in module.modules() if type(m) is nn.Linear and "forward" not in vars(m))
    return [m for m in every if m.out_features >= LARGE]


class DeferredScores(torch.Tensor):
    """The scores ``x W^T + b`` [..., V] of a linear layer, not computed yet.

    >>> x, head = torch.ones(2, 3), nn.Linear(3, 5)
    >>> scores = DeferredScores.of(x, head.weight, head.bias)
    >>> scores.shape, bool((scores + 0 == head(x)).all())
    (torch.Size([2, 5]), True)
    """

    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    _known: Tensor | None = None

    @staticmethod
    def of(x: Float[Tensor, "*N d"], weight: Float[Tensor, "V d"], bias: Float[Tensor, "V"] | None) -> DeferredScores:
        """Scores from the input and the parameters of a layer."""
        shape = (*x.shape[:-1], len(weight))
        found = torch.Tensor._make_wrapper_subclass(DeferredScores, shape, dtype=x.dtype, device=x.device)  # type: ignore[attr-defined]
        found.inputs, found.weight, found.bias = x, weight, bias
        return found

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Describe the scores, or compute them for any other operation."""
        if func in _DESCRIBE:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        if func is torch.Tensor.detach:
            (scores,) = args
            bias = None if scores.bias is None else scores.bias.detach()
            return cls.of(scores.inputs.detach(), scores.weight.detach(), bias)
        return func(*computed(args), **computed(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Unreachable: `__torch_function__` computes the scores first."""
        raise NotImplementedError(f"{func} on scores that are not computed")

    def computed(self) -> Tensor:
        """The scores as a tensor."""
        if self._known is None:
            self._known = F.linear(self.inputs, self.weight, self.bias)
        return self._known

    def losses(self, targets: Int[Tensor, "*N"], ignored: int = IGNORED) -> Float[Tensor, "*N"]:
        """The cross-entropy of every label in nats, 0 where it is ``ignored``, in chunks.

        First and second derivatives in the inputs and the parameters are exact; third ones are not defined.
        """
        rows, y = self.inputs.reshape(-1, self.inputs.shape[-1]), targets.reshape(-1)
        bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
        return _Losses.apply(rows, self.weight, bias, y, ignored).view(targets.shape)

    @torch.no_grad()
    def by_row(self, function: Callable[..., Tensor], *others: Tensor) -> Tensor:
        """``function(scores [n, V], *others [n])`` [n] of the rows, in chunks, as [*N]."""
        rows, others = self.inputs.reshape(-1, self.inputs.shape[-1]), tuple(t.reshape(-1) for t in others)
        every = _chunks(len(rows), len(self.weight))
        found = [function(F.linear(rows[c], self.weight, self.bias), *(t[c] for t in others)) for c in every]
        return torch.cat(found).view(self.inputs.shape[:-1])

    def answers(self) -> Int[Tensor, "*N"]:
        """The class with the largest score, in chunks."""
        return self.by_row(lambda scores: scores.argmax(dim=1))

    def curvature(
        self, targets: Int[Tensor, "*N"], loss: Callable[[Tensor], Tensor]
    ) -> tuple[Float[Tensor, "n"], Callable[[Tensor], Tensor]]:
        """The parts (x, W, b) of the scores as one vector, and the function that multiplies by ``J^T H J``, in chunks.

        J is the Jacobian of the scores in the parts and H the Hessian of ``loss(scores)`` in the scores, a sum of
        cross-entropies of the ``targets`` with constant weights.
        """
        weight, bias = self.weight, self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
        parts = [self.inputs, weight, bias]
        h, g = self.inputs.detach().reshape(-1, weight.shape[1]), self._weights(targets, loss).reshape(-1)
        sizes, w, b = [part.numel() for part in parts], weight.detach(), bias.detach()

        def product(v: Tensor) -> Tensor:
            da, dw, db = (t.view_as(part) for t, part in zip(v.split(sizes), (h, w, b), strict=True))
            out = torch.zeros_like(v)
            oh, ow, ob = (t.view_as(part) for t, part in zip(out.split(sizes), (h, w, b), strict=True))
            for c in _chunks(len(h), len(w)):
                _, q = _bent(_probabilities(h[c], w, b), h[c], w, da[c], dw, db)
                q.mul_(g[c, None])
                oh[c] = q @ w
                ow.addmm_(q.t(), h[c])
                ob += q.sum(dim=0)
            return out

        return torch.cat([part.reshape(-1) for part in parts]), product

    def _weights(self, targets: Tensor, loss: Callable[[Tensor], Tensor]) -> Float[Tensor, "*N"]:
        """The weight of every label's cross-entropy in ``loss``; 0 for those that do not count."""
        leaf = self.weight.new_zeros(targets.shape).requires_grad_()
        probe = self.detach()
        probe.losses = lambda targets, ignored=IGNORED: leaf * (targets != ignored)  # type: ignore[method-assign]
        return torch.autograd.grad(loss(probe), leaf)[0]


def in_chunks(outputs: Tensor, targets: Tensor) -> TypeGuard[DeferredScores]:
    """Whether outputs are scores that are not computed yet, with one label for every row."""
    return isinstance(outputs, DeferredScores) and outputs.shape[:-1] == targets.shape


def computed(value: Any) -> Any:
    """The value (a tensor, or a list, tuple or dict) with all scores in it computed."""
    if isinstance(value, DeferredScores):
        return value.computed()
    if isinstance(value, dict):
        return {key: computed(each) for key, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(map(computed, value))
    return value


def _chunks(rows: int, classes: int) -> Iterator[slice]:
    size = max(1, CHUNK // classes)
    return (slice(begin, min(begin + size, rows)) for begin in range(0, rows, size))


class _Losses(torch.autograd.Function):
    """Cross-entropy of rows; its derivative is `_Slopes`."""

    @staticmethod
    def forward(h: Tensor, weight: Tensor, bias: Tensor, y: Tensor, ignored: int) -> Tensor:
        found = [
            F.cross_entropy(F.linear(h[c], weight, bias), y[c], reduction="none", ignore_index=ignored)
            for c in _chunks(len(h), len(weight))
        ]
        return torch.cat(found) if found else h.new_zeros(0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:4])
        ctx.ignored = inputs[4]

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return (*_Slopes.apply(*ctx.saved_tensors, slope, ctx.ignored), None, None)


class _Slopes(torch.autograd.Function):
    """The derivatives of the weighted sum of losses in h, W and b.

    With probabilities p, r = p - (one-hot label) and weights g of the losses they are ``g r W``, ``(g r)^T h`` and the
    sum of ``g r``.
    """

    @staticmethod
    def forward(
        h: Tensor, weight: Tensor, bias: Tensor, y: Tensor, g: Tensor, ignored: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        dh, dw, db = torch.empty_like(h), torch.zeros_like(weight), torch.zeros_like(bias)
        for c in _chunks(len(h), len(weight)):
            r = _probabilities(h[c], weight, bias)
            r = _less_labels(r, y[c], ignored).mul_(g[c, None])
            dh[c] = r @ weight
            dw.addmm_(r.t(), h[c])
            db += r.sum(dim=0)
        return dh, dw, db

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs[:5])
        ctx.ignored = inputs[5]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, a: Tensor, b: Tensor, c0: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Derivatives of ``<a, g r W> + <b, (g r)^T h> + <c0, sum g r>`` = sum g r.u with u = W a + b h + c0."""
        h, weight, bias, y, g = ctx.saved_tensors
        dh, dw = torch.empty_like(h), torch.zeros_like(weight)
        db, dg = torch.zeros_like(bias), torch.empty_like(g)
        for c in _chunks(len(h), len(weight)):
            p = _probabilities(h[c], weight, bias)
            u, q = _bent(p, h[c], weight, a[c], b, c0)
            r = _less_labels(p, y[c], ctx.ignored)
            dg[c] = (r * u).sum(dim=1)
            q.mul_((g[c] * (y[c] != ctx.ignored))[:, None])
            r.mul_(g[c, None])
            dh[c] = (q @ weight).addmm_(r, b)
            dw.addmm_(q.t(), h[c]).addmm_(r.t(), a[c])
            db += q.sum(dim=0)
        return dh, dw, db, None, dg, None


def _probabilities(h: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.linear(h, weight, bias).softmax(dim=1)


def _bent(p: Tensor, h: Tensor, weight: Tensor, a: Tensor, b: Tensor, c0: Tensor) -> tuple[Tensor, Tensor]:
    """The change u of the scores along (a, b, c0) in (h, W, b), and ``(diag(p) - p p^T) u``."""
    u = F.linear(a, weight, c0).addmm_(h, b.t())
    return u, (u - (p * u).sum(dim=1, keepdim=True)).mul_(p)


def _less_labels(p: Tensor, y: Tensor, ignored: int) -> Tensor:
    """``p - one_hot(y)`` in place, 0 in the rows of ignored labels."""
    there = y != ignored
    p[torch.arange(len(y), device=y.device), torch.where(there, y, 0)] -= 1
    return p.mul_(there[:, None])
