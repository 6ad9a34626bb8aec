"""Cells that run again, after their worker died or an object was lost or damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sublevel.engine.graph import Node, Outcome

ATTEMPTS = 3
"""Attempts at a cell whose worker dies or whose inputs are damaged."""


class Repairs:
    """Counts attempts, and tracks the cells that wait for another cell to remake its objects."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self._waiting: dict[str, list[str]] = {}

    def __contains__(self, maker: str) -> bool:
        return maker in self._waiting

    def again(self, name: str) -> bool:
        """Count a failed attempt; return whether another one is allowed."""
        self.attempts[name] += 1
        return self.attempts[name] < ATTEMPTS

    def wait(self, name: str, maker: str) -> bool:
        """Let a cell wait for ``maker`` to run again; return whether it is the first to wait."""
        self._waiting.setdefault(maker, []).append(name)
        return len(self._waiting[maker]) == 1

    def made(self, maker: str) -> list[str]:
        """Remove and return the cells that waited for ``maker``."""
        return self._waiting.pop(maker, [])


def released(node: Node, outcomes: Mapping[str, Outcome]) -> str:
    """A node whose output this one needs and garbage collection has released; '' if there is none."""
    entries = ((ref, outcomes[ref.node].entry) for ref in node.needs)
    return next((ref.node for ref, e in entries if e["objects"][ref.output] in e.get("released", ())), "")


def maker(digest: str, node: Node, outcomes: Mapping[str, Outcome]) -> str:
    """The node that made an object among this one's inputs; '' if there is none."""
    needs = (ref.node for ref in node.needs)
    return next((name for name in needs if digest and digest in outcomes[name].entry["objects"].values()), "")
