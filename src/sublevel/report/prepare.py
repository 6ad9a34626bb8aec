"""Tables prepared for drawing: typed, joined with densities, averaged over seeds."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from sublevel.claims.branches import Branches
from sublevel.claims.margins import FEWEST_SEEDS, INTERVAL
from sublevel.report.frame import Column, Frame
from sublevel.report.terms import rank
from sublevel.tables import TABLES, Table, declared

ABSENT = {"part": 0.0, "operator": "hessian", "when": "before"}
"""Values of columns that older tables lack: the first part of the examples, the Hessian, before pruning."""
FLAGS = {"converged", "stationary"}


def clean(tables: Mapping[str, Frame], schemas: Mapping[str, Mapping[str, str]] | None = None) -> dict[str, Frame]:
    """Every table that is known or given with every column, of one type; what is missing is empty, not an error.

    Numbers become floats, names become strings (empty for a missing one), flags become 1.0, 0.0 or NaN. Tables are
    known from the ``schemas`` that a run's summary has under ``tables``, and from the measurements that this process
    has imported. Any other table keeps the types of its frame, and so does a clean one.
    """
    stated = declared(schemas or {})
    known = {name: Table(dict.fromkeys(t, ""), frozenset(t.select_dtypes(object))) for name, t in tables.items()}
    for name in {**stated, **TABLES}:
        both = [of[name] for of in (stated, TABLES) if name in of]
        columns = {c: "" for each in both for c in each.columns}
        known[name] = Table(columns, frozenset().union(*(each.words for each in both)))
    return {name: _clean(tables.get(name), name, table) for name, table in known.items()}


def only_measured(levels: Frame) -> bool:
    """Whether a table of levels is of networks that were trained elsewhere and only measured."""
    return "base" in levels and bool(len(levels)) and bool((levels["base"] == "given").all())


def _clean(frame: Frame | None, name: str, table: Table) -> Frame:
    columns = list(table.columns)
    frame = pd.DataFrame(columns=columns) if frame is None else frame
    out = pd.DataFrame({c: _column(frame, c, c in table.words) for c in columns}).reset_index(drop=True)
    if "part" in columns and "part" not in table.words:
        out["part"] = out["part"].fillna(ABSENT["part"])
    if "operator" in columns and name != "estimates":  # a learning coefficient has no operator
        out["operator"] = out["operator"].replace("", ABSENT["operator"])
    if "when" in columns:
        out["when"] = out["when"].replace("", ABSENT["when"])
    return out


def _column(frame: Frame, column: str, text: bool) -> Column:
    if column not in frame.columns:
        return pd.Series(["" if text else math.nan] * len(frame), index=frame.index, dtype=object if text else float)
    values = frame[column]
    if text:
        return values.astype(object).where(values.notna(), "").map(str).astype(object)
    if column in FLAGS:
        values = values.map(lambda v: {"true": 1.0, "false": 0.0}.get(str(v).lower(), v))
    return pd.Series(pd.to_numeric(values, errors="coerce")).astype(float)


def over_seeds(frame: Frame, value: str, by: Sequence[str], scale: float = 1.0, *, log: bool = False) -> Frame:
    """Mean of ``value`` times ``scale`` over the seeds of each group, with the 90% t interval of the mean.

    mean +- t_{0.95, n-1} * s / sqrt(n), with s the sample standard deviation. Below three seeds there is no
    interval: ``low`` and ``high`` are NaN. Rows without a value do not count. ``log``: the geometric mean, with the
    interval of the logarithms; values of 0 or less do not count.

    >>> frame = pd.DataFrame({"level": [1, 1, 1], "v": [1.0, 2.0, 3.0]})
    >>> over_seeds(frame, "v", ["level"]).round(4).to_dict("records")
    [{'level': 1, 'mean': 2.0, 'low': 0.3141, 'high': 3.6859, 'n': 3}]
    """
    values = frame[value].to_numpy(dtype=float) * scale
    keep = np.isfinite(values) & ((values > 0) | (not log))
    kept = [frame[column].to_numpy()[keep] for column in by]
    code, first, n = _groups(kept)
    mean, low, high = t_intervals(values[keep], code, n, log=log)
    return pd.DataFrame({c: key[first] for c, key in zip(by, kept, strict=True)} | {"mean": mean, "low": low,
                        "high": high, "n": n})  # fmt: skip


def t_intervals(
    values: np.ndarray, code: np.ndarray, n: np.ndarray, *, log: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of each group and the ends of its 90% t interval (NaN below three values); ``log``: of the logarithms.

    ``code`` is the group of each value, ``n`` the size of each group. With two values the factor t is 6.3: such an
    interval says nothing about the mean and hides all others on its axis.

    >>> mean, low, high = t_intervals(np.array([1.0, 2.0, 3.0, 5.0, 7.0]), np.array([0, 0, 0, 1, 1]), np.array([3, 2]))
    >>> mean.tolist(), high.round(4).tolist()
    ([2.0, 6.0], [3.6859, nan])
    """
    values = np.log(values) if log else values
    mean = np.bincount(code, values, minlength=len(n)) / n
    squares = np.bincount(code, (values - mean[code]) ** 2, minlength=len(n))
    t = stdtrit(np.where(n >= FEWEST_SEEDS, n - 1.0, np.nan), (1 + INTERVAL) / 2)
    half = t * np.sqrt(squares / np.maximum(n - 1, 1) / n)
    ends = mean, mean - half, mean + half
    return (np.exp(ends[0]), np.exp(ends[1]), np.exp(ends[2])) if log else ends


