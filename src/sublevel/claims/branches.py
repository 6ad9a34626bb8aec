"""Which label stands for which branch: told by the columns of ``levels``, never by reading the label.

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
"""What a study prunes by and trains in where neither it nor its tables say."""


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


class Branches:
    """The labels of a table of levels. ``study`` is the resolved study, which says what its main variants are."""

    def __init__(self, levels: pd.DataFrame, study: Mapping[str, Any] | None = None) -> None:
        self.known = "base" in levels.columns and bool(levels["base"].notna().any())
        self.variants = {v.label: v for v in _variants(levels, self.known)}
        dense = self.variants.get("dense")
        told = study or {}
        self.own = {
            name: str(told.get(name) or (getattr(dense, name) if dense else "") or usual)
            for name, usual in FIXED.items()
        }
        listed = any((told.get("prune") or {}).values())
        self.fraction = nan if listed else float(told.get("fraction") or nan)

    def label(self, base: str, order: str = "") -> str:
        """The label of a branch as the study means it: its own criterion, fraction and data order.

        ``order`` asks for that data order and no other. The name itself where there is no such branch.
        """
        wanted = order or self.own["order"]
        found = [v for v in self.variants.values() if v.base == base and (not order or v.order in (order, ""))]
        return min(found, key=lambda v: self._distance(v, wanted)).label if found else base

    def _distance(self, v: Variant, order: str) -> tuple[Any, ...]:
        fraction = abs(v.fraction - self.fraction) > 1e-3 if isfinite(self.fraction - v.fraction) else False
        return (self._criterion(v) != self.own["criterion"], fraction, v.order not in (order, ""), -v.levels,
                v.label != v.base, v.first)  # fmt: skip

    def _criterion(self, v: Variant) -> str:
        return v.criterion or self.own["criterion"]

    def orders(self, base: str) -> list[str]:
        """The labels of a branch's main variant under every data order, the main order first."""
        main = self.variants.get(self.label(base))
        if main is None:
            return []
        found = [v for v in self.variants.values() if v.base == base and self._same(v, main)]
        found = [v for v in found if not _apart(v.fraction, main.fraction)]
        return [v.label for v in sorted(found, key=lambda v: self._distance(v, self.own["order"]))]

    def steps(self, base: str = "imp") -> list[str]:
        """The labels of a sweep of the fraction: every fraction and data order, by the main variant's criterion.

        Empty where no variant prunes another fraction than the main one.
        """
        main = self.variants.get(self.label(base))
        if main is None or not self.known:
            return []
        same = [v for v in self.variants.values() if v.base == base and self._same(v, main)]
        return [v.label for v in same] if any(_apart(v.fraction, main.fraction) for v in same) else []

    def swept(self, base: str = "imp") -> set[str]:
        """Of these the ones that prune once, by another fraction than the main variant."""
        main = self.variants.get(self.label(base))
        found = [self.variants[name] for name in self.steps(base)]
        return {v.label for v in found if main and v.levels == 1 and _apart(v.fraction, main.fraction)}

    def sweep(self, base: str = "imp") -> dict[float, str]:
        """Fraction -> label of one pruning step of that fraction; of several data orders the main one counts."""
        ranked = sorted(
            (self.variants[name] for name in self.steps(base)), key=lambda v: self._distance(v, self.own["order"])
        )
        found: dict[float, str] = {}
        for v in ranked:
            if isfinite(v.fraction):
                found.setdefault(round(v.fraction, 4), v.label)
        return dict(sorted(found.items()))

    def other_fraction(self, label: str) -> bool:
        """Whether a label prunes another fraction than its branch's main variant."""
        mine = self.variants[label]
        return _apart(mine.fraction, self.variants[self.label(mine.base)].fraction)

    def _same(self, v: Variant, main: Variant) -> bool:
        return self._criterion(v) == self._criterion(main)


def _apart(one: float, two: float) -> bool:
    """Whether two fractions differ by more than the rounding of a count of weights."""
    return isfinite(one - two) and abs(one - two) > 1e-3


def _variants(levels: pd.DataFrame, known: bool) -> list[Variant]:
    """One variant for each label, in the order of the table."""
    if not {"branch", "level"} <= set(levels.columns):
        return []
    rows: dict[str, list[dict[str, Any]]] = {}
    read = [c for c in ("branch", "level", "density", "base", "fraction", "criterion", "order") if c in levels.columns]
    for values in zip(*(levels[c].tolist() for c in read), strict=True):
        row = dict(zip(read, values, strict=True))
        rows.setdefault(str(row["branch"]), []).append(row)
    return [
        Variant(
            label=name,
            base=(_word(mine, "base") or name) if known else name,
            fraction=_fraction(mine) if known else nan,
            criterion=_word(mine, "criterion") if known else "",
            order=_word(mine, "order") if known else "",
            levels=len({row["level"] for row in mine}),
            first=i,
        )
        for i, (name, mine) in enumerate(rows.items())
    ]


def _word(rows: list[dict[str, Any]], column: str) -> str:
    return next((str(row[column]) for row in rows if isinstance(row.get(column), str) and row[column]), "")


def _fraction(rows: list[dict[str, Any]]) -> float:
    """The share that a level prunes: as the table has it, or what the first level leaves out."""
    told = [float(row["fraction"]) for row in rows if _finite(row.get("fraction"))]
    first = [float(row["density"]) for row in rows if row["level"] == 1 and _finite(row.get("density"))]
    return told[0] if told else 1 - fsum(first) / len(first) if first else nan


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and isfinite(value)
