"""Kinds of cells: the arguments of their computations, their results, and their registry.

The inputs of a cell are JSON in which every object is a digest, so its key identifies everything it is computed from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

from sublevel._types import Bool, Tensor
from sublevel.codec import mask_of, point_of
from sublevel.engine.store import Store
from sublevel.problem import Problem
from sublevel.risk import EmpiricalRisk
from sublevel.space import Point
from sublevel.study.options import Examples, Options
from sublevel.train.recipe import Recipe
from sublevel.train.resume import Checkpointer
from sublevel.train.setup import TrainingSetup, Watch

Json = Any

Row = dict[str, Any]
Rows = Iterator[tuple[str, Row]]
"""(table, row) pairs."""

BESIDE = "levels (more columns)"
"""The table name for columns that a cell adds to a solution's row of ``levels``."""

KEEP = 2**29
"""Bytes of graphs that a cell keeps between its Hessian products; they change only its speed."""


@dataclass(frozen=True)
class Output:
    """The result of a computation: JSON ``values`` and named ``objects`` of tensors."""

    values: dict[str, Json] = field(default_factory=dict)
    objects: dict[str, dict[str, Tensor]] = field(default_factory=dict)


class TrainingInputs(TypedDict):
    """The inputs of every cell that trains: the recipe as a document, the seed, and the name of the data order."""

    recipe: Json
    seed: int
    order: str


@dataclass(frozen=True)
class Context:
    """The context of a computation: the problem, the store to load from, a callback for progress, and a checkpointer
    that lets an interrupted training resume.
    """

    problem: Problem
    store: Store
    progress: Callable[[dict[str, Json]], None] = lambda row: None
    checkpointer: Checkpointer | None = None
    keep_bytes: int = KEEP

    def point(self, name: str, mask: str | None = None) -> Point:
        """A stored point on the problem's device, projected if a mask is given."""
        point = stored_point(self.store, name).to(self.problem.device)
        chosen = self.mask(mask)
        return point if chosen is None else point.project(chosen)

    def mask(self, name: str | None) -> Bool[Tensor, "D"] | None:
        """A stored mask on the problem's device; None for the dense network."""
        return None if name is None else stored_mask(self.store, name).to(self.problem.device)

    def training(self, watch: Watch, **inputs: Unpack[TrainingInputs]) -> TrainingSetup:
        """The setup of a training that is computed here."""
        recipe, seed, order = Recipe.from_document(inputs["recipe"]), inputs["seed"], inputs["order"]
        return self.problem.setup(recipe=recipe, seed=seed, order=order, watch=watch, checkpointer=self.checkpointer)

    def field(self, options: Examples, part: int, **how: Any) -> EmpiricalRisk:
        """The loss on a part of the training examples, by the options of a measurement, ready for Hessian products."""
        how = {"keep_bytes": self.keep_bytes, **how}
        return self.problem.field("train", size=options.size, policy=options.policy, part=part, **how)


Extract = Callable[[Mapping[str, Any], Row, Row], Rows]
Cost = Callable[[Mapping[str, Any], Mapping[str, int]], float]


def no_rows(study: Mapping[str, Any], labels: Row, entry: Row) -> Rows:
    """No rows: other cells are computed from this one."""
    return iter(())


def no_cost(inputs: Mapping[str, Any], sizes: Mapping[str, int]) -> float:
    """The cost of a cell that takes hardly any time."""
    return 0.0


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of cell: its computation, its rows in the tables, and its cost.

    ``compute(context, options, **others)`` receives the inputs that are fields of ``options`` as one object, and the
    others by name; without ``options`` it receives all of them by name. A kind whose numbers change gets a new
    ``version``, which is part of its key. ``rows(study, labels, entry)`` gives pairs of a table and a row; ``study`` is
    the resolved study as JSON. ``cost(inputs, sizes of the splits)`` is in forward and backward passes of one example;
    results do not depend on it. Several processes may compute a cell that ``trains`` together. One with ``products``
    takes Hessian products, whose graphs are kept in memory.
    """

    name: str
    version: int
    compute: Callable[..., Output]
    rows: Extract = no_rows
    cost: Cost = no_cost
    options: type[Options] | None = None
    trains: bool = False
    products: bool = False

    def run(self, context: Context, inputs: Mapping[str, Any]) -> Output:
        """Compute a cell from its inputs."""
        if self.options is None:
            return self.compute(context, **inputs)
        own = self.options.inputs()
        options = self.options.model_validate({name: value for name, value in inputs.items() if name in own})
        return self.compute(context, options, **{name: value for name, value in inputs.items() if name not in own})


KINDS: dict[str, Kind] = {}


def cell(name: str, version: int, compute: Callable[..., Output], **more: Any) -> Kind:
    """Register a kind of cell under its name (see `Kind`)."""
    KINDS[name] = Kind(name=name, version=version, compute=compute, **more)
    return KINDS[name]


def used(inputs: Mapping[str, Any], sizes: Mapping[str, int], split: str = "train") -> int:
    """The number of examples of a split that a cell uses."""
    return min(inputs.get("size") or sizes[split], sizes[split])


def stored_point(store: Store, name: str) -> Point:
    """A stored point, on the CPU."""
    return point_of(store.get_tensors(name))


def stored_mask(store: Store, name: str) -> Bool[Tensor, "D"]:
    """A stored mask, on the CPU."""
    return mask_of(store.get_tensors(name))
