"""Sparse arithmetic: linear layers of few weights multiply by those alone.

Under a mask of 5% a dense product multiplies by zero nineteen times of twenty. Here such a layer's weights are a vector
of the kept ones, which the optimizer moves; its products are those of a sparse matrix in CSR form, forward and
backward, with examples in columns, where the libraries are fastest (three to six times at 2%, even at about 8%). The
sums have other orders than dense ones, so it is an engine to be named, not a detail.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import nan
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ConfigError, ModelError
from sublevel.space import Point, Space
from sublevel.train.recipe import Recipe
from sublevel.train.resume import State
from sublevel.train.update import Moments, update
from sublevel.train.weights import Slope, Weights

LARGE = 2**14
"""Weights of a layer from which on it is worth while: likewise."""

BELOW = 0.06
"""Density at or under which a layer's products are sparse: a rule of this release, part of the arithmetic."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """Where a matrix [out, in] keeps its n weights: in CSR form, and in that of its transpose."""

    shape: tuple[int, int]
    kept: Tensor
    """int64 [n]: their places in the matrix read row by row."""
    rows: tuple[Tensor, Tensor]
    """Ends of the rows [out + 1], columns [n]."""
    columns: tuple[Tensor, Tensor]
    """Ends of the columns [in + 1], rows [n]."""
    turned: Tensor
    """int64 [n]: the order of the weights in the transpose."""

    @classmethod
    def of(cls, kept: Bool[Tensor, "out in"]) -> Pattern:
        """The pattern of the true ones."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")  # once in a process
            there = kept.to(torch.float32).to_sparse_csr()
        back = kept.t().to(torch.float32).contiguous().to_sparse_csr()
        places = torch.zeros(kept.shape, dtype=torch.int64)
        flat = kept.reshape(-1).nonzero()[:, 0]
        places.view(-1)[flat] = torch.arange(len(flat))
        turned = places.t()[kept.t()]
        rows, columns = ((m.crow_indices().int(), m.col_indices().int()) for m in (there, back))  # MKL's own integers
        return cls((kept.shape[0], kept.shape[1]), flat, rows, columns, turned)

    def matrix(self, values: Float[Tensor, "n"]) -> Tensor:
        """[out, in] with these weights."""
        return torch.sparse_csr_tensor(*self.rows, values, self.shape, check_invariants=False)

    def transpose(self, values: Float[Tensor, "n"]) -> Tensor:
        """[in, out] with these weights."""
        return torch.sparse_csr_tensor(*self.columns, values[self.turned], self.shape[::-1], check_invariants=False)


class Product(torch.autograd.Function):
    """``x W^T`` for a sparse W, with the gradients of its kept weights and of x."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "B in"], values: Float[Tensor, "n"], pattern: Pattern) -> Tensor:  # noqa: D102
        columns = x.t().contiguous()
        ctx.save_for_backward(columns, values)
        ctx.pattern = pattern
        return torch.mm(pattern.matrix(values), columns).t()

    @staticmethod
    def backward(ctx: Any, gradient: Float[Tensor, "B out"]) -> tuple[Tensor | None, Tensor, None]:  # noqa: D102
        (columns, values), pattern = ctx.saved_tensors, ctx.pattern
        turned = gradient.t().contiguous()
        nothing = pattern.matrix(torch.zeros_like(values))
        of_values = torch.sparse.sampled_addmm(nothing, turned, columns.t(), beta=0.0).values()
        to_x = torch.mm(pattern.transpose(values), turned).t() if ctx.needs_input_grad[0] else None
        return to_x, of_values, None


class Multiply(TorchFunctionMode):
    """Linear layers whose weight is one of the stand-ins multiply by the sparse matrix that it stands for."""

    def __init__(self, stands_for: Mapping[int, tuple[str, Tensor, Pattern]]) -> None:
        self._stands_for = stands_for

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """One call of a torch function."""
        found = [self._stands_for[id(a)] for a in args if id(a) in self._stands_for]
        if not found:
            return function(*args, **(kwargs or {}))
        name, values, pattern = found[0]
        if function is not F.linear:
            raise ModelError(
                f"{name} is read by {getattr(function, '__name__', function)} too, which train.engine 'sparse' cannot "
                "compute: it is for linear layers that nothing else reads; leave it out"
            )
        x, bias = args[0], args[2] if len(args) > 2 else (kwargs or {}).get("bias")
        y = Product.apply(x.reshape(-1, x.shape[-1]), values, pattern)
        y = y if bias is None else y + bias
        return y.reshape(*x.shape[:-1], pattern.shape[0])


