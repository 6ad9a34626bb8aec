"""The registry of pruning criteria: what a score is given, what it gives back, and how it is run.

A criterion is one function ``(point, field, generator) -> [D]`` and one line of registration. What else it looks at it
asks for by name, as keyword-only parameters: any of the fields of `ScoreContext`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ConfigError, unknown
from sublevel.field import Field
from sublevel.space import Point, Space

Update = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Scores:
    """What every weight is worth: those with the lowest ``values`` [D] go first.

    ``update(mask)`` gives the weights [D] that the criterion would go on from once the mask is known (a surgeon moves
    the survivors to make up for the removed ones); None where it leaves them as they are.
    """

    values: Float[Tensor, "D"]
    update: Update | None = None


@dataclass(frozen=True)
class ScoreContext:
    """What a score may ask for, beside a point, the loss and random numbers, by a keyword of that name."""

    space: Space
    """The layers of theta, and which of its coordinates may be pruned."""
    mask: Bool[Tensor, "D"]
    """The weights that are left: the scores of the others are not looked at."""
    start: Point | None = None
    """Where the training that ended in the point began."""
    flow: Field | None = None
    """What the absolute weights pass on of an input of ones (see `sublevel.risk.synflow`)."""


ASKABLE = tuple(f.name for f in fields(ScoreContext))
MEANING = {"start": "the point that training started from", "flow": "the network's response to ones"}

Score = Callable[..., Tensor | Scores]


@dataclass(frozen=True)
class Criterion:
    """A registered score. Called, it is its function; `look` runs it with what it asks for and checks the answer."""

    name: str
    function: Score
    draws: bool = False
    """It uses the generator: its masks depend on the seed."""
    rounds: int = 1
    """Pruning is spread over so many rounds, at exponentially falling counts, with new scores in each."""
    updates: bool = False
    """It gives new values to the weights that stay."""
    passes: float = 0.0
    """About what a mask costs, in forward and backward passes over the examples shown: for the plan alone."""
    needs: tuple[str, ...] = ()
    """The fields of `ScoreContext` that it asks for."""

    @property
    def nests(self) -> bool:
        """Whether its masks of one point are nested: its scores do not depend on how many weights are to stay."""
        return not self.draws and self.rounds == 1

    @property
    def own(self) -> bool:
        """Whether it is the user's own, and not one of the package."""
        return self.function.__module__.partition(".")[0] != __name__.partition(".")[0]

    def __call__(self, point: Point, field: Field | None, generator: torch.Generator, **asked: object):
        """The function's own answer, with what it asks for given by keyword."""
        return self.function(point, field, generator, **asked)

    def look(self, point: Point, field: Field | None, generator: torch.Generator, context: ScoreContext) -> Scores:
        """Score a point.

        Raises ConfigError naming the criterion where something that it asks for is not known, or where its scores are
        not one number per coordinate.
        """
        asked = {name: getattr(context, name) for name in self.needs}
        for name, given in asked.items():
            if given is None:
                raise ConfigError(f"criterion {self.name!r} needs {MEANING[name]}, which is not known here")
        found = self.function(point, field, generator, **asked)
        scores = found if isinstance(found, Scores) else Scores(_vector(found, self.name))
        _check(scores, self, context)
        return scores


SCORES: dict[str, Criterion] = {}


def score(
    name: str, *, draws: bool = False, rounds: int = 1, updates: bool = False, passes: float = 0.0
) -> Callable[[Score], Score]:
    """Register a criterion under its name: ``draws`` if it uses the generator, ``rounds`` if it is iterated.

    ``updates`` if it answers with `Scores` that move the weights which stay; ``passes`` for the plan. Keyword-only
    parameters of the function ask for fields of `ScoreContext`. ConfigError where there is no such field.

    >>> @score("growth")
    ... def growth(point, field, generator, *, start):
    ...     return point.theta.abs() - start.theta.abs()
    >>> SCORES.pop("growth").needs
    ('start',)
    """

    def register(function: Score) -> Score:
        parameters = inspect.signature(function).parameters.values()
        needs = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
        for need in needs:
            if need not in ASKABLE:
                raise unknown(f"parameter of criterion {name!r}", need, ASKABLE)
        SCORES[name] = Criterion(name, function, draws, rounds, updates, passes, needs)
        return function

    return register


def score_function(name: str) -> Criterion:
    """A criterion by its name; ConfigError with the nearest one if there is none."""
    if name not in SCORES:
        raise unknown("pruning score", name, SCORES)
    return SCORES[name]


def _vector(found: object, name: str) -> Tensor:
    """The tensor that a score answered with, as a vector of numbers."""
    if not isinstance(found, Tensor) or found.ndim != 1 or not found.is_floating_point():
        got = f"a tensor {found.dtype} of shape {list(found.shape)}" if isinstance(found, Tensor) else type(found)
        raise ConfigError(f"criterion {name!r} must give a vector of real numbers, got {got}")
    return found.detach()


def _check(scores: Scores, criterion: Criterion, context: ScoreContext) -> None:
    """Refuse scores of another length, and nan among those that count."""
    values, name, dim = scores.values, criterion.name, context.space.dim
    if len(values) != dim:
        raise ConfigError(f"criterion {name!r} gave {len(values)} scores for the {dim} coordinates of the network")
    if (scores.update is not None) != criterion.updates:
        says = "updates=True" if criterion.updates else "updates=False"
        raise ConfigError(f"criterion {name!r} is registered with {says}, which its scores do not bear out")
    for layer in context.space.prunable_layers:
        bad = values[layer.coordinates].isnan() & context.mask[layer.coordinates].to(values.device)
        if bool(bad.any()):
            raise ConfigError(f"criterion {name!r} gave nan for {int(bad.sum())} of the weights of {layer.name}")
