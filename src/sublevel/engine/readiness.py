"""Which nodes have all that they need, and which are one computation."""

from __future__ import annotations

from sublevel.engine.graph import Graph


class Readiness:
    """Follows a graph as its nodes are settled. Nodes with equal keys are twins: one is computed for all."""

    def __init__(self, graph: Graph) -> None:
        self.keys: dict[str, str] = {}
        self._dependents = graph.dependents()
        self._missing = {node.id: len({ref.node for ref in node.needs}) for node in graph.nodes.values()}
        self._twins: dict[str, list[str]] = {}

    def first(self) -> list[str]:
        """The nodes that need nothing."""
        return [name for name, missing in self._missing.items() if not missing]

    def after(self, name: str) -> list[str]:
        """The nodes that have all that they need, now that this one is settled."""
        for dependent in self._dependents[name]:
            self._missing[dependent] -= 1
        return [dependent for dependent in self._dependents[name] if not self._missing[dependent]]

    def twin(self, name: str) -> bool:
        """Note a node that is to be computed; whether another with its key is already."""
        self._twins.setdefault(self.keys[name], []).append(name)
        return len(self._twins[self.keys[name]]) > 1

    def rename(self, name: str, key: str) -> None:
        """Give a node and its twins another key: a repair has made other bits of their inputs."""
        if key != self.keys[name]:
            self._twins[key] = self._twins.pop(self.keys[name], [name])
            self.keys |= dict.fromkeys(self._twins[key], key)

    def settled_with(self, name: str) -> list[str]:
        """The node and its twins, which are twins no longer."""
        return self._twins.pop(self.keys[name], [name])
