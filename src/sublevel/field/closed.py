"""Fields in closed form, whose known minima, spectra, barriers and volumes test the estimators."""

from __future__ import annotations

import torch

from sublevel._types import Float, Tensor
from sublevel.field.base import Evaluation, Field, PointLike
from sublevel.field.products import hessian_products
from sublevel.space import as_point


class Quadratic(Field):
    """``1/2 (theta - center)^T H (theta - center) + g^T theta + offset``.

    ``hessian`` is a symmetric [D, D] matrix or the diagonal [D] of one. The spectrum is that of H everywhere; path
    maxima, volumes and determinants are known in closed form.

    >>> field = Quadratic(torch.tensor([1.0, 4.0]))
    >>> field.loss(torch.tensor([1.0, 1.0]))
    2.5
    """

    def __init__(
        self,
        hessian: Float[Tensor, "..."],
        center: Float[Tensor, "D"] | None = None,
        *,
        slope: Float[Tensor, "D"] | None = None,
        offset: float = 0.0,
    ) -> None:
        self.hessian = hessian
        self.center = center
        self.slope = slope
        self.offset = offset

    @property
    def dim(self) -> int:
        """D."""
        return self.hessian.shape[-1]

    def evaluate(self, at: PointLike) -> Evaluation:
        """The value; a quadratic has no error."""
        x = self._shift(at)
        value = 0.5 * x @ self._times(x) + self.offset
        if self.slope is not None:
            value = value + self.slope @ as_point(at).theta
        return Evaluation(float(value))

    def grad(self, at: PointLike) -> Float[Tensor, "D"]:
        """``H (theta - center) + g``."""
        gradient = self._times(self._shift(at))
        return gradient if self.slope is None else gradient + self.slope

    def hvp(self, at: PointLike, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """``H v``, the same everywhere."""
        return self._times(v)

    def _shift(self, at: PointLike) -> Tensor:
        theta = as_point(at).theta
        return theta if self.center is None else theta - self.center

    def _times(self, v: Tensor) -> Tensor:
        h = self.hessian.to(v)
        return v * h if h.ndim == 1 else v @ h


class Autograd(Field):
    """The field of any differentiable function of theta."""

    def __init__(self, function, dim: int) -> None:
        self.function = function
        self._dim = dim

    @property
    def dim(self) -> int:
        """D."""
        return self._dim

    def evaluate(self, at: PointLike) -> Evaluation:
        """The function's value."""
        with torch.no_grad():
            return Evaluation(float(self.function(as_point(at).theta)))

    def grad(self, at: PointLike) -> Float[Tensor, "D"]:
        """The gradient by reverse-mode differentiation."""
        theta = as_point(at).theta.detach().requires_grad_()
        return torch.autograd.grad(self.function(theta), theta)[0]

    def hvp(self, at: PointLike, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """The Hessian product by double reverse-mode differentiation."""
        theta = as_point(at).theta.detach().requires_grad_()
        return hessian_products(self.function(theta), theta, v)


class Wells(Autograd):
    """``-s^2 log sum_i exp(-|theta - c_i|^2 / 2 s^2)``: smooth wells around the rows c_i of ``centers``, s = ``width``.

    The saddle between two isolated wells lies half-way between their centres, so path maxima and merge trees are known.
    """

    def __init__(self, centers: Float[Tensor, "wells D"], width: float = 0.5) -> None:
        def function(theta: Tensor) -> Tensor:
            squares = ((theta - centers.to(theta)) ** 2).sum(dim=1)
            return -torch.logsumexp(-squares / (2 * width**2), dim=0) * width**2

        super().__init__(function, centers.shape[1])
