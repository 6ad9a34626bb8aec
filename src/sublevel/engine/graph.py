"""The graph of a study: named cells, their dependencies, and their outcomes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Ref:
    """An object that another cell will make: ``Ref("train/imp/L3/s0", "end")``."""

    node: str
    output: str


@dataclass(frozen=True)
class Node:
    """One cell before its inputs are known.

    ``inputs`` is JSON that may contain `Ref`; ``labels`` are for people and tables, not part of the cell's identity.
    """

    id: str
    kind: str
    inputs: Mapping[str, Any]
    labels: Mapping[str, Any] = field(default_factory=dict)

    @property
    def needs(self) -> list[Ref]:
        """The references among the inputs."""
        return list(_refs(self.inputs))

    def resolved(self, digests: Mapping[Ref, str]) -> dict[str, Any]:
        """The inputs with every reference replaced by the digest of its object."""
        return _resolve(self.inputs, digests)


class Graph:
    """Nodes by name, in order of addition; a node is added after those that it needs."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}

    def add(self, node: Node) -> Node:
        """Add a node. Adding it twice is harmless; another node of the same name is an error."""
        known = self.nodes.setdefault(node.id, node)
        if (known.kind, known.inputs) != (node.kind, node.inputs):
            raise ValueError(f"two different cells are called {node.id}")
        return known

    def dependents(self) -> dict[str, list[str]]:
        """For every node, the nodes that need it."""
        out: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self.nodes.values():
            for name in dict.fromkeys(ref.node for ref in node.needs):
                out[name].append(node.id)
        return out


KEPT = ("objects", "released", "seconds")
"""The fields of a settled entry that stay in memory; the values of thousands of cells need not."""


@dataclass(frozen=True)
class Outcome:
    """The outcome of a node: ``cached``, ``done``, ``failed``, ``skipped`` (a node that it needs failed) or ``waiting``
    (the time was up before it began).
    """

    node: Node
    status: str
    key: str = ""
    entry: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> bool:
        """Whether there is a result."""
        return self.status in ("cached", "done")

    @property
    def kept(self) -> Outcome:
        """The outcome without the entry's values."""
        return replace(self, entry={name: v for name, v in self.entry.items() if name in KEPT})


def urgencies(graph: Graph, cost: Mapping[str, float]) -> dict[str, float]:
    """For every node, the cost of the longest chain that starts with it; the largest runs first."""
    dependents = graph.dependents()
    out: dict[str, float] = {}
    for name in reversed(list(graph.nodes)):
        out[name] = cost[name] + max((out[d] for d in dependents[name]), default=0.0)
    return {name: out[name] for name in graph.nodes}


def _refs(value: Any) -> Iterator[Ref]:
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, Mapping):
        for v in value.values():
            yield from _refs(v)
    elif isinstance(value, list | tuple):
        for v in value:
            yield from _refs(v)


def _resolve(value: Any, digests: Mapping[Ref, str]) -> Any:
    if isinstance(value, Ref):
        return digests[value]
    if isinstance(value, Mapping):
        return {k: _resolve(v, digests) for k, v in value.items()}
    return [_resolve(v, digests) for v in value] if isinstance(value, list | tuple) else value
