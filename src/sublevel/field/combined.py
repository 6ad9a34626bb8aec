"""Fields made from fields: sums, weight decay, restrictions to a mask, and a field as a stochastic one."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.field.base import Evaluation, Field, PointLike, Stochastic
from sublevel.field.checks import require_field
from sublevel.field.closed import Quadratic
from sublevel.space import Point, as_point


class Sum(Field):
    """The sum of two fields on one space; the error is that of the first."""

    def __init__(self, first: Field, second: Field) -> None:
        if first.dim != second.dim:
            raise ValueError(f"fields of dimension {first.dim} and {second.dim} have no sum")
        self.first, self.second = first, second
        self.policy, self.examples = first.policy, first.examples

    @property
    def dim(self) -> int:
        """D."""
        return self.first.dim

    def recomputed(self) -> Field:
        """The sum of both with recomputed statistics."""
        return Sum(self.first.recomputed(), self.second.recomputed())

    def point(self, at: PointLike) -> Point:
        """A point of both fields."""
        return self.second.point(self.first.point(at))

    def evaluate(self, at: PointLike) -> Evaluation:
        """Losses added; error and number of examples of the first."""
        one = self.first.evaluate(at)
        return Evaluation(one.loss + self.second.loss(at), one.error, one.examples)

    def grad(self, at: PointLike) -> Float[Tensor, "D"]:
        """Gradients added."""
        return self.first.grad(at) + self.second.grad(at)

    def hvp(self, at: PointLike, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """Products added."""
        return self.first.hvp(at, v) + self.second.hvp(at, v)


def plus_weight_decay(field: Field, decay: float) -> Field:
    """Add ``decay / 2 * |theta|^2`` to the loss of a field."""
    return Sum(field, Quadratic(torch.full((field.dim,), float(decay), dtype=torch.float64)))


class Restricted(Field):
    """A field on the n coordinates of a mask; all others, and the buffers, keep their values at ``at``.

    Points are vectors [n], in the order of the coordinates. Gradient and Hessian are blocks of those of the field.

    Raises ValueError for a mask of another length than the field's dimension, or one that keeps no coordinate.

    >>> inside = Restricted(Quadratic(torch.tensor([1.0, 4.0])), torch.tensor([False, True]), torch.tensor([2.0, 1.0]))
    >>> inside.start, inside.loss(inside.start), inside.grad(inside.start)
    (tensor([1.]), 4.0, tensor([4.]))
    """

    def __init__(self, field: Field, mask: Bool[Tensor, "_"], at: PointLike) -> None:
        require_field(field, "Restricted")
        if len(mask) != field.dim:
            raise ValueError(f"a mask of length {len(mask)} does not fit a field of dimension {field.dim}")
        if not bool(mask.any()):
            raise ValueError("the mask leaves no coordinate: a field of dimension 0 has no gradient")
        self.field, self.at = field, field.point(at)
        self.index = mask.to(self.at.theta.device).nonzero().squeeze(1)
        self.policy, self.examples = field.policy, field.examples
        self._lifted: tuple[Tensor, int, Point] | None = None

    @property
    def dim(self) -> int:
        """The dimension n of the subspace."""
        return len(self.index)

    @property
    def start(self) -> Float[Tensor, "n"]:
        """The coordinates of ``at``."""
        return self.at.theta[self.index]

    def recomputed(self) -> Field:
        """The restriction of the field with recomputed statistics."""
        twin = copy(self)
        twin.field = self.field.recomputed()
        twin.policy = twin.field.policy
        return twin

    def evaluate(self, at: PointLike) -> Evaluation:
        """Loss and error of the field at the point in R^D."""
        return self.field.evaluate(self.lift(at))

    def evaluations(self, points: Iterable[PointLike]) -> list[Evaluation]:
        """Loss and error of the field at the points in R^D."""
        return self.field.evaluations(map(self.lift, points))

    def grad(self, at: PointLike) -> Float[Tensor, "n"]:
        """The gradient's entries in the mask."""
        return self.field.grad(self.lift(at))[self.index]

    def hvp(self, at: PointLike, v: Float[Tensor, "*K n"]) -> Float[Tensor, "*K n"]:
        """The Hessian's block times v."""
        inside = v.new_zeros((*v.shape[:-1], self.field.dim)).index_copy_(-1, self.index, v)
        return self.field.hvp(self.lift(at), inside)[..., self.index]

    def lift(self, at: PointLike) -> Point:
        """The point in R^D of a vector [n]; the same object for the same vector, so that a field can cache by it.

        Raises ValueError for a vector of another length.
        """
        vector = as_point(at).theta
        if len(vector) != self.dim:
            raise ValueError(f"a vector of length {len(vector)} does not fit a restriction of dimension {self.dim}")
        version = vector._version
        if self._lifted is None or self._lifted[0] is not vector or self._lifted[1] != version:
            theta = self.at.theta.detach().index_copy(0, self.index, vector.detach())
            self._lifted = (vector, version, Point(theta, self.at.buffers))
        return self._lifted[2]


class EveryExample(Stochastic):
    """A field as a stochastic field whose every batch is the whole data set: no gradient noise.

    ``examples`` is N; the default is `Field.examples`.
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
        return self.field.examples if self._examples is None else self._examples

    def loss_and_grad(self, at: PointLike, step: int) -> tuple[Float[Tensor, ""], Float[Tensor, "D"]]:
        """Loss and gradient of the field."""
        theta = as_point(at).theta
        return theta.new_tensor(self.field.loss(at)), self.field.grad(at)
