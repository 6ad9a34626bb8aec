"""The disconnectivity graphs of a study, from the joins between its solutions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sublevel.geometry.topology import MergeTree, disconnectivity

Row = dict[str, Any]


def trees(joins: Sequence[Row]) -> Iterator[Row]:
    """The rows of ``tree``: every line of the drawing and every leaf, for the loss and for the error.

    A pair whose path met a loss that is not finite has no join; a leaf without a height is left out.
    """
    for of in dict.fromkeys(row["of"] for row in joins):
        mine = [row for row in joins if row["of"] == of]
        leaves = {row[end]: row[f"height_{end}"] for row in mine for end in ("a", "b")}
        known = {name: height for name, height in leaves.items() if height is not None}
        pairs = {
            (row["a"], row["b"]): row["maximum"]
            for row in mine
            if row["maximum"] is not None and row["a"] in known and row["b"] in known
        }
        if known:
            yield from _rows(of, disconnectivity(known, pairs))


def _rows(of: str, tree: MergeTree) -> Iterator[Row]:
    places, lines = tree.layout()
    for name, x in places.items():
        yield {"of": of, "part": "leaf", "name": name, "x0": x, "y0": tree.minimax(name, name)}
    for line in lines:
        yield {"of": of, "part": "line", "name": "", "x0": line.x0, "y0": line.y0, "x1": line.x1, "y1": line.y1}
