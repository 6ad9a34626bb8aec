"""The one registry of claims."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from sublevel.claims.combine import Combine, intersection
from sublevel.claims.parts import ClaimPart
from sublevel.claims.query import Tables

Query = Callable[[Tables], Iterator[ClaimPart]]


@dataclass(frozen=True)
class Claim:
    """A claim: its statement, the figure that shows it, its parts as read from tables, and how they go together.

    An ``exploratory`` one is never corrected for how many claims there are, and has no row where it was not measured.
    """

    name: str
    statement: str
    figure: str
    query: Query
    combine: Combine
    exploratory: bool = False


CLAIMS: dict[str, Claim] = {}


def claim(
    name: str, statement: str, *, figure: str, combine: Combine = intersection, exploratory: bool = False
) -> Callable[[Query], Query]:
    """Register a function from tables to the parts of a claim, under its name and its one sentence.

    The function yields the same parts, at least one of them decisive, whatever the tables hold. ``figure`` is the key
    of a figure of the report. A name that is registered again is replaced.
    """

    def register(query: Query) -> Query:
        CLAIMS[name] = Claim(name, statement, figure, query, combine, exploratory)
        return query

    return register


def registered() -> list[Claim]:
    """Every claim, C2 before C10, and C4a before C4b."""

    def place(each: Claim) -> tuple[str, int, str]:
        letters, number, rest = re.fullmatch(r"(\D*)(\d*)(.*)", each.name, re.DOTALL).groups()  # pyright: ignore
        return letters, int(number or 0), rest

    return sorted(CLAIMS.values(), key=place)
