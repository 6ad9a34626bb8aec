"""Which nodes are ready to run, and which share one computation."""

from __future__ import annotations

from sublevel.engine.graph import Graph


class Readiness:
    """Tracks a graph as its nodes are settled. Nodes with equal keys are twins: one computation serves all."""

    def __init__(self, graph: Graph) -> None:
        self.keys: dict[str, str] = {}
        self._dependents = graph.dependents()
        self._missing = {node.id: len({ref.node for ref in node.needs}) for node in graph.nodes.values()}
        self._twins: dict[str, list[str]] = {}

    def first(self) -> list[str]:
        """The nodes that need nothing."""
        return [name for name, missing in self._missing.items() if not missing]

    def after(self, name: str) -> list[str]:
        """The nodes that become ready when this one is settled."""
        for dependent in self._dependents[name]:
            self._missing[dependent] -= 1
        return [dependent for dependent in self._dependents[name] if not self._missing[dependent]]

    def twin(self, name: str) -> bool:
        """Register a node to compute; return whether a twin is registered already."""
        self._twins.setdefault(self.keys[name], []).append(name)
        return len(self._twins[self.keys[name]]) > 1

    def rename(self, name: str, key: str) -> None:
        """Change the key of a node and its twins, if a repair has changed their inputs."""
        if key != self.keys[name]:
            self._twins[key] = self._twins.pop(self.keys[name], [name])
            self.keys |= dict.fromkeys(self._twins[key], key)

    def settled_with(self, name: str) -> list[str]:
        """Remove and return the node and its twins."""
        return self._twins.pop(self.keys[name], [name])
