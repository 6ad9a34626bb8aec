"""Options that the blocks of a study's ``geometry`` share: the solutions to measure, and the examples."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from sublevel.strict import Strict

T = TypeVar("T")
CHOOSES = "chooses cells"
Chooses = Annotated[T, CHOOSES]
"""Marks an option that decides which cells a study has; it is not an input of a cell."""

Subspace = Literal["own", "all", "next"]
"""The solution's own subspace, R^D, and the subspace of the next level's mask."""

Policy = Literal["stored", "recomputed", "batch"]
Operator = Literal["hessian", "ggn", "adaptive"]


class Options(Strict):
    """The options of a measurement: inputs of its cells, and those that `Chooses` marks."""

    @classmethod
    @cache
    def inputs(cls) -> frozenset[str]:
        """The options that are inputs of its cells, and thus part of their keys."""
        return frozenset(name for name, field in cls.model_fields.items() if CHOOSES not in field.metadata)

    def document(self) -> dict[str, Any]:
        """These options as JSON, for the key of a cell."""
        return self.model_dump(mode="json", include=set(self.inputs()))


class Where(Options):
    """Which solutions to measure: by branch, level and number of seeds; absent means all."""

    branches: Chooses[tuple[str, ...] | None] = None
    levels: Chooses[tuple[int, ...] | None] = None
    seeds: Chooses[int | None] = Field(default=None, ge=0)

    def admits(self, branch: str, level: int, nth_seed: int) -> bool:
        """Whether a solution is among those to measure."""
        return (
            (self.branches is None or branch in self.branches)
            and (self.levels is None or level in self.levels)
            and (self.seeds is None or nth_seed < self.seeds)
        )


class Examples(Where):
    """Where to measure, and on which training examples: ``size`` of them (absent: all), under a buffer policy.

    ``parts`` disjoint subsets are measured one by one, the same at every level: five of a fifth each show how much a
    number depends on the choice of examples.
    """

    size: int | None = Field(default=None, ge=1)
    policy: Policy = "stored"
    parts: Chooses[int] = Field(default=1, ge=1)
