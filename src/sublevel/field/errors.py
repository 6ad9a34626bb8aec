"""The error of a field as a function, for sublevel sets of the error."""

from __future__ import annotations

from collections.abc import Iterable
from math import isnan

from sublevel._types import Float, Tensor
from sublevel.field.base import Evaluation, Field, PointLike
from sublevel.field.checks import require_field
from sublevel.space import Point


class ErrorRate(Field):
    """The error of a field in place of its loss: the share of wrong answers, in [0, 1].

    Estimators that only evaluate (`segment`, `profile`, planes, `radial`, the disconnectivity graph) then work with
    sublevel sets {error <= e}. The error is a step function of theta: it has no useful gradient, so `grad` and `hvp`
    raise TypeError. It changes by 1/N at least, so a height below 1/N is the height of one example.

    Raises TypeError for a stochastic field. `evaluate` raises ValueError if the field has no error.

    >>> import torch
    >>> from sublevel.field import Autograd
    >>> class Disc(Autograd):
    ...     def evaluate(self, at):
    ...         return Evaluation(super().evaluate(at).loss, error=float(self.point(at).theta.norm() > 2))
    >>> disc = ErrorRate(Disc(lambda theta: theta.square().sum(), 2))
    >>> disc.loss(torch.tensor([0.0, 1.9])), disc.loss(torch.tensor([0.0, 2.1]))
    (0.0, 1.0)
    """

    def __init__(self, field: Field) -> None:
        require_field(field, "ErrorRate")
        self.field, self.policy, self.examples = field, field.policy, field.examples

    @property
    def dim(self) -> int:
        """D."""
        return self.field.dim

    def point(self, at: PointLike) -> Point:
        """A point of the field."""
        return self.field.point(at)

    def recomputed(self) -> Field:
        """The error with recomputed statistics."""
        return ErrorRate(self.field.recomputed())

    def evaluate(self, at: PointLike) -> Evaluation:
        """The error, as the loss and as the error."""
        return self.evaluations([at])[0]

    def evaluations(self, points: Iterable[PointLike]) -> list[Evaluation]:
        """The errors at many points, in order."""
        found = self.field.evaluations(points)
        if any(isnan(e.error) for e in found):
            raise ValueError(f"{type(self.field).__name__} has no error: only classification has")
        return [Evaluation(e.error, e.error, e.examples) for e in found]

    def grad(self, at: PointLike) -> Float[Tensor, "D"]:
        """Raises TypeError."""
        raise TypeError("the error is a step function: it has no gradient that an estimator could use")

    def hvp(self, at: PointLike, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """Raises TypeError."""
        raise TypeError("the error is a step function: it has no Hessian that an estimator could use")