def _groups(keys: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Group numbers in the order of the keys, with the first row and the size of each group."""
    code = np.zeros(len(keys[0]), dtype=np.int64)
    for key in keys:
        place, distinct = pd.factorize(key, sort=True)
        code = code * (len(distinct) + 1) + place
    _, first, dense, n = np.unique(code, return_index=True, return_inverse=True, return_counts=True)
    return dense, first, n


def with_density(frame: Frame, levels: Frame, level: str = "level") -> Frame:
    """Add the density of each row's solution, looked up in the table of levels.

    A solution that has no row there (its evaluation failed) takes the mean of its branch and level, then of
    its level in any branch; the dense network has density 1.
    """
    out = frame.copy()
    density = pd.Series(math.nan, index=out.index, dtype=float)
    for keys in (["branch", "level", "seed"], ["branch", "level"], ["level"]):
        mean = levels.groupby(keys)["density"].mean()
        here = [level if k == "level" else k for k in keys]
        index = pd.MultiIndex.from_frame(out[here]) if len(here) > 1 else pd.Index(out[here[0]])
        density = density.fillna(pd.Series(mean.reindex(index).to_numpy(dtype=float), index=out.index))
    out["density"] = density.where(out[level] != 0, density.fillna(1.0))
    return out


def without_sweep(tables: Mapping[str, Frame]) -> dict[str, Frame]:
    """The tables without the branches of a sweep of the fraction, which have a figure of their own.

    >>> levels = pd.DataFrame({"branch": ["imp", "one"], "base": "imp", "level": 1, "fraction": [0.2, 0.05]})
    >>> levels = pd.concat([levels, levels.iloc[:1].assign(level=2)])
    >>> without_sweep({"levels": levels, "paths": pd.DataFrame({"branch": ["imp", "one"]})})["paths"]["branch"].tolist()
    ['imp']
    """
    out = Branches(tables["levels"]).swept()
    return {
        name: frame[~frame["branch"].isin(out)] if out and "branch" in frame else frame
        for name, frame in tables.items()
    }


def choices(frame: Frame, columns: Sequence[str], by: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The distinct combinations of some columns, sorted by ``by`` (these columns), each in the order of `terms`.

    >>> choices(pd.DataFrame({"split": ["test", "train", "test"]}), ["split"])
    [{'split': 'train'}, {'split': 'test'}]
    """
    by = by or columns
    names = list(dict.fromkeys([*columns, *by]))
    rows = [dict(zip(names, row, strict=True)) for row in frame[names].drop_duplicates().itertuples(index=False)]
    return [{c: row[c] for c in columns} for row in sorted(rows, key=lambda row: [rank(c, row[c]) for c in by])]


def batchnorm(table: Frame) -> bool:
    """Whether the rows of a table were taken under a policy for BatchNorm's statistics.

    >>> batchnorm(pd.DataFrame({"buffers": ["none", "stored"]})), batchnorm(pd.DataFrame({"buffers": ["none"]}))
    (True, False)
    """
    return bool(set(table["buffers"]) - {"", "none"})


def where(frame: Frame, **equal: object) -> Frame:
    """The rows in which every named column has the given value.

    >>> where(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), b="y").to_dict("records")
    [{'a': 2, 'b': 'y'}]
    """
    keep = np.ones(len(frame), dtype=bool)
    for column, value in equal.items():
        keep &= np.asarray(frame[column].to_numpy() == value, dtype=bool)
    return frame[keep]


def first_part(frame: Frame) -> Frame:
    """The rows on the first part of the examples, which every study has.

    >>> first_part(pd.DataFrame({"part": [0.0, 1.0], "v": [3, 4]}))["v"].tolist()
    [3]
    """
    return where(frame, part=0.0)


def parts_note(frame: Frame, value: str, by: Sequence[str], what: str) -> str:
    """One sentence on how much a value moves between disjoint parts of the examples; empty for a single part.

    The spread of a solution is (max - min) / |mean| over its parts; the sentence gives the median over solutions.

    >>> frame = pd.DataFrame({"seed": [0, 0, 1, 1], "part": [0, 1, 0, 1], "v": [9.0, 11.0, 19.0, 21.0]})
    >>> parts_note(frame, "v", ["seed"], "the largest eigenvalue").partition(" (median")[0].partition("; ")[2]
    'between them the largest eigenvalue spreads by 15%'
    """
    kept = frame[np.isfinite(frame[value])]
    grouped = kept.groupby(list(by))[value]
    spread = ((grouped.max() - grouped.min()) / grouped.mean().abs())[grouped.count() > 1]
    spread = spread[np.isfinite(spread)]
    if spread.empty or kept["part"].nunique() < 2:
        return ""
    return (
        f"The figure shows the first of {kept['part'].nunique()} disjoint parts of the training examples; between them "
        f"{what} spreads by {100 * float(spread.median()):.2g}% (median over solutions of (max - min) / |mean|)."
    )


def doubts_note(table: Frame, what: str) -> str:
    """One sentence on how many rows are ``doubtful``, with the most frequent ``reason``; empty for none.

    Reasons with the same words up to the first number are counted together.

    >>> reasons = ["size 3 is below 50", "size 4 is below 50", ""]
    >>> doubts_note(pd.DataFrame({"doubtful": [True, True, False], "reason": reasons}), "volumes")
    '2 of 3 volumes are unreliable (hollow markers), mostly: size 3 is below 50.'
    """
    doubted = table[table["doubtful"]]
    if doubted.empty or len(doubted) == len(table):
        return ""
    return f"{len(doubted):,} of {len(table):,} {what} are unreliable (hollow markers){_mostly(doubted)}."


def caution(table: Frame, what: str) -> str:
    """The sentence over a figure in which every row is ``doubtful``; empty where one is not.

    >>> caution(pd.DataFrame({"doubtful": [True, True], "reason": ["a saddle", "a saddle"]}), "volumes")
    'None of the 2 volumes of this figure is reliable, mostly: a saddle. Draw no conclusion from them.'
    """
    if table.empty or not table["doubtful"].all():
        return ""
    return (
        f"None of the {len(table):,} {what} of this figure is reliable{_mostly(table)}. Draw no conclusion from them."
    )


def _mostly(doubted: Frame) -> str:
    """The most frequent reason, of those with the same words up to the first number."""
    given = doubted.loc[doubted["reason"] != "", "reason"]
    kind = given.map(lambda r: re.split(r"[-+]?[0-9]", r, maxsplit=1)[0])
    return f", mostly: {given[kind == kind.value_counts().index[0]].iloc[0]}" if len(given) else ""


def seeds_note(frame: Frame, by: Sequence[str] = ("branch", "level"), *, singles: bool = True) -> str:
    """One sentence on the intervals and the number of seeds."""
    counts = frame.groupby(list(by))["seed"].nunique()
    if counts.empty:
        return ""
    low, high = int(counts.min()), int(counts.max())
    if high < 2:
        return "One seed: points only, no intervals."
    n = f"n = {high}" if low == high else f"n = {low} to {high}"
    dots = "; single seeds are faint dots" if singles else ""
    if high < FEWEST_SEEDS:
        return f"Means over seeds ({n}), without intervals: {FEWEST_SEEDS} seeds make one{dots}."
    few = f", none below {FEWEST_SEEDS} seeds" if low < FEWEST_SEEDS else ""
    return f"Means over seeds with 90% t intervals ({n}{few}){dots}."
