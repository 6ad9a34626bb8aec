"""Merge trees of sublevel sets: the heights at which solutions share one.

The disconnectivity graph (Becker and Karplus 1997; Wales, Miller and Walsh 1998) is the merge tree of {L <= c} over a
set of solutions. A leaf lies at its loss. Two branches join at the lowest maximum of the paths found between them,
which may pass through other solutions (minimax, or single linkage). A known path bounds the true pass from above, so
every join is an upper bound; branches without a known path are not joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import inf, isfinite, isnan

from sublevel.display import Shown

ROUNDING = 1e-9
"""Rounding of a path's maximum: how far it may lie below a leaf, relative to the leaf's height."""


@dataclass(frozen=True)
class TreeNode:
    """A node of a merge tree at ``height``: a leaf with a ``name``, or the join of two earlier nodes, ``children``."""

    height: float
    leaves: tuple[str, ...]
    children: tuple[int, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Segment:
    """A straight line of the drawing from (x0, y0) to (x1, y1); y is a height."""

    x0: float
    y0: float
    x1: float
    y1: float


@dataclass(frozen=True)
class Pair:
    """The life of a component of {L <= c}: birth at its lowest leaf, ``death`` at a join (inf: never)."""

    name: str
    birth: float
    death: float


@dataclass(frozen=True, repr=False)
class MergeTree(Shown):
    """The merge tree of sublevel sets: ``nodes`` with the leaves first, then the joins by height.

    ``roots`` are the nodes without a join above them: more than one if some solutions have no known path.
    """

    nodes: tuple[TreeNode, ...]
    roots: tuple[int, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The leaves, in the order given."""
        return tuple(node.name for node in self.nodes if not node.children)

    def minimax(self, i: str, j: str) -> float:
        """The lowest height at which two solutions are known to share a connected sublevel set; inf if there is none.

        Raises KeyError for an unknown leaf.
        """
        for name in (i, j):
            if name not in self.names:
                raise KeyError(f"no leaf {name!r}; the leaves are {', '.join(self.names)}")
        both = (node.height for node in self.nodes if i in node.leaves and j in node.leaves)
        return next(both, inf)  # nodes ascend, so the first that holds both is their join

    def components(self, c: float) -> list[list[str]]:
        """The sets of solutions known to share a connected sublevel set at c; solutions above c are in none."""
        out: list[list[str]] = []
        for root in self.roots:
            self._collect(root, c, out)
        parts = [sorted(part, key=self.names.index) for part in out]
        return sorted(parts, key=lambda part: self.names.index(part[0]))

    def pairs(self) -> list[Pair]:
        """Birth and death of every leaf's component by the elder rule, longest-lived first.

        Where two components meet, the one with the lower leaf survives (of equal ones the one given first).
        """
        death = {self._lowest(root): inf for root in self.roots}
        for node in self.nodes:
            if node.children:
                death[self._lowest(max(node.children, key=self._age))] = node.height
        leaves = [Pair(node.name, node.height, death[node.name]) for node in self.nodes if not node.children]
        return sorted(leaves, key=lambda pair: (pair.birth - pair.death, pair.birth))

    def layout(self) -> tuple[dict[str, float], list[Segment]]:
        """The x of every leaf, and the lines of the disconnectivity graph.

        Leaves are placed at 0, 1, ... such that no lines cross, with the lower branch to the left. From each node a
        vertical line rises to its join, and a horizontal one leads from there to the middle of the joined branches.
        """
        order = [name for root in sorted(self.roots, key=self._age) for name in self._in_order(root)]
        places = {name: float(number) for number, name in enumerate(order)}
        x: list[float] = []
        lines: list[Segment] = []
        for node in self.nodes:
            x.append(sum(x[c] for c in node.children) / len(node.children) if node.children else places[node.name])
            for child in node.children:
                lines.append(Segment(x[child], self.nodes[child].height, x[child], node.height))
                lines.append(Segment(x[child], node.height, x[-1], node.height))
        return places, lines

    def _collect(self, number: int, c: float, out: list[list[str]]) -> None:
        node = self.nodes[number]
        if node.height <= c:
            out.append(list(node.leaves))
        else:
            for child in node.children:
                self._collect(child, c, out)

    @cached_property
    def _ages(self) -> dict[str, tuple[float, int]]:
        return {name: (self.nodes[number].height, number) for number, name in enumerate(self.names)}

    def _lowest(self, number: int) -> str:
        return min(self.nodes[number].leaves, key=self._ages.__getitem__)

    def _age(self, number: int) -> tuple[float, int]:
        return self._ages[self._lowest(number)]

    def _in_order(self, number: int) -> Iterator[str]:
        node = self.nodes[number]
        if not node.children:
            yield node.name
        for child in sorted(node.children, key=self._age):
            yield from self._in_order(child)

    def _facts(self) -> dict[str, object]:
        leaves = [node.height for node in self.nodes if not node.children]
        joins = [node.height for node in self.nodes if node.children]
        return {
            "": f"{len(leaves)} solutions",
            "heights": f"{min(leaves):.4g} to {max(leaves):.4g}",
            "joins": f"{min(joins):.4g} to {max(joins):.4g} (upper bounds)" if joins else "",
            "parts that no path joins:": len(self.roots) if len(self.roots) > 1 else None,
        }


