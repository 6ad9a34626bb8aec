"""The registry of pruning criteria.

A criterion is one function ``(point, field, generator) -> [D]`` and one line of registration. Keyword-only parameters
with the names of fields of `ScoreContext` request further inputs.
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
    """The scores of all weights; those with the lowest ``values`` [D] are removed first.

    ``update(mask)`` returns new weights [D] for the mask, if the criterion compensates the removed weights; else it is
    None.
    """

    values: Float[Tensor, "D"]
    update: Update | None = None


@dataclass(frozen=True)
class ScoreContext:
    """Inputs that a score may request by a keyword, besides the point, the loss and random numbers."""

    space: Space
    """The layers of theta and its prunable coordinates."""
    mask: Bool[Tensor, "D"]
    """The remaining weights; scores of the others are ignored."""
    start: Point | None = None
    """The point at which the training that ended in the point began."""
    flow: Field | None = None
    """The response of the absolute weights to an input of ones (see `sublevel.risk.synflow`)."""


ASKABLE = tuple(f.name for f in fields(ScoreContext))
MEANING = {"start": "the point that training started from", "flow": "the network's response to ones"}

Score = Callable[..., Tensor | Scores]


@dataclass(frozen=True)
class Criterion:
    """A registered score. A call runs its function; `look` also supplies the requested inputs and checks the result."""

    name: str
    function: Score
    draws: bool = False
    """The score uses the generator: its masks depend on the seed."""
    rounds: int = 1
    """Number of pruning rounds, with exponentially falling counts and new scores in each."""
    updates: bool = False
    """The score returns new values for the remaining weights."""
    passes: float = 0.0
    """Approximate cost of a mask, in forward and backward passes over the examples; only for the plan."""
    needs: tuple[str, ...] = ()
    """The fields of `ScoreContext` that it requests."""

    @property
    def nests(self) -> bool:
        """Whether its masks of one point are nested: scores do not depend on the number of weights to keep."""
        return not self.draws and self.rounds == 1

    @property
    def own(self) -> bool:
        """Whether it is a user's criterion, defined outside this package."""
        return self.function.__module__.partition(".")[0] != __name__.partition(".")[0]

    def __call__(self, point: Point, field: Field | None, generator: torch.Generator, **asked: object):
        """Call the function with the requested inputs by keyword."""
        return self.function(point, field, generator, **asked)

    def look(self, point: Point, field: Field | None, generator: torch.Generator, context: ScoreContext) -> Scores:
        """Score a point.

        Raises ConfigError with the name of the criterion if a requested input is missing, or its scores are not one
        number per coordinate.
        """
        asked = {name: getattr(context, name) for name in self.needs}
        for name, given in asked.items():
            if given is None:
                raise ConfigError(f"criterion {self.name!r} needs {MEANING[name]}, which is not known here")
        found = self.function(point, field, generator, **asked)
        if not isinstance(found, Scores):
            if not isinstance(found, Tensor) or found.ndim != 1 or not found.is_floating_point():
                a_tensor = isinstance(found, Tensor)
                got = f"a tensor {found.dtype} of shape {list(found.shape)}" if a_tensor else type(found)
                raise ConfigError(f"criterion {self.name!r} must give a vector of real numbers, got {got}")
            found = Scores(found.detach())
        _check(found, self, context)
        return found


SCORES: dict[str, Criterion] = {}


def score(
    name: str, *, draws: bool = False, rounds: int = 1, updates: bool = False, passes: float = 0.0
) -> Callable[[Score], Score]:
    """Register a criterion under a name: ``draws`` if it uses the generator, ``rounds`` if it is iterated.

    ``updates`` if it returns `Scores` with an update; ``passes`` for the plan. Keyword-only parameters of the function
    request fields of `ScoreContext`. Raises ConfigError for an unknown field.

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
    """The criterion of a name; raises ConfigError with the nearest name for an unknown one."""
    if name not in SCORES:
        raise unknown("pruning score", name, SCORES)
    return SCORES[name]


def _check(scores: Scores, criterion: Criterion, context: ScoreContext) -> None:
    """Require scores of the right length, an update as registered, and no nan among the remaining weights."""
    values, name, dim = scores.values, criterion.name, context.space.dim
    if len(values) != dim:
        raise ConfigError(f"criterion {name!r} gave {len(values)} scores for the {dim} coordinates of the network")
    if (scores.update is not None) != criterion.updates:
        returns = "return no update" if criterion.updates else "return an update"
        raise ConfigError(
            f"criterion {name!r} is registered with updates={criterion.updates}, but its scores {returns}"
        )
    for layer in context.space.prunable_layers:
        bad = values[layer.coordinates].isnan() & context.mask[layer.coordinates].to(values.device)
        if bool(bad.any()):
            raise ConfigError(f"criterion {name!r} gave nan for {int(bad.sum())} of the weights of {layer.name}")
