"""Which label belongs to which branch, by the columns of ``levels``; labels are never parsed.

``base`` is the registered branch, ``fraction``, ``criterion`` and ``order`` are what it was followed with. Tables of
older runs lack them: there a label is its own base, and nothing is known of variants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import fsum, isfinite, nan
from typing import Any

import pandas as pd

FIXED = {"criterion": "magnitude", "order": "shared"}
"""Criterion and data order where neither the study nor its tables name them."""


@dataclass(frozen=True)
class Variant:
    """One label: the branch behind it and what sets it apart. ``fraction`` is NaN where it cannot be known."""

    label: str
    base: str
    fraction: float
    criterion: str
    order: str
    levels: int
    first: int

    def prunes_as(self, other: Variant) -> bool:
        """Whether both prune the same fraction, but for the rounding of a count of weights, as far as is known."""
        return not abs(self.fraction - other.fraction) > 1e-3


class Branches:
    """The labels of a table of levels. ``study`` is the resolved study, which says what its main variants are."""

    def __init__(self, levels: pd.DataFrame, study: Mapping[str, Any] | None = None) -> None:
        self.known = "base" in levels.columns and bool(levels["base"].notna().any())
        self.variants = {v.label: v for v in _variants(levels, self.known)}
        dense = self.variants.get("dense")
        stated = study or {}
        self.own = {
            name: str(stated.get(name) or (getattr(dense, name) if dense else "") or usual)
            for name, usual in FIXED.items()
        }
        listed = any((stated.get("prune") or {}).values())
        self.fraction = nan if listed else float(stated.get("fraction") or nan)

    def label(self, base: str, order: str = "") -> str:
        """The label of a branch as the study means it: its own criterion, fraction and data order.

        ``order`` asks for that data order and no other. The name itself where there is no such branch.
        """
        found = [v for v in self.variants.values() if v.base == base and (not order or v.order in (order, ""))]
        return min(found, key=lambda v: self._distance(v, order or self.own["order"])).label if found else base

    def _distance(self, v: Variant, order: str) -> tuple[Any, ...]:
        """How far a variant is from what the study means, for a sort: the least is the main one."""
        return (self._criterion(v) != self.own["criterion"], abs(v.fraction - self.fraction) > 1e-3,
                v.order not in (order, ""), -v.levels, v.label != v.base, v.first)  # fmt: skip

    def _criterion(self, v: Variant) -> str:
        return v.criterion or self.own["criterion"]

    def _same(self, base: str) -> tuple[Variant | None, list[Variant]]:
        """A branch's main variant, and every variant by its criterion, the nearest to what the study means first."""
        mine = [v for v in self.variants.values() if v.base == base]
        mine.sort(key=lambda v: self._distance(v, self.own["order"]))
        return (mine or [None])[0], [v for v in mine if self._criterion(v) == self._criterion(mine[0])]

    def orders(self, base: str) -> list[str]:
        """The labels of a branch's main variant under every data order, the main order first."""
        main, same = self._same(base)
        return [v.label for v in same if main and v.prunes_as(main)]

    def steps(self, base: str = "imp") -> list[Variant]:
        """A sweep of the fraction: every fraction and data order, by the main variant's criterion.

        Empty where no variant prunes another fraction than the main one.
        """
        main, same = self._same(base)
        return same if main and self.known and not all(v.prunes_as(main) for v in same) else []

    def swept(self, base: str = "imp") -> set[str]:
        """The labels of those in a sweep that prune once, by another fraction than the main variant."""
        return {v.label for v in self.steps(base) if v.levels == 1 and self.other_fraction(v.label)}

    def sweep(self, base: str = "imp") -> dict[float, str]:
        """Fraction -> label of one pruning step of that fraction; of several data orders the main one counts."""
        found: dict[float, str] = {}
        for v in self.steps(base):
            if isfinite(v.fraction):
                found.setdefault(round(v.fraction, 4), v.label)
        return dict(sorted(found.items()))

    def other_fraction(self, label: str) -> bool:
        """Whether a label prunes another fraction than its branch's main variant."""
        mine = self.variants[label]
        return not mine.prunes_as(self.variants[self.label(mine.base)])


def _variants(levels: pd.DataFrame, known: bool) -> list[Variant]:
    """One variant for each label, in the order of the table."""
    if not {"branch", "level"} <= set(levels.columns):
        return []
    columns = {c: levels[c].tolist() for c in ("level", "density", "base", "fraction", "criterion", "order")
               if c in levels.columns}  # fmt: skip
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(levels["branch"].tolist()):
        rows.setdefault(str(name), []).append(i)
    found = []
    for name, mine in rows.items():
        own = {c: [values[i] for i in mine] for c, values in columns.items()}
        words = {c: [v for v in own.get(c, ()) if known and v and isinstance(v, str)] for c in ("base", *FIXED)}
        stated = [float(v) for v in own.get("fraction", ()) if _finite(v)]
        first = [float(d) for v, d in zip(own["level"], own.get("density", ()), strict=False) if v == 1 and _finite(d)]
        fraction = stated[0] if stated else 1 - fsum(first) / len(first) if first else nan
        base, criterion, order = (words[c][0] if words[c] else "" for c in ("base", *FIXED))
        levels_of = len(set(own["level"]))
        found.append(
            Variant(name, base or name, fraction if known else nan, criterion, order, levels_of, first=len(found))
        )
    return found


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)
