"""Fields: functions on points with a loss, an error, a gradient and Hessian products.

Geometry sees nothing else. A field over a network and a set of examples is an `EmpiricalRisk`; closed forms
(`Quadratic`, `Wells`) have known answers and prove the estimators. Weight decay is no part of a field unless it is
added with `plus_weight_decay`: it adds wd * I to the Hessian and moves the stationary point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import nan

import torch

from sublevel._types import Float, Tensor
from sublevel.space import Point, as_point

At = Point | Tensor


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a field's examples gives.

    ``loss`` is the mean loss, ``error`` the share of wrong answers in [0, 1] (nan where a field has none),
    ``examples`` their number (1 for closed forms).
    """

    loss: float
    error: float = nan
    examples: int = 1


class Field(ABC):
    """A scalar function on R^D, twice differentiable almost everywhere.

    Gradients have shape [D]. ``hvp`` takes one vector [D] or several [K, D] and answers in the same shape; for
    several it goes over the data once.
    """

    policy: str = "none"
    """Which buffers belong to a theta (see `EmpiricalRisk`); ``none`` where there are none to choose."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    @abstractmethod
    def evaluate(self, at: At) -> Evaluation:
        """Loss and error at a point, in one pass."""

    @abstractmethod
    def grad(self, at: At) -> Float[Tensor, "D"]:
        """The gradient of the loss."""

    @abstractmethod
    def hvp(self, at: At, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """The Hessian of the loss times v."""

    def loss(self, at: At) -> float:
        """The loss alone."""
        return self.evaluate(at).loss

    def plus_weight_decay(self, decay: float) -> Field:
        """The field with ``decay / 2 * |theta|^2`` added to its loss."""
        return Sum(self, Quadratic(torch.full((self.dim,), float(decay), dtype=torch.float64)))


class Stochastic(ABC):
    """A loss that is seen one batch at a time, in a planned order: what curves and samplers are trained on.

    It is no `Field`: two calls at one point differ, so estimators that differentiate a function refuse it. Step i
    always means the same batch.
    """

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """N, the number of examples that the batches are drawn from (1 for closed forms)."""

    @abstractmethod
    def loss_and_grad(self, at: At, step: int) -> tuple[Float[Tensor, ""], Float[Tensor, "D"]]:
        """The mean loss of the batch of a step, and its gradient; nothing is read back from the device."""


class EveryExample(Stochastic):
    """A field as the stochastic field whose every batch is all of it: the sampler's noise without the batches'.

    ``examples`` is N where the field is the mean over N of them (by default what its evaluation says).
    """

    def __init__(self, field: Field, examples: int | None = None) -> None:
        require_field(field, "EveryExample")
        self.field = field
        self._examples = examples

    @property
    def dim(self) -> int:
        """D."""
        return self.field.dim

    @property
    def examples(self) -> int:
        """N."""
        return 1 if self._examples is None else self._examples

    def loss_and_grad(self, at: At, step: int) -> tuple[Float[Tensor, ""], Float[Tensor, "D"]]:
        """Loss and gradient of the field."""
        theta = as_point(at).theta
        return theta.new_tensor(self.field.loss(at)), self.field.grad(at)


def require_field(field: object, who: str) -> None:
    """Refuse what is not a deterministic field, a `Stochastic` above all.

    Raises TypeError naming what was got.
    """
    if not isinstance(field, Field):
        why = ": its value changes from call to call" if isinstance(field, Stochastic) else ""
        raise TypeError(f"{who} needs a field (a deterministic function of a point), got {type(field).__name__}{why}")


class Quadratic(Field):
    """``1/2 (theta - center)^T H (theta - center) + g^T theta + offset``.

    ``hessian`` is a symmetric [D, D] matrix or the diagonal [D] of one. Its spectrum is that of H everywhere; its
    path maxima, volumes and determinants are known in closed form.

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

    def evaluate(self, at: At) -> Evaluation:
        """The value; a quadratic has no error."""
        x = self._shift(at)
        value = 0.5 * x @ self._times(x) + self.offset
        if self.slope is not None:
            value = value + self.slope @ as_point(at).theta
        return Evaluation(float(value))

    def grad(self, at: At) -> Float[Tensor, "D"]:
        """``H (theta - center) + g``."""
        gradient = self._times(self._shift(at))
        return gradient if self.slope is None else gradient + self.slope

    def hvp(self, at: At, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """``H v``, the same everywhere."""
        return self._times(v)

    def _shift(self, at: At) -> Tensor:
        theta = as_point(at).theta
        return theta if self.center is None else theta - self.center

    def _times(self, v: Tensor) -> Tensor:
        h = self.hessian.to(v)
        return v * h if h.ndim == 1 else v @ h


class Autograd(Field):
    """A field from any differentiable function of theta: the closed forms of the tests, and a user's own."""

    def __init__(self, function, dim: int) -> None:
        self.function = function
        self._dim = dim

    @property
    def dim(self) -> int:
        """D."""
        return self._dim

    def evaluate(self, at: At) -> Evaluation:
        """The function's value."""
        with torch.no_grad():
            return Evaluation(float(self.function(as_point(at).theta)))

    def grad(self, at: At) -> Float[Tensor, "D"]:
        """The gradient by reverse-mode differentiation."""
        theta = as_point(at).theta.detach().requires_grad_()
        return torch.autograd.grad(self.function(theta), theta)[0]

    def hvp(self, at: At, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """The Hessian product by double reverse-mode differentiation."""
        theta = as_point(at).theta.detach().requires_grad_()
        return hessian_products(self.function(theta), theta, v)


class Wells(Autograd):
    """``-log sum_i exp(-|theta - c_i|^2 / 2 s^2)`` scaled: smooth wells around the rows of ``centers``.

    With equal depths the saddle between two isolated wells is half-way between their centres, so path maxima and
    merge trees are known.
    """

    def __init__(self, centers: Float[Tensor, "wells D"], width: float = 0.5) -> None:
        def function(theta: Tensor) -> Tensor:
            squares = ((theta - centers.to(theta)) ** 2).sum(dim=1)
            return -torch.logsumexp(-squares / (2 * width**2), dim=0) * width**2

        super().__init__(function, centers.shape[1])


class Sum(Field):
    """The sum of two fields on one space; the error is that of the first."""

    def __init__(self, first: Field, second: Field) -> None:
        if first.dim != second.dim:
            raise ValueError(f"fields of dimension {first.dim} and {second.dim} have no sum")
        self.first, self.second = first, second
        self.policy = first.policy

    @property
    def dim(self) -> int:
        """D."""
        return self.first.dim

    def evaluate(self, at: At) -> Evaluation:
        """Losses added; error and number of examples of the first."""
        one = self.first.evaluate(at)
        return Evaluation(one.loss + self.second.loss(at), one.error, one.examples)

    def grad(self, at: At) -> Float[Tensor, "D"]:
        """Gradients added."""
        return self.first.grad(at) + self.second.grad(at)

    def hvp(self, at: At, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """Products added."""
        return self.first.hvp(at, v) + self.second.hvp(at, v)


def hessian_products(loss: Tensor, theta: Tensor, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
    """Products of the Hessian of ``loss`` at ``theta``, whose graph is given, with the rows of v."""
    (gradient,) = torch.autograd.grad(loss, theta, create_graph=True)
    if not gradient.requires_grad:  # the function is linear
        return torch.zeros_like(v)
    rows = v.reshape(-1, v.shape[-1])
    products = [
        torch.autograd.grad(gradient, theta, row, retain_graph=i + 1 < len(rows))[0] for i, row in enumerate(rows)
    ]
    return torch.stack(products).reshape(v.shape)
