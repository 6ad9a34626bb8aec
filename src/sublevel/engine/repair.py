"""Cells that run once more: their worker died, or an object that they or others read is gone or damaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from sublevel.engine.graph import Node, Outcome

ATTEMPTS = 3
"""How often a cell is tried when its worker dies or what it reads is damaged."""


class Repairs:
    """Counts attempts, and knows which cells wait until another has made its objects again."""

    def __init__(self) -> None:
        self.attempts: Counter[str] = Counter()
        self._waiting: dict[str, list[str]] = {}

    def __contains__(self, maker: str) -> bool:
        return maker in self._waiting

    def again(self, name: str) -> bool:
        """Count an attempt that failed; whether there may be another."""
        self.attempts[name] += 1
        return self.attempts[name] < ATTEMPTS

    def wait(self, name: str, maker: str) -> bool:
        """Let a cell wait for ``maker`` to run again; whether it is the first that does."""
        self._waiting.setdefault(maker, []).append(name)
        return len(self._waiting[maker]) == 1

    def made(self, maker: str) -> list[str]:
        """The cells that waited for one that has run again."""
        return self._waiting.pop(maker, [])


def released(node: Node, outcomes: Mapping[str, Outcome]) -> str:
    """A node whose output this one needs, and which the collection of garbage has let go; '' if none is."""
    entries = ((ref, outcomes[ref.node].entry) for ref in node.needs)
    return next((ref.node for ref, e in entries if e["objects"][ref.output] in e.get("released", ())), "")


def maker(digest: str, node: Node, outcomes: Mapping[str, Outcome]) -> str:
    """The node that made an object which this one reads; '' where none did."""
    needs = (ref.node for ref in node.needs)
    return next((name for name in needs if digest and digest in outcomes[name].entry["objects"].values()), "")
