"""The one registry of claims."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sublevel.claims.combine import Combine, intersection
from sublevel.claims.parts import Part
from sublevel.claims.query import Tables

Query = Callable[[Tables], Iterator[Part]]


@dataclass(frozen=True)
class Claim:
    """A claim: its statement, the figure that shows it, its parts as read from tables, and how they go together."""

    name: str
    statement: str
    figure: str
    query: Query
    combine: Combine


CLAIMS: dict[str, Claim] = {}


def claim(name: str, statement: str, *, figure: str, combine: Combine = intersection) -> Callable[[Query], Query]:
    """Register a function from tables to the parts of a claim, under its name and its one sentence.

    The function yields the same parts, at least one of them decisive, whatever the tables hold. ``figure`` is the key
    of a figure of the report. A name that is registered again is replaced.
    """

    def register(query: Query) -> Query:
        CLAIMS[name] = Claim(name, statement, figure, query, combine)
        return query

    return register


def registered() -> list[Claim]:
    """Every claim, C2 before C10, and C4a before C4b."""
    return sorted(CLAIMS.values(), key=lambda each: _place(each.name))


def _place(name: str) -> tuple[str, int, str]:
    """
    >>> sorted(["C10", "C4b", "C2", "C4a", "X"], key=_place)
    ['C2', 'C4a', 'C4b', 'C10', 'X']
    """
    letters, number, rest = re.fullmatch(r"(\D*)(\d*)(.*)", name, re.DOTALL).groups()  # pyright: ignore
    return letters, int(number or 0), rest
