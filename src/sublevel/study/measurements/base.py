"""What a measurement is made of: the cells it adds to a study, what they cost, and the rows of tables they become.

A measurement is one file of this folder: an emitter under ``@measurement("block")``, a kernel under ``@kernel``,
``@rows`` and ``@cost`` for its kind of cell. Its block of options stands in ``study.blocks``, its columns in
``sublevel.tables``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sublevel.engine.graph import Graph, Node, Ref
from sublevel.space import Space
from sublevel.study.blocks import Examples, Where
from sublevel.study.builder import Builder, Solution
from sublevel.study.spec import StudySpec

KEEP = 2**29
"""Bytes of graphs that a cell keeps between its Hessian products: speed, and no bit of a result."""

End = tuple[Ref, Ref | None]
"""A point and the mask to project it with."""


@dataclass(frozen=True)
class Scene:
    """A study whose solutions stand, ready to be measured."""

    spec: StudySpec
    space: Space
    graph: Graph
    solutions: list[Solution]
    builders: Mapping[int, Builder]

    def admitted(self, where: Where | None, *, dense: bool = True) -> Iterator[Solution]:
        """The solutions that a block chooses, in the order of the study."""
        return (s for s in self.solutions if (dense or s.level) and self.admits(where, s))

    def admits(self, where: Where | None, s: Solution) -> bool:
        """Whether a block chooses a solution."""
        return where is not None and where.admits(s.branch, s.level, self.spec.seeds.index(s.seed))

    def seeds(self, count: int | None) -> tuple[int, ...]:
        """The first ``count`` seeds of the study; None for all."""
        return self.spec.seeds[:count]

    def policies(self, asked: tuple[Any, ...]) -> tuple[Any, ...]:
        """Without statistics all buffer policies are one."""
        return asked if self.space.statistics else asked[:1]

    def next_mask(self, s: Solution) -> Ref | None:
        """The mask that its criterion would give the next level; None where nothing would be left to give."""
        builder = replace(self.builders[s.seed], options={"fraction": s.fraction, "criterion": s.criterion})
        if not builder.leaves(s.level + 1):
            return None
        return builder.prune(s.end, s.mask, s.level + 1, f"next/{s.branch}")

    def facts(self, s: Solution) -> dict[str, Any]:
        """What a solution is, as columns: its registered branch, data order, pruned share, and criterion of its mask.

        The criterion is that of the cell that made the mask, so a branch with imp's mask has imp's. The dense network
        and points trained elsewhere have neither criterion nor share.
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

    def add(self, kind: str, s: Solution, *rest: str, inputs: Mapping[str, Any], **labels: Any) -> Node:
        """Add a measuring cell of a solution."""
        return self.graph.add(Node(name(kind, s, *rest), kind, inputs, {**s.labels, **labels}))


def name(kind: str, s: Solution, *rest: str) -> str:
    """A cell's readable name."""
    return "/".join([kind, *rest, s.branch, f"L{s.level}", f"s{s.seed}"])


def drawn(graph: Graph, at: Ref) -> tuple[Any, ...] | None:
    """The draw of weights that a point's training goes back to; None where that is not known.

    Two points of one draw have hidden units that mean the same; those of two draws may be permuted.
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
    """Two ends as a cell's inputs."""
    return {"a": a[0], "a_mask": a[1], "b": b[0], "b_mask": b[1]}


def examples(block: Examples) -> Iterator[tuple[int, dict[str, Any]]]:
    """The part, and the inputs that say which examples, for every part of a block."""
    for part in range(block.parts):
        yield part, {"size": block.size, "policy": block.policy} | ({"part": part} if part else {})


Emit = Callable[[Scene, Any], None]
EMITTERS: dict[str, Emit] = {}


def measurement(block: str) -> Callable[[Emit], Emit]:
    """Register the emitter of a block of the study's ``geometry``."""

    def register(emit: Emit) -> Emit:
        EMITTERS[block] = emit
        return emit

    return register


def used(inputs: Mapping[str, Any], sizes: Mapping[str, int], split: str = "train") -> int:
    """How many examples of a split a cell looks at."""
    return min(inputs.get("size") or sizes[split], sizes[split])
