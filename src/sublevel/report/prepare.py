"""Tables made ready to draw: typed, joined to densities, averaged over seeds. Nothing here draws."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from sublevel.report.frame import Column, Frame
from sublevel.tables import COLUMNS

TEXT = {
    *("branch", "buffers", "layer", "leg", "split", "path", "order", "subspace", "space", "end", "stop"),
    *("method", "reason", "claim", "statement", "comparison", "unit", "reading", "cell", "kind"),
}
FLAGS = {"converged", "stationary"}


def clean(tables: Mapping[str, Frame]) -> dict[str, Frame]:
    """Every table of the schema with every column, of one type; what is missing is empty, not an error.

    Numbers become floats, names become strings (empty for a missing one), flags become 1.0, 0.0 or NaN.
    """
    return {name: _clean(tables.get(name), name) for name in COLUMNS}


def _clean(frame: Frame | None, name: str) -> Frame:
    columns = COLUMNS[name]
    frame = pd.DataFrame(columns=list(columns)) if frame is None else frame
    text = TEXT | {"error"} if name == "failures" else TEXT
    return pd.DataFrame({c: _column(frame, c, c in text) for c in columns}).reset_index(drop=True)


def _column(frame: Frame, column: str, text: bool) -> Column:
    if column not in frame.columns:
        return pd.Series(["" if text else math.nan] * len(frame), index=frame.index, dtype=object if text else float)
    values = frame[column]
    if text:
        return values.astype(object).where(values.notna(), "").map(str).astype(object)
    if column in FLAGS:
        values = values.map(lambda v: {"true": 1.0, "false": 0.0}.get(str(v).lower(), v))
    return pd.Series(pd.to_numeric(values, errors="coerce")).astype(float)


def over_seeds(frame: Frame, value: str, by: Sequence[str]) -> Frame:
    """Mean of ``value`` over the seeds of each group, with the 95% t interval of the mean.

    mean +- t_{0.975, n-1} * s / sqrt(n), with s the sample standard deviation. With n = 1 there is no
    interval: ``low`` and ``high`` are NaN. Rows without a value do not count.

    >>> frame = pd.DataFrame({"level": [1, 1, 1], "v": [1.0, 2.0, 3.0]})
    >>> over_seeds(frame, "v", ["level"]).round(4).to_dict("records")
    [{'level': 1, 'mean': 2.0, 'low': -0.4841, 'high': 4.4841, 'n': 3}]
    """
    kept = frame[np.isfinite(frame[value].to_numpy(dtype=float))]
    values = kept[value].to_numpy(dtype=float)
    code, first, n = _groups([kept[column].to_numpy() for column in by])
    mean = np.bincount(code, values, minlength=len(n)) / n
    squares = np.bincount(code, (values - mean[code]) ** 2, minlength=len(n))
    half = stdtrit(np.where(n > 1, n - 1.0, np.nan), 0.975) * np.sqrt(squares / np.maximum(n - 1, 1) / n)
    keys = {column: kept[column].to_numpy()[first] for column in by}
    return pd.DataFrame({**keys, "mean": mean, "low": mean - half, "high": mean + half, "n": n})


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


def choices(frame: Frame, columns: Sequence[str]) -> list[dict[str, str]]:
    """The distinct combinations of some text columns, in a stable order.

    >>> choices(pd.DataFrame({"split": ["train", "test", "train"]}), ["split"])
    [{'split': 'test'}, {'split': 'train'}]
    """
    distinct = frame[list(columns)].drop_duplicates().sort_values(list(columns))
    return [{c: str(v) for c, v in zip(columns, row, strict=True)} for row in distinct.itertuples(index=False)]


def where(frame: Frame, **equal: object) -> Frame:
    """The rows in which every named column has the given value.

    >>> where(pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}), b="y").to_dict("records")
    [{'a': 2, 'b': 'y'}]
    """
    keep = np.ones(len(frame), dtype=bool)
    for column, value in equal.items():
        keep &= np.asarray(frame[column].to_numpy() == value, dtype=bool)
    return frame[keep]


def seeds_note(frame: Frame, by: Sequence[str] = ("branch", "level"), *, singles: bool = True) -> str:
    """One sentence on what the intervals are, and over how many seeds."""
    if frame.empty:
        return ""
    counts = frame.groupby(list(by))["seed"].nunique()
    low, high = int(counts.min()), int(counts.max())
    if high < 2:
        return "One seed: points only, no intervals."
    n = f"n = {high}" if low == high else f"n = {low} to {high}"
    return f"Means over seeds with 95% t intervals ({n}){'; single seeds are faint' if singles else ''}."
