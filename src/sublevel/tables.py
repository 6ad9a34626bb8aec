"""The tables of a run: their names, columns and meaning. `table` declares each in the file that fills it.

Every number in a figure, a claim or the report comes from one of these. They are written by ``study.tables`` as CSV
(one header line, ``repr`` floats, empty where undefined), sorted by their identifying columns, and hold no times, paths
or host names: the same study gives the same bytes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SOLUTION = ("branch", "level", "seed")
"""Columns that identify a solution. The dense network is branch ``dense``, level 0."""

SPECTRUM = (*SOLUTION, "space", "operator", "part", "buffers")
"""Columns that identify a spectrum."""

PATH = ("path", "branch", "level_from", "level_to", "seed", "order", "split", "buffers")
"""Columns that identify a path under one buffer policy.

``path`` is ``successive`` (level_from = level_to - 1, level 0 is the dense solution), ``to-dense`` (level_from = 0),
``from-start`` (the rewound start m * theta_k to the end of the same level), ``orders`` (two data orders from the same
start), ``start-to-dense`` (the rewound start to the dense solution), ``to-dense-aligned`` (to-dense, the solution's
hidden units permuted by weight matching) or ``instability`` (the dense run's end, and that of a run that left it at
``step`` for another data order). ``order`` is ``shared`` or ``independent``, ``split`` is ``train`` or ``test``.
``buffers``: ``averaged``, ``stored`` (of the first end), ``recomputed``, ``batch``, ``none`` (no BatchNorm).
"""

WORDS = frozenset({"branch", "space", "operator", "buffers", "path", "order", "split"})
"""Identifying columns that hold text."""


@dataclass(frozen=True)
class Table:
    """The columns of a table with their meaning (empty if the name is clear), and the columns of text."""

    columns: Mapping[str, str]
    words: frozenset[str]


TABLES: dict[str, Table] = {}


def table(name: str, identity: Sequence[str], text: str) -> Table:
    r"""Declare a table whose rows are identified by some columns; ``text`` lists the other ones.

    A line of it is ``column: its meaning``, continued on indented lines, or columns separated by commas. A column in
    quotes holds text, any other one numbers. The docstring below the declaration says what a row is.

    >>> made = table("shapes", ("seed",), "area, 'name'\nwidth: from left\n  to right")
    >>> made.columns, made.words
    ({'seed': '', 'area': '', 'name': '', 'width': 'from left to right'}, frozenset({'name'}))
    >>> del TABLES["shapes"]
    """
    columns, words = dict.fromkeys(identity, ""), WORDS.intersection(identity)
    for line in re.sub(r"\n\s+", " ", inspect.cleandoc(text)).splitlines():
        listed, _, meaning = line.partition(": ")
        columns |= dict.fromkeys(re.findall(r"\w+", listed), meaning)
        words |= set(re.findall(r"'(\w+)'", listed))
    TABLES[name] = Table(columns, words)
    return TABLES[name]


def schemas() -> dict[str, dict[str, str]]:
    """Every declared table with its columns of ``text`` and of ``number``, for readers that import no measurement."""
    return {
        name: {
            "text": " ".join(c for c in each.columns if c in each.words),
            "number": " ".join(c for c in each.columns if c not in each.words),
        }
        for name, each in TABLES.items()
    }


def declared(schemas: Mapping[str, Mapping[str, str]]) -> dict[str, Table]:
    """Tables from their schemas, which may come from anybody: what has another shape is left out.

    >>> declared({"shapes": {"text": "name", "number": "area width"}})["shapes"]
    Table(columns={'name': '', 'area': '', 'width': ''}, words=frozenset({'name'}))
    >>> declared({"shapes": 3}), declared(["shapes"])
    ({}, {})
    """
    found = {}
    for name, each in schemas.items() if isinstance(schemas, Mapping) else ():
        if not isinstance(each, Mapping):
            continue
        words, numbers = (str(each.get(kind, "")).split() for kind in ("text", "number"))
        found[name] = Table(dict.fromkeys([*words, *numbers], ""), frozenset(words))
    return found
