"""The interfaces that estimators use: `Field`, `Likelihood`, and `Stochastic` for losses given batch by batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import nan
from typing import Any

from sublevel._types import Float, Tensor
from sublevel.numerics import ieee_methods
from sublevel.space import Point, as_point

PointLike = Point | Tensor

MEASURES = frozenset(
    {
        *("loss", "evaluate", "evaluations", "evaluation_and_grad", "evaluation_and_correct", "grad", "hvp"),
        *("losses", "ggn_vp", "fisher_vp", "example_grads", "loss_and_grad"),
    }
)
"""The methods of a field that compute in float32. TF32 is off in each of them, also in a user's class."""


@dataclass(frozen=True)
class Evaluation:
    """The result of one pass over a field's examples.

    ``loss`` is the mean loss, ``error`` the share of wrong answers in [0, 1] (nan if the field has none), ``examples``
    the number of examples (1 for closed forms).
    """

    loss: float
    error: float = nan
    examples: int = 1


class Field(ABC):
    """A scalar function on R^D, twice differentiable almost everywhere.

    Gradients have shape [D]. ``hvp`` takes one vector [D] or several [K, D], returns the same shape, and reads the data
    once for all of them.
    """

    policy: str = "none"
    """The buffers that belong to a theta (see `EmpiricalRisk`); ``none`` if there is no choice."""
    examples: int = 1
    """N if the loss is a mean over N examples; 1 for closed forms."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        ieee_methods(cls, MEASURES)

    @property
    @abstractmethod
    def dim(self) -> int:
        """D."""

    def point(self, at: PointLike) -> Point:
        """Convert ``at``, a point or a plain vector, to the point that the field evaluates.

        Raises ModelError if the field reads buffers that ``at`` lacks.
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
        """The same loss with BatchNorm's statistics recomputed at every point; self if it reads no stored ones."""
        return self

    def loss(self, at: PointLike) -> float:
        """The loss alone."""
        return self.evaluate(at).loss

    def evaluations(self, points: Iterable[PointLike]) -> list[Evaluation]:
        """Loss and error at many points, in order; bit for bit the results of `evaluate`."""
        return [self.evaluate(at) for at in points]

    def evaluation_and_grad(self, at: PointLike) -> tuple[Evaluation, Float[Tensor, "D"]]:
        """Loss, error and gradient at one point."""
        return self.evaluate(at), self.grad(at)


class Likelihood(Field):
    """The mean over N examples of a loss of a model's outputs: ``L(theta) = 1/N sum_i l(z_i(theta), y_i)``.

    Besides the Hessian it has two matrices that are positive semi-definite (for a convex l): the generalised
    Gauss-Newton matrix (GGN), which omits the curvature of the outputs, and the Fisher matrix, which needs only first
    derivatives. Products take [D] or [K, D], as `hvp` does.
    """

    @abstractmethod
    def losses(self, at: PointLike) -> Float[Tensor, "N"]:
        """The loss of every example."""

    @abstractmethod
    def ggn_vp(self, at: PointLike, v: Float[Tensor, "*K D"]) -> Float[Tensor, "*K D"]:
        """``1/N sum_i J_i^T H_i J_i v``: J_i is the Jacobian of example i's outputs, H_i the Hessian of its loss in the
        outputs (Schraudolph 2002).
        """

    @abstractmethod
    def fisher_vp(
        self, at: PointLike, v: Float[Tensor, "*K D"], *, kind: str = "empirical", seed: int = 0
    ) -> Float[Tensor, "*K D"]:
        """``1/N sum_i g_i g_i^T v``, g_i the gradient of example i's loss.

        ``empirical`` uses the given labels. ``monte-carlo`` draws one label per example from the model's distribution
        by ``seed``; its mean over seeds is the Fisher matrix (Kunstner et al. 2019).
        """

    @abstractmethod
    def example_grads(self, at: PointLike) -> Iterator[Float[Tensor, "B D"]]:
        """The gradient of every example's loss, in order, in chunks of examples."""


class Stochastic(ABC):
    """A loss given batch by batch in a planned order; curves and samplers train on it.

    It is not a `Field`: two calls at one point differ, so estimators of a function refuse it. Step i always has the
    same batch.
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
        """N, the number of examples that batches are drawn from (1 for closed forms)."""

    @abstractmethod
    def loss_and_grad(self, at: PointLike, step: int) -> tuple[Float[Tensor, ""], Float[Tensor, "D"]]:
        """The mean loss of a step's batch and its gradient; reads nothing back from the device."""
