"""What estimators see: fields, likelihoods, and losses that come one batch at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import nan
from typing import Any

import torch

from sublevel._types import Float, Tensor
from sublevel.precision import ieee_methods
from sublevel.space import Point, as_point

PointLike = Point | Tensor

MEASURES = frozenset(
    {
        *("loss", "evaluate", "evaluations", "evaluation_and_grad", "evaluation_and_correct", "grad", "hvp"),
        *("losses", "ggn_vp", "fisher_vp", "example_grads", "loss_and_grad"),
    }
)
"""The methods of a field that compute with float32 numbers: TF32 is off in each, whoever wrote the class."""


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
    examples: int = 1
    """N where the loss is the mean over N examples; 1 for closed forms."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        ieee_methods(cls, MEASURES)

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    def point(self, at: PointLike) -> Point:
        """``at`` as a point of this field: where a point or a plain vector becomes what the field computes at.

        Raises ModelError where the field reads buffers that ``at`` does not have.
        """
        return as_point(at)

    @abstractmethod
    def evaluate(self, at: PointLike) -> Evaluation:
        """Loss and error at a point, in one pass."""

    @abstractmethod
    def grad(self, at: PointLike) -> Float[Tensor, "D"]:
        """The gradient of the loss."""

    @abstractmethod
    def hvp(self, at: PointLike, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """The Hessian of the loss times v."""

    def recomputed(self) -> Field:
        """The same loss with BatchNorm's statistics computed anew at every point; itself where it reads none."""
        return self

    def loss(self, at: PointLike) -> float:
        """The loss alone."""
        return self.evaluate(at).loss

    def evaluations(self, points: Iterable[PointLike]) -> list[Evaluation]:
        """Loss and error at many points, in their order; to the bit what `evaluate` gives at each."""
        return [self.evaluate(at) for at in points]

    def evaluation_and_grad(self, at: PointLike) -> tuple[Evaluation, Float[Tensor, "D"]]:
        """Loss, error and gradient at one point."""
        return self.evaluate(at), self.grad(at)

    def plus_weight_decay(self, decay: float) -> Field:
        """The field with ``decay / 2 * |theta|^2`` added to its loss."""
        from sublevel.field.closed import Quadratic
        from sublevel.field.combined import Sum

        return Sum(self, Quadratic(torch.full((self.dim,), float(decay), dtype=torch.float64)))


class Likelihood(Field):
    """The mean over N examples of a loss of a model's outputs: ``L(theta) = 1/N sum_i l(z_i(theta), y_i)``.

    Beside the Hessian it has two matrices that are positive semi-definite (for a convex l): the generalised
    Gauss-Newton matrix, which leaves out the curvature of the outputs, and the Fisher matrix, which needs first
    derivatives only. Products take [D] or [K, D], as `hvp` does.
    """

    @abstractmethod
    def losses(self, at: PointLike) -> Float[Tensor, "N"]:
        """The loss of every example."""

    @abstractmethod
    def ggn_vp(self, at: PointLike, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """``1/N sum_i J_i^T H_i J_i v``, J_i the Jacobian of the outputs of example i and H_i the Hessian of its loss
        in them (Schraudolph 2002).
        """

    @abstractmethod
    def fisher_vp(
        self, at: PointLike, v: Float[Tensor, "*K D"], *, kind: str = "empirical", seed: int = 0
    ) -> Float[Tensor, "*K D"]:
        """``1/N sum_i g_i g_i^T v``, g_i the gradient of the loss of example i.

        With the labels as they are (``empirical``), or with one label per example drawn by ``seed`` from the model's
        own distribution (``monte-carlo``, whose mean over seeds is the Fisher matrix; Kunstner et al. 2019).
        """

    @abstractmethod
    def example_grads(self, at: PointLike) -> Iterator[Float[Tensor, "B D"]]:
        """The gradient of every example's loss, in order, a chunk of examples at a time."""


class Stochastic(ABC):
    """A loss that is seen one batch at a time, in a planned order: what curves and samplers are trained on.

    It is no `Field`: two calls at one point differ, so estimators that differentiate a function refuse it. Step i
    always means the same batch.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        ieee_methods(cls, MEASURES)

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    @property
    @abstractmethod
    def examples(self) -> int:
        """N, the number of examples that the batches are drawn from (1 for closed forms)."""

    @abstractmethod
    def loss_and_grad(self, at: PointLike, step: int) -> tuple[Float[Tensor, ""], Float[Tensor, "D"]]:
        """The mean loss of the batch of a step, and its gradient; nothing is read back from the device."""
