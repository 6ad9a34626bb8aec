"""The parts of a measurement: its options, the cells that it adds to a study, and their kinds.

A measurement is one file in this folder. It has a block of options, its tables, a function that adds its cells, and for
each kind of cell a computation, its rows and its cost. `cell` and `measurement` at the end register them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sublevel.engine.graph import Graph, Node, Ref
from sublevel.space import Space
from sublevel.study.builder import Builder, Solution
from sublevel.study.options import Examples, Options, Where
from sublevel.study.solutions import SolutionsSpec
from sublevel.train.recipe import Duration

End = tuple[Ref, Ref | None]
"""A point, and the mask to project it with."""


@dataclass(frozen=True)
class Scene:
    """A study with all its solutions, to which measurements add cells."""

    spec: SolutionsSpec
    space: Space
    graph: Graph
    solutions: list[Solution]
    builders: Mapping[int, Builder]

    def admitted(self, where: Where | None, *, dense: bool = True) -> Iterator[Solution]:
        """The solutions that a block chooses, in the study's order."""
        return (s for s in self.solutions if (dense or s.level) and self.admits(where, s))

    def admits(self, where: Where | None, s: Solution) -> bool:
        """Whether a block chooses a solution."""
        return where is not None and where.admits(s.branch, s.level, self.spec.seeds.index(s.seed))

    def seeds(self, count: int | None) -> tuple[int, ...]:
        """The first ``count`` seeds of the study; None for all."""
        return self.spec.seeds[:count]

    def policies(self, asked: tuple[Any, ...]) -> tuple[Any, ...]:
        """The buffer policies to measure: all, or the first one if the network has no statistics."""
        return asked if self.space.statistics else asked[:1]

    def next_mask(self, s: Solution) -> Ref | None:
        """The mask of the next level by the solution's criterion; None if no weight would be left."""
        builder = replace(self.builders[s.seed], options={"fraction": s.fraction, "criterion": s.criterion})
        if not builder.leaves(s.level + 1):
            return None
        return builder.prune(s.end, s.mask, s.level + 1, f"next/{s.branch}")

    def facts(self, s: Solution) -> dict[str, Any]:
        """Columns of a solution: its registered branch, data order, pruned share, and the criterion of its mask.

        The criterion is that of the cell that made the mask, so a branch with the mask of `imp` has the criterion of
        `imp`. The dense network and given points have neither criterion nor share.
        """
        node = None if s.mask is None else self.graph.nodes[s.mask.node]
        made = node is not None and node.kind != "given"
        return {
            "base": s.base,
            "order": s.order,
            "fraction": self.spec.share(s.fraction) if made else None,
            "criterion": node.inputs.get("criterion", node.kind) if node is not None and made else None,
        }

    def masks(self, s: Solution, spaces: tuple[str, ...]) -> Iterator[tuple[str, Ref | None]]:
        """The named spaces of a solution with their masks (None: R^D)."""
        for name in spaces:
            mask = {"own": lambda: s.mask, "all": lambda: None, "next": lambda: self.next_mask(s)}[name]()
            if name != "next" or mask is not None:
                yield name, mask

    def add(
        self,
        kind: str,
        s: Solution,
        *names: str,
        inputs: Mapping[str, Any],
        options: Options | None = None,
        **labels: Any,
    ) -> None:
        """Add the cells of a kind for a solution: one, or one for each part of the examples."""
        parts = range(options.parts) if isinstance(options, Examples) else [None]
        for part in parts:
            self.cell(part, kind, s, *names, inputs=inputs, options=options, **labels)

    def cell(
        self,
        part: int | None,
        kind: str,
        s: Solution,
        *names: str,
        inputs: Mapping[str, Any],
        options: Options | None = None,
        **labels: Any,
    ) -> Node:
        """Add one cell for a solution, on a part of the examples if the kind uses examples."""
        whole = {**inputs, **(options.document() | ({"part": part} if part else {}) if options else {})}
        called = name(kind, s, *names, *([f"part-{part}"] if part else []))
        nth = {} if part is None else {"part": part}
        return self.graph.add(Node(called, kind, whole, {**s.labels, **labels, **nth}))


def name(kind: str, s: Solution, *rest: str) -> str:
    """A cell's readable name."""
    return "/".join([kind, *rest, s.branch, f"L{s.level}", f"s{s.seed}"])


def drawn(graph: Graph, at: Ref) -> tuple[Any, ...] | None:
    """The draw of initial weights behind a point; None if it is unknown.

    Hidden units of two points of one draw correspond; those of two draws may be permuted.
    """
    node = graph.nodes[at.node]
    inputs, before = node.inputs, node.inputs.get("point")
    if node.kind == "train":
        start = inputs["start"]
        return drawn(graph, start["point"]) if "point" in start else (start["init"], inputs["seed"])
    if node.kind == "start":
        anew = inputs["how"] if before is not None else ""
        return (*([anew] if anew else []), inputs["stream"], inputs["seed"])
    if isinstance(before, Ref):
        return drawn(graph, before)
    return ("init", inputs["seed"]) if "seed" in inputs else None


def ends(a: End, b: End) -> dict[str, Any]:
    """Two ends as inputs of a cell."""
    return {"a": a[0], "a_mask": a[1], "b": b[0], "b_mask": b[1]}


Marks = Mapping[str, Sequence[Duration]]


@dataclass(frozen=True)
class Measurement:
    """A measurement: the block of its ``options`` in the study's ``geometry``, and the function that adds its cells.

    ``cells(scene, block)`` adds them. A measurement without options is part of every study. ``marks(block)`` maps the
    names of keys to steps at which the dense run must store a checkpoint.
    """

    options: type[Options] | None
    cells: Callable[[Scene, Any], None]
    marks: Callable[[Any], Marks]


MEASUREMENTS: dict[str, Measurement] = {}


def measurement(
    name: str,
    options: type[Options] | None,
    cells: Callable[[Scene, Any], None],
    marks: Callable[[Any], Marks] = lambda block: {},
) -> None:
    """Register a measurement under the name of its block in ``geometry``."""
    MEASUREMENTS[name] = Measurement(options, cells, marks)
