"""What the blocks of a study's ``geometry`` share: which solutions to measure, and on which examples."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from sublevel.strict import Strict

T = TypeVar("T")
CHOOSES = "chooses cells"
Chooses = Annotated[T, CHOOSES]
"""An option that decides which cells a study has, and is no input of a cell."""

Subspace = Literal["own", "all", "next"]
"""The solution's own subspace, R^D, and the subspace that the next level would leave it."""

Policy = Literal["stored", "recomputed", "batch"]
Operator = Literal["hessian", "ggn", "adaptive"]


class Options(Strict):
    """The options of a measurement: those that its cells are computed with, and those that `Chooses` marks."""

    @classmethod
    @cache
    def inputs(cls) -> frozenset[str]:
        """The options that are inputs of its cells, and so part of their keys."""
        return frozenset(name for name, field in cls.model_fields.items() if CHOOSES not in field.metadata)

    def document(self) -> dict[str, Any]:
        """Those options as JSON: what a cell's key says of them."""
        return self.model_dump(mode="json", include=set(self.inputs()))


class Where(Options):
    """Which solutions to measure: by branch, level and number of seeds; absent means all."""

    branches: Chooses[tuple[str, ...] | None] = None
    levels: Chooses[tuple[int, ...] | None] = None
    seeds: Chooses[int | None] = Field(default=None, ge=0)

    def admits(self, branch: str, level: int, nth_seed: int) -> bool:
        """Whether a solution is asked for."""
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
