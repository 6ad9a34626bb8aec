"""Series of estimates: the mean over seeds, the error of a single one, and what is unreliable."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sublevel.report.describe import PerSeed, Series
from sublevel.report.frame import Frame
from sublevel.report.numbers import estimate
from sublevel.report.palette import OWN, Style, known_first
from sublevel.report.prepare import t_intervals, where

ERRORS = 2.0
"""Standard errors to either side that a bar reaches where there is one seed."""

EXTRA = ("se", "doubtful", "reason", "more")


def errors_note(frame: Frame) -> str:
    """What the bars are where there is one seed; empty where there is none such."""
    counts = frame.groupby(["branch", "level"])["seed"].nunique()
    if not (counts == 1).any() or not np.isfinite(frame["se"]).any():
        return ""
    return "Where there is one seed, bars are two standard errors of the estimate (none where it is hollow)."


def each_branch(frame: Frame, value: str, **options: Any) -> list[Series]:
    """The mean of a value over seeds against density, one series for each branch; see `measured`."""
    lines = (measured(where(frame, branch=b), value, b, OWN, **options) for b in known_first(frame["branch"]))
    return [s for line in lines for s in line]


def measured(
    frame: Frame,
    value: str,
    label: str,
    style: Style,
    *,
    x: str = "density",
    scale: float = 1.0,
    log: bool = False,
    dots: bool | None = None,
) -> list[Series]:
    """The mean of a value over seeds against ``x``, hollow where any seed is doubtful; none without a finite value.

    The groups are the values of ``x``, or the levels for a density, which is then averaged. Columns that are
    used where the frame has them: ``se`` (an interval for single seeds), ``doubtful`` with ``reason`` (hollow, and why
    under the pointer), ``more`` (a text under the pointer). ``dots``: whether single seeds are drawn; None for where
    there are at most five.
    """
    by = "level" if x == "density" else x
    values = frame[value].to_numpy(dtype=float) * scale
    keep = np.isfinite(values) & ((values > 0) | (not log))
    if not keep.any():
        return []
    columns = {c: frame[c].to_numpy()[keep] for c in {by, x, "seed", *EXTRA} if c in frame}
    values = values[keep]
    _, first, code, n = np.unique(columns[by], return_index=True, return_inverse=True, return_counts=True)
    doubtful = np.bincount(code, columns.get("doubtful", np.zeros(len(code)))) > 0
    mean, low, high = t_intervals(values, code, n, log=log)
    if "se" in columns:
        # The error of an estimate that is not to be trusted is no better than the estimate.
        half = np.where(doubtful, np.nan, ERRORS * scale * columns["se"][first])
        low, high = np.where(n == 1, mean - half, low), np.where(n == 1, mean + half, high)
        low = np.where((low > 0) | (not log), low, np.nan)
    single = None
    if n.max() > 1:
        dots = int(n.max()) <= 5 if dots is None else dots
        single = PerSeed(seed=columns["seed"].tolist(), at=code.tolist(), y=values.tolist(), geometric=log, dots=dots)
    ends = zip(mean, low, high, n, strict=True)
    texts, groups = _texts(ends, columns, code, first), columns[by][first].tolist()
    if x == "density":
        texts = [f"{text}, level {level:g}" for text, level in zip(texts, groups, strict=True)]
        groups = (np.bincount(code, columns[x].astype(float)) / n).tolist()
    return [Series(
        label=label, x=groups, y=mean.tolist(), low=low.tolist(), high=high.tolist(), style=style, samples=single,
        hollow=doubtful.tolist() if "doubtful" in columns else (), hover=texts,
    )]  # fmt: skip


def _texts(
    ends: Iterable[tuple[float, float, float, int]], columns: dict[str, np.ndarray], code: np.ndarray, first: np.ndarray
) -> list[str]:
    """The values with what else is known of a single seed, and why a point is hollow."""
    found = []
    for i, (mean, low, high, n) in enumerate(ends):
        parts = [f"{estimate(mean, low, high)}, n = {n}"]
        parts += [str(columns["more"][first[i]])] if n == 1 and "more" in columns else []
        if "doubtful" in columns:
            reasons = columns["reason"][(code == i) & columns["doubtful"].astype(bool)]
            parts += [shortened(str(r) or "unreliable") for r in reasons[:1]]
        found.append("; ".join(p for p in parts if p))
    return found


def shortened(text: str, length: int = 110) -> str:
    """A text cut at a word, for the pointer.

    >>> shortened("one two three", 9)
    'one two …'
    """
    return (
        text if len(text) <= length else text[: text.rindex(" ", 0, length) if " " in text[:length] else length] + " …"
    )
