"""The builder of one seed, with which a branch adds its cells, and the registry of branches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any
from uuid import uuid4

from sublevel.engine.graph import Graph, Node, Ref
from sublevel.errors import ConfigError
from sublevel.models.source import NoSource, function_digest
from sublevel.prune import Criterion, score_function
from sublevel.prune.select import protected
from sublevel.space import Space
from sublevel.study.levels import remaining
from sublevel.study.solutions import SolutionsSpec
from sublevel.train.recipe import Duration


@dataclass(frozen=True)
class Solution:
    """A trained network of a study: its end point, its mask (None: dense) and its start before masking."""

    branch: str
    level: int
    seed: int
    order: str
    train: Node
    mask: Ref | None
    start: Ref
    pruned: Ref | None = None
    """The point from which its mask was made; None if it was not pruned."""
    base: str = ""
    """The registered branch behind the label; ``dense`` for the dense network, ``given`` for points from elsewhere."""
    fraction: float = 0.0
    """The share of the remaining weights that each level prunes, if it differs from the study's."""
    criterion: str = ""
    """The criterion of its masks, if it differs from the study's."""

    @property
    def end(self) -> Ref:
        """The end point."""
        return Ref(self.train.id, "end")

    @property
    def labels(self) -> dict[str, Any]:
        """Branch, level and seed, which identify it in the tables."""
        return {"branch": self.branch, "level": self.level, "seed": self.seed}


Branch = Callable[["Builder", int], Solution]
BRANCHES: dict[str, Branch] = {}
OPTIONS: dict[str, dict[str, Any]] = {}


ABOUT: dict[str, dict[str, str]] = {}
"""Branch -> a ``summary`` in a few words, and the key of its source (``cite``)."""


def branch(name: str, *, summary: str = "", cite: str = "", **options: Any) -> Callable[[Branch], Branch]:
    """Register a branch, its options with their defaults, and its words in reports.

    ``summary`` completes "it was compared with ..."; ``cite`` is a key of `sublevel.report.references.WORKS`.
    """

    def register(function: Branch) -> Branch:
        BRANCHES[name], OPTIONS[name], ABOUT[name] = function, options, {"summary": summary, "cite": cite}
        return function

    return register