def disconnectivity(leaves: Mapping[str, float], joins: Mapping[tuple[str, str], float]) -> MergeTree:
    """The merge tree over solutions, from their losses and the maxima of the paths found between pairs of them.

    ``leaves`` gives the heights of the solutions by name; ``joins`` gives the maximum along the best path of a pair, in
    either order. A pair that is absent, or inf, has no path. Take all of them under one buffer policy: the maximum of a
    path must be at least the height of both ends, up to rounding.

    Raises ValueError for no leaves, heights that are not finite, or a join that is nan, has an unknown leaf, joins a
    leaf with itself, or lies below one of its ends.

    >>> tree = disconnectivity({"a": 0.0, "b": 0.5, "c": 0.2}, {("a", "b"): 2.0, ("b", "c"): 1.0, ("a", "c"): 3.0})
    >>> tree.minimax("a", "c"), tree.components(1.5)
    (2.0, [['a'], ['b', 'c']])
    """
    if not leaves:
        raise ValueError("a merge tree needs at least one solution, got none")
    for name, height in leaves.items():
        if not isfinite(height):
            raise ValueError(f"the height of {name!r} is {height}: a leaf needs a finite loss")
    ends = [(_height(pair, top, leaves), *pair) for pair, top in joins.items()]
    names = list(leaves)
    nodes = [TreeNode(float(height), (name,), (), name) for name, height in leaves.items()]
    top = {name: number for number, name in enumerate(names)}
    for height, i, j in sorted(ends, key=lambda e: (e[0], *sorted((names.index(e[1]), names.index(e[2]))))):
        if top[i] != top[j] and height < inf:
            both = tuple(sorted((top[i], top[j])))
            held = tuple(sorted(nodes[both[0]].leaves + nodes[both[1]].leaves, key=names.index))
            nodes.append(TreeNode(height, held, both))
            top |= dict.fromkeys(held, len(nodes) - 1)
    return MergeTree(tuple(nodes), tuple(sorted(set(top.values()))))


def _height(pair: tuple[str, str], top: float, leaves: Mapping[str, float]) -> float:
    """The height of a join, raised to its ends within rounding."""
    i, j = pair
    for name in pair:
        if name not in leaves:
            raise ValueError(f"the path {i!r} - {j!r} has an end that is no leaf; the leaves are {', '.join(leaves)}")
    if i == j:
        raise ValueError(f"a path from {i!r} to itself joins nothing")
    higher = max(leaves[i], leaves[j])
    if isnan(top) or top < higher - ROUNDING * max(1.0, abs(higher)):
        raise ValueError(
            f"the maximum of the path {i!r} - {j!r} is {top:.6g}, its higher end {higher:.6g}: "
            "the maximum of a path is at least that of its ends, so take both under one buffer policy"
        )
    return float(max(top, higher))
