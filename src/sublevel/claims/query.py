"""Reading tables: rows selected by value, and one number for each level and seed.

Any table, column or row may be absent: the answer is then empty and names what was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import fsum, isfinite, nan
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sublevel.claims.branches import Branches
from sublevel.claims.examples import Correct
from sublevel.claims.margins import POLICIES
from sublevel.stats import Estimated

Tables = Mapping[str, pd.DataFrame]
Cells = dict[tuple[int, int], float]
"""(level, seed) -> value; NaN where there is a row without a finite value."""


class Columns(dict[str, NDArray[Any]]):
    """The columns of a table as arrays, each made when first asked for: pandas takes far longer to find one."""

    def __init__(self, frame: pd.DataFrame) -> None:
        super().__init__()
        self.frame, self.names = frame, set(frame.columns)

    def __missing__(self, name: str) -> NDArray[Any]:
        column = self.frame[name]
        self[name] = column.to_numpy(dtype=float if column.dtype.kind in "fiu" else object)
        return self[name]

    def numbers(self, name: str) -> NDArray[np.float64]:
        """A column as floats, NaN for anything else."""
        found = self[name]
        return found if found.dtype != object else np.asarray(pd.to_numeric(found, errors="coerce"), dtype=float)


class Indexed(dict[str, pd.DataFrame]):
    """Tables with cached columns, the branches behind the labels, and the correct answers of each network.

    ``study`` is their resolved study, where it is known.
    """

    def __init__(self, tables: Tables, study: Mapping[str, Any] | None = None) -> None:
        super().__init__(tables)
        self.columns = {name: Columns(frame) for name, frame in tables.items()}
        self.branches = Branches(tables.get("levels", pd.DataFrame()), study)
        self.correct = Correct(tables.get("correct", pd.DataFrame()))


def indexed(tables: Tables, study: Mapping[str, Any] | None = None) -> Indexed:
    """Return tables that cache what is read from them."""
    return tables if isinstance(tables, Indexed) and study is None else Indexed(tables, study)


@dataclass(frozen=True)
class Selection:
    """Some rows of a table, what was asked for, and what was chosen among several that fit."""

    columns: Columns
    at: NDArray[np.intp]
    asked: str
    note: str = ""

    def __len__(self) -> int:
        return len(self.at)

    def numbers(self, column: str) -> NDArray[np.float64]:
        """A column as floats, NaN where there is none: a regression has no error."""
        return self.columns.numbers(column)[self.at] if column in self.columns.names else np.full(len(self), nan)

    def words(self, column: str) -> list[str]:
        """A column as text."""
        found = self.columns[column][self.at] if column in self.columns.names else [""] * len(self)
        return [str(value) for value in found]

    def keep(self, wanted: NDArray[np.bool_], note: str = "") -> Selection:
        """Those of the rows that are wanted."""
        return replace(self, at=self.at[wanted], note=", ".join(n for n in (self.note, note) if n))

    def prefer(self, column: str, order: Sequence[str], what: str = "{}") -> Selection:
        """The rows of the first value of ``order`` that is present, else of the first by name; a choice is noted."""
        words = self.words(column)
        present = sorted(set(words), key=lambda w: (order.index(w) if w in order else len(order), w))
        if len(present) < 2:
            return self
        return self.keep(np.array([w == present[0] for w in words]), what.format(present[0]))

    def extreme(self, column: str, take: Callable[[NDArray[np.float64]], float], what: str) -> Selection:
        """The rows whose number is ``take`` of all numbers, such as the minimum."""
        values = self.numbers(column)
        finite = values[np.isfinite(values)]
        if len(np.unique(finite)) < 2:
            return self
        chosen = take(finite)
        return self.keep(values == chosen, what.format(f"{chosen:g}"))

    def one_view(self) -> Selection:
        """One treatment of the statistics, and one part of the examples."""
        chosen = self.prefer("buffers", POLICIES, "{} statistics")
        return chosen.extreme("part", np.min, "part {} of the examples")

    def cells(self, values: str | NDArray[np.float64], level: str = "level") -> Cells:
        """One value for each level and seed; the mean where there are several rows."""
        found: dict[tuple[int, int], list[float]] = {}
        column = self.numbers(values) if isinstance(values, str) else values
        rows = zip(self.numbers(level).tolist(), self.numbers("seed").tolist(), column.tolist(), strict=True)
        for where, seed, value in rows:
            if isfinite(where) and isfinite(seed):
                found.setdefault((int(where), int(seed)), []).append(value)
        return {key: fsum(v) / len(v) if all(map(isfinite, v)) else nan for key, v in sorted(found.items())}

    def reasons(self) -> list[str]:
        """The reasons that the rows give for missing values."""
        return sorted({word for word in self.words("reason") if word and word not in ("nan", "None")})


Law = Callable[[int, Sequence[int]], "Estimated | None"]
"""From a level and the seeds with a finite value there to the estimate of their mean; None for the usual one."""


@dataclass(frozen=True)
class Measured:
    """The data of a comparison: a value for each level and seed, densities by level, and notes on both.

    ``law`` gives an estimate whose error is not from the seeds alone.
    """

    values: Cells
    density: Mapping[int, float]
    asked: str
    notes: tuple[str, ...] = field(default=())
    law: Law | None = None


def look(tables: Tables, name: str, **where: str | float | tuple[str, ...]) -> Selection:
    """Return the rows of a table in which every column named has the value, or one of the values, given."""
    known = tables.columns.get(name) if isinstance(tables, Indexed) else None
    columns = Columns(tables.get(name, pd.DataFrame())) if known is None else known
    asked = ", ".join(f"{c} = {' or '.join(v) if isinstance(v, tuple) else v}" for c, v in where.items())
    keep = np.full(len(columns.frame), set(where) <= columns.names)
    for column, value in where.items() if keep.any() else ():
        mine = columns[column] if isinstance(value, (str, tuple)) else columns.numbers(column)
        one_of = value if isinstance(value, tuple) else (value,)
        keep &= np.any([np.asarray(mine == each, dtype=bool) for each in one_of], axis=0)
    return Selection(columns, np.flatnonzero(keep), f"{name} with {asked}")


def densities(tables: Tables, *branches: str) -> dict[int, float]:
    """Return level -> density of some branches, the mean over their networks; level 0 is the dense one."""
    found: dict[int, list[float]] = {}
    rows = look(tables, "levels", branch=branches)
    for level, density in zip(rows.numbers("level").tolist(), rows.numbers("density").tolist(), strict=True):
        if isfinite(level) and isfinite(density):
            found.setdefault(int(level), []).append(density)
    return {0: 1.0} | {level: float(np.mean(values)) for level, values in found.items() if level}


def difference(ours: Cells, theirs: Cells, level: int | None = None) -> Cells:
    """Return ours - theirs by level and seed, or against one level of theirs; NaN unless both are finite."""
    pairs = {key: (key[0] if level is None else level, key[1]) for key in ours}
    found = {key: ours[key] - theirs[other] for key, other in pairs.items() if other in theirs}
    return {key: value if isfinite(value) else nan for key, value in found.items()}