class SparseSlope(Slope):
    """As `Slope`; of the chosen layers only the kept weights are moved, and theta is brought up to date when asked."""

    def __init__(self, space: Space, start: Point, patterns: Mapping[str, Pattern], *given: Any) -> None:
        super().__init__(space, given[0], start, *given[1:])
        self._patterns = patterns
        self._stand_ins: dict[str, Tensor] = {}
        self.parts = [self._part(name, view) for name, view in self.views.items()]
        for name, part in zip(self.views, self.parts, strict=True):
            if name in patterns:
                self._leaves[name] = part.detach().requires_grad_()
                self._stand_ins[name] = torch.full_like(self.views[name], nan)  # whatever else reads it will show

    def compact(self, vector: Float[Tensor, "D"], space: Space) -> list[Tensor]:
        """A vector's numbers where the optimizer moves something, part by part."""
        return [self._part(name, view) for name, view in space.views(vector).items()]

    def spread(self, parts: list[Tensor], vector: Float[Tensor, "D"], space: Space) -> Tensor:
        """The way back, written into a vector."""
        for (name, view), part in zip(space.views(vector).items(), parts, strict=True):
            if name in self._patterns:
                view.view(-1)[self._patterns[name].kept] = part.detach()
            elif view.data_ptr() != part.data_ptr():
                view.copy_(part)
        return vector

    def _part(self, name: str, view: Tensor) -> Tensor:
        return view.reshape(-1)[self._patterns[name].kept] if name in self._patterns else view

    def _losses(self, tensors: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        stands_for = {id(t): (name, self._leaves[name], self._patterns[name]) for name, t in self._stand_ins.items()}
        with Multiply(stands_for):
            return super()._losses(tensors | self._stand_ins, x, y)


class Sparse(Weights):
    """Masked descent of the weights, those of sparse layers alone."""

    _slope: SparseSlope

    def __init__(
        self,
        space: Space,
        module: nn.Module,
        start: Point,
        mask: Bool[Tensor, "D"] | None,
        recipe: Recipe,
        prepare: Any,
        loss: Any,
    ) -> None:
        if start.theta.device.type != "cpu":
            raise ConfigError(f"train.engine 'sparse' is for the CPU, got {start.theta.device}")
        self._space = space
        mask = space.full_mask() if mask is None else mask
        linear = {id(m.weight) for m in module.modules() if isinstance(m, nn.Linear)}
        named = dict(module.named_parameters())
        patterns = {
            name: Pattern.of(view > 0)
            for name, view in space.views(mask.to(start.theta.dtype)).items()
            if id(named[name]) in linear
            and view.numel() >= LARGE
            and 0 < int(view.count_nonzero()) <= BELOW * view.numel()
        }
        self._slope = SparseSlope(space, start.project(mask), patterns, module, prepare, loss, recipe)
        self.optimizer = update(recipe, self._slope.parts, self._slope.compact(mask.to(start.theta.dtype), space))

    def point(self) -> Point:
        """Where it stands, as a copy."""
        self._up_to_date()
        return self._slope.point()

    def state(self) -> State:
        """Weights, buffers and momentum."""
        self._up_to_date()
        return super().state()

    def restore(self, state: State) -> None:
        """Go on from a state."""
        super().restore(state)
        for part, value in zip(self._slope.parts, self._slope.compact(self._slope.theta, self._space), strict=True):
            part.copy_(value)

    def moments(self) -> Moments:
        """What the optimizer remembers: vectors [D], and the number of steps."""
        zero = lambda: torch.zeros_like(self._slope.theta)  # noqa: E731
        found = {
            name: self._slope.spread(parts, zero(), self._space) for name, parts in self.optimizer.vectors().items()
        }
        return {**found, "count": torch.tensor(self.optimizer.count)}

    def resume(self, moments: Mapping[str, Tensor]) -> None:
        """Go on with what an optimizer remembers of the steps before."""
        for name, parts in self.optimizer.vectors().items():
            for part, value in zip(parts, self._slope.compact(moments[name], self._space), strict=True):
                part.copy_(value)
        self.optimizer.count = int(moments["count"])

    def _up_to_date(self) -> None:
        self._slope.spread(self._slope.parts, self._slope.theta, self._space)