@dataclass
class Builder:
    """Adds the cells of branches to the graph, for one seed."""

    spec: SolutionsSpec
    space: Space
    examples: int
    graph: Graph
    seed: int
    order: str = "shared"
    label: str = "imp"
    name: str = "imp"
    options: Mapping[str, Any] = field(default_factory=dict)
    memo: dict[tuple[Any, ...], Solution] = field(default_factory=dict)
    left: Sequence[Duration] = ()
    """The steps at which measurements need a checkpoint of the dense run."""
    first: Solution | None = None
    """The given point that takes the place of the dense network, in a study that trains nothing."""

    @property
    def rewind(self) -> int:
        """The rewind step k: the study's, or the branch's own, which must be a checkpoint of the dense run."""
        if not (own := self.options.get("rewind")):
            return self.spec.rewind.steps(self.per_epoch)
        try:
            step = Duration.parse(own).steps(self.per_epoch)
        except ValueError as error:
            raise ConfigError(f"branch {self.label!r}: rewind: {error}") from None
        if step >= self.steps:
            raise ConfigError(f"branch {self.label!r}: rewind {own} is step {step}, past the end at {self.steps}")
        if step not in self.marks:
            raise ConfigError(
                f"branch {self.label!r}: rewind {own} is step {step}, where the dense run stores no checkpoint; "
                f'add "{own}" to train.checkpoints'
            )
        return step

    @property
    def marks(self) -> list[int]:
        """The steps at which the dense run stores a checkpoint for other runs."""
        kept = (d.steps(self.per_epoch) for d in self.spec.train.checkpoints)
        return sorted({self.spec.rewind.steps(self.per_epoch), *kept})

    @property
    def per_epoch(self) -> int:
        """Steps in an epoch."""
        return self.spec.train.steps_per_epoch(self.examples)

    @property
    def steps(self) -> int:
        """Steps of the dense run."""
        return self.spec.train.steps(self.examples)

    @property
    def rewound(self) -> Ref:
        """The dense network's point at the rewind step."""
        return Ref(self.dense().train.id, f"step-{self.rewind}")

    def dense(self) -> Solution:
        """The dense network: level 0 of every branch."""
        if self.first is not None:
            return self.first
        left = (duration.steps(self.per_epoch) for duration in self.left)
        marks = [*self.marks, *(step for step in left if step)]
        plain = replace(self, label="dense", name="dense", order=self.spec.order, options={})
        if self.spec.dense_start == "init" or not plain.rewind:
            done = plain.train(0, start={"init": "init"}, mask=None, first=0, marks=marks)
        else:
            done = plain.train(0, start={"point": plain.opening()}, mask=None, marks=marks)
        return replace(done, base="dense")

    def opening(self) -> Ref:
        """The end of a first run, from the initialisation to the rewind step."""
        done = self._inputs(start={"init": "init"}, order="" if self.order == "shared" else "opening", last=self.rewind)
        labels = {"branch": f"dense (to step {self.rewind})", "level": 0, "seed": self.seed}
        return Ref(self.graph.add(Node(f"train/dense/L0/s{self.seed}/opening", "train", done, labels)).id, "end")

    def solve(self, name: str, level: int) -> Solution:
        """The solution of another branch at a level, under this builder's data order."""
        if level == 0:
            return self.dense()
        same = name == self.name
        called = name if self.order == self.spec.order else f"{name}-{self.order}"
        other = self if same else replace(self, name=name, label=called, options=OPTIONS[name])
        key = (other.label, other.order, level)
        if key not in self.memo:
            self.memo[key] = replace(BRANCHES[name](other, level), base=name)
        return self.memo[key]

    def keep(self, level: int) -> list[int]:
        """The exact counts of weights at a level, by the branch's own fraction if it has one."""
        return remaining(self.spec, self.space, level, self.options.get("fraction", 0.0))

    def leaves(self, level: int) -> bool:
        """Whether a level leaves any weight, and everything that the study protects."""
        try:
            return sum(self.keep(level)) > 0
        except ConfigError:
            return False

    @property
    def criterion(self) -> Criterion:
        """The branch's own criterion, or the study's."""
        return score_function(self.options.get("criterion") or self.spec.criterion)

    @property
    def spared(self) -> dict[str, Any]:
        """The inputs that name protected weights; counts per layer protect them by themselves."""
        across, protect = self.spec.scope == "global", self.spec.protect
        named = {"protect": protected(self.space, protect)} if across and protect else {}
        return named | ({"floor": self.spec.floor} if across and self.spec.floor else {})

    @property
    def chooser(self) -> dict[str, Any]:
        """The inputs that name the criterion."""
        code = criterion_code(self.criterion)
        return {"criterion": self.criterion.name} | ({} if code is None else {"code": code})

    def prune(self, point: Ref, parent: Ref | None, level: int, tag: str) -> Ref:
        """The mask of a point by the branch's criterion, nested in ``parent``, with the count of the level.

        Raises ConfigError if the criterion reads the start of a training and the point was not trained here.
        """
        inputs = {**self.chooser, "point": point, "parent": parent, "keep": self.keep(level), **self.spared}
        if self.criterion.draws:
            inputs |= {"seed": self.seed, "stream": f"prune:{tag}:{level}"}
        if "start" in self.criterion.needs:
            inputs |= {"start": self._began(point)}
        return self._mask(tag, level, inputs)

    def updated(self, mask: Ref, point: Ref) -> Ref:
        """The point from which training continues after pruning: ``point``, or its weights as the criterion updated
        them.
        """
        return Ref(mask.node, "point") if self.criterion.updates else point

    def random_mask(self, level: int, like: Ref | None = None, *, parent: Ref | None = None) -> Ref:
        """A random mask with the count of the level, nested in ``parent``; ``like`` gives counts per layer."""
        drawn = {"criterion": "random", "point": None, "parent": parent, "seed": self.seed, "stream": f"prune:{level}"}
        kept = {"like": like} if like else {"keep": self.keep(level), **self.spared}
        return self._mask(self.label, level, drawn | kept)

    def train(
        self,
        level: int,
        *,
        start: dict[str, Any],
        mask: Ref | None,
        pruned: Ref | None = None,
        first: int | None = None,
        lr: float | None = None,
        marks: list[int] | None = None,
        cycle: int = 0,
        seed: int | None = None,
        moments: Ref | None = None,
    ) -> Solution:
        """Train from a start: ``{"point": ref}`` or ``{"init": stream}``, from step ``first`` (default k) to the end.

        ``pruned`` is the point from which the mask was made, ``lr`` a constant rate instead of the schedule. ``cycle``
        numbers the trainings that lead to the last one of a level. ``seed`` selects another seed's data order, and
        ``moments`` the momentum at the start (default: zero).
        """
        first = self.rewind if first is None else first
        order, kept = self.named_order(level), self.stored(first, marks or [])
        inputs = self._inputs(start=start, mask=mask, order=order, first=first, lr=lr, checkpoints=kept)
        inputs |= {name: v for name, v in {"seed": seed, "moments": moments}.items() if v is not None}
        label = self.label + (f" (cycle {cycle})" if cycle else "")
        labels = {"branch": label, "level": level, "seed": self.seed}
        node = self.graph.add(Node(f"train/{label}/L{level}/s{self.seed}", "train", inputs, labels))
        began = start["point"] if "point" in start else Ref(node.id, f"step-{first}")
        own = {name: self.options[name] for name in ("fraction", "criterion") if name in self.options}
        return Solution(self.label, level, self.seed, self.order, node, mask, began, pruned, **own)

    def stored(self, first: int, marks: Sequence[int] = ()) -> list[int]:
        """The steps at which a training from step ``first`` stores points: ``marks`` and those of the trajectory."""
        passed = (d.steps(self.per_epoch) for d in self.spec.train.trajectory)
        return sorted({*marks, *(step for step in passed if step >= first)})

    def sibling(self, solution: Solution) -> Solution:
        """The same start and mask trained under another data order."""
        began = solution.train.inputs
        inputs = dict(began) | {"order": f"{began['order']}sibling", "checkpoints": self.stored(began["first"])}
        labels = {**solution.labels, "branch": f"{solution.branch} (sibling)"}
        node = Node(f"{solution.train.id}/sibling", "train", inputs, labels)
        return replace(solution, train=self.graph.add(node))

    def reordered(self, step: int, order: int = 1) -> Solution:
        """The dense run with another data order from ``step`` on; ``order`` numbers the orders from 1."""
        nth = f"-{order}" if order > 1 else ""
        inputs = dict(self.dense().train.inputs)
        inputs |= {"order": f"reordered{nth}", "checkpoints": self.stored(step), "first": step}
        if step:  # at 0 both begin from the initialisation, which needs no checkpoint
            inputs |= {"start": {"point": Ref(self.dense().train.id, f"step-{step}")}}
        labels = {**self.dense().labels, "branch": f"dense (reordered{nth} at step {step})"}
        node = self.graph.add(Node(f"{self.dense().train.id}/reordered{nth}/step-{step}", "train", inputs, labels))
        return replace(self.dense(), train=node)

    @property
    def recipe(self) -> dict[str, Any]:
        """The recipe as JSON, without the steps to store, which are a separate input."""
        return {name: v for name, v in self.spec.train.document().items() if name not in ("checkpoints", "trajectory")}

    def named_order(self, level: int) -> str:
        """The name of a level's data order: its own, or the shared one."""
        return "" if level == 0 or self.order == "shared" else f"level-{level}"

    def _inputs(self, **given: Any) -> dict[str, Any]:
        """The inputs of a training cell."""
        start = {"recipe": self.recipe, "seed": self.seed, "mask": None, "first": 0, "lr": None, "checkpoints": []}
        return start | given

    def _began(self, point: Ref) -> dict[str, Any]:
        """The start of the training that ended in a point: another point, or an initialisation."""
        inputs = self.graph.nodes[point.node].inputs
        if "start" not in inputs:
            raise ConfigError(
                f"criterion {self.criterion.name!r} needs the start of a training, which is not known for {point.node}"
            )
        start = inputs["start"]
        return dict(start) if "point" in start else {**start, "seed": inputs["seed"]}

    def _mask(self, tag: str, level: int, inputs: dict[str, Any]) -> Ref:
        labels = {"branch": tag, "level": level, "seed": self.seed}
        node = self.graph.add(Node(f"mask/{tag}/L{level}/s{self.seed}", "mask", inputs, labels))
        return Ref(node.id, "mask")


@cache
def criterion_code(criterion: Criterion) -> str | None:
    """The fingerprint of your own criterion in the key of a mask; None for the criteria of the package.

    A criterion without readable source, such as one typed at a prompt, gets a random fingerprint: its masks are
    computed again in every process.
    """
    if not criterion.own:
        return None
    try:
        return function_digest(criterion.function)
    except NoSource:
        return uuid4().hex
