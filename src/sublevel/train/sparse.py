"""Sparse products for linear layers at low density.

At a density of 5% a dense product multiplies by zero nineteen times out of twenty. Here the optimizer moves a vector of
the kept weights. Forward and backward products use a sparse matrix in CSR form, with examples in columns, where the
libraries are fastest (three to six times as fast at 2%, equal at about 8%). Sparse sums have another order than dense
ones, so this is a separate engine.
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
from sublevel.space import Point
from sublevel.train.resume import State
from sublevel.train.setup import TrainingSetup
from sublevel.train.weights import LossAndGrad, Weights

LARGE = 2**14
"""Smallest layer, in weights, that is worth a sparse product; fixed per release."""

BELOW = 0.06
"""Highest density at which a layer's products are sparse; fixed per release."""


@dataclass(frozen=True, eq=False)
class Pattern:
    """The positions of the n kept weights of a matrix [out, in], in CSR form, also for its transpose."""

    shape: tuple[int, int]
    kept: Tensor
    """int64 [n]: their row-major indices in the matrix."""
    rows: tuple[Tensor, Tensor]
    """Ends of the rows [out + 1], columns [n]."""
    columns: tuple[Tensor, Tensor]
    """Ends of the columns [in + 1], rows [n]."""
    turned: Tensor
    """int64 [n]: the order of the weights in the transpose."""

    @classmethod
    def of(cls, kept: Bool[Tensor, "out in"]) -> Pattern:
        """The pattern of the true entries."""
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
    """Replaces ``F.linear`` by a sparse product if its weight is one of the placeholders."""

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
                f"{name} is also read by {getattr(function, '__name__', function)}, which train.engine 'sparse' cannot "
                "compute: it supports weights that only nn.Linear reads; use another engine"
            )
        x, bias = args[0], args[2] if len(args) > 2 else (kwargs or {}).get("bias")
        y = Product.apply(x.reshape(-1, x.shape[-1]), values, pattern)
        y = y if bias is None else y + bias
        return y.reshape(*x.shape[:-1], pattern.shape[0])


class SparseLossAndGrad(LossAndGrad):
    """A `LossAndGrad` that stores only the kept weights of layers with a pattern.

    ``theta`` holds the last complete vector written to it; `point` gives the current weights.
    """

    def __init__(self, patterns: Mapping[str, Pattern], setup: TrainingSetup, start: Point) -> None:
        self._patterns = patterns
        super().__init__(setup, start)
        views = setup.space.views(self.theta)
        self._stand_ins = {name: torch.full_like(views[name], nan) for name in patterns}  # any other reader gets nan

    def compact(self, vector: Float[Tensor, "D"]) -> dict[str, Tensor]:
        """The entries of a vector that the optimizer moves, by parameter."""
        return {
            name: view.reshape(-1)[self._patterns[name].kept] if name in self._patterns else view
            for name, view in super().compact(vector).items()
        }

    def spread(self, parts: list[Tensor]) -> Float[Tensor, "D"]:
        """Inverse of `compact`: a new vector, 0 at pruned weights."""
        vector = torch.zeros_like(self.theta)
        for (name, view), part in zip(self.space.views(vector).items(), parts, strict=True):
            if name in self._patterns:
                view.view(-1)[self._patterns[name].kept] = part
            else:
                view.copy_(part)
        return vector

    def restore(self, theta: Float[Tensor, "D"], buffers: State) -> None:
        """Set theta and the buffers."""
        super().restore(theta, buffers)
        for part, value in zip(self.parts, self.compact(theta).values(), strict=True):
            part.copy_(value)

    def _losses(self, tensors: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        stands_for = {id(t): (name, self._leaves[name], self._patterns[name]) for name, t in self._stand_ins.items()}
        with Multiply(stands_for):
            return super()._losses(tensors | self._stand_ins, x, y)


class Sparse(Weights):
    """Masked training steps with sparse products. Pruning during training uses dense products."""

    def make_loss_and_grad(
        self, setup: TrainingSetup, start: Point, mask: Bool[Tensor, "D"] | None
    ) -> SparseLossAndGrad:
        """The loss and gradient with the patterns of the mask's sparse layers. Raises ConfigError if not on a CPU."""
        if start.theta.device.type != "cpu":
            raise ConfigError(f"train.engine 'sparse' is for the CPU, got {start.theta.device}")
        linear = {id(m.weight) for m in setup.module.modules() if isinstance(m, nn.Linear)}
        named = dict(setup.module.named_parameters())
        kept = setup.space.full_mask() if mask is None else mask
        patterns = {
            name: Pattern.of(view > 0)
            for name, view in setup.space.views(kept.to(start.theta.dtype)).items()
            if id(named[name]) in linear
            and view.numel() >= LARGE
            and 0 < int(view.count_nonzero()) <= BELOW * view.numel()
        }
        return SparseLossAndGrad(patterns, setup, start)
