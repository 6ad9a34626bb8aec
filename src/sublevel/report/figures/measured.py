"""Series of estimates: the mean over seeds, the error of a single one, and what is not to be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sublevel.report.describe import Samples, Series
from sublevel.report.frame import Frame
from sublevel.report.numbers import estimate
from sublevel.report.palette import Style, known_first
from sublevel.report.prepare import t_intervals

ERRORS = 2.0
"""Standard errors to either side that a bar reaches where there is one seed."""

EXTRA = ("se", "doubtful", "reason", "more")


def errors_note(frame: Frame) -> str:
    """What the bars are where there is one seed; empty where there is none such."""
    counts = frame.groupby(["branch", "level"])["seed"].nunique()
    if not (counts == 1).any() or not np.isfinite(frame["se"]).any():
        return ""
    return "Where there is one seed, bars are two standard errors of the estimate (none where it is hollow)."


def measured(
    frame: Frame,
    value: str,
    label: str,
    style: Style,
    *,
    by: str = "level",
    x: str = "density",
    scale: float = 1.0,
    log: bool = False,
    dots: bool = False,
) -> list[Series]:
    """The mean of a value over seeds for each ``by``, at the mean of ``x``; hollow where any seed is doubtful.

    Columns that are used where the frame has them: ``se`` (an interval for single seeds), ``doubtful`` with
    ``reason`` (hollow, and why under the pointer), ``more`` (a text under the pointer). Single seeds are drawn as
    dots where there are at most five, or where ``dots``.
    """
    values = frame[value].to_numpy(dtype=float) * scale
    keep = np.isfinite(values) & ((values > 0) | (not log))
    if not keep.any():
        return []
    columns = {c: frame[c].to_numpy()[keep] for c in {by, x, "seed", *EXTRA} if c in frame}
    values = values[keep]
    _, first, code, n = np.unique(columns[by], return_index=True, return_inverse=True, return_counts=True)
    doubtful = np.bincount(code, columns.get("doubtful", np.zeros(len(code)))) > 0
    mean, low, high = _intervals(values, code, n, log)
    if "se" in columns:
        # The error of an estimate that is not to be trusted is no better than the estimate.
        half = np.where((n == 1) & ~doubtful, ERRORS * scale * columns["se"][first], np.nan)
        low, high = np.where(n == 1, mean - half, low), np.where(n == 1, mean + half, high)
        low = np.where((low > 0) | (not log), low, np.nan)
    place = np.bincount(code, columns[x].astype(float)) / n
    texts = [_text(columns, code, first, i, (mean[i], low[i], high[i]), int(n[i])) for i in range(len(n))]
    if by == "level":
        texts = [f"{t}, level {v:g}" for t, v in zip(texts, columns[by][first], strict=True)]
    single = None
    if n.max() > 1:
        single = Samples(
            seed=columns["seed"].tolist(),
            at=code.tolist(),
            y=values.tolist(),
            geometric=log,
            dots=dots or int(n.max()) <= 5,
        )
    return [Series(
        label=label, x=place.tolist(), y=mean.tolist(), low=low.tolist(), high=high.tolist(), style=style,
        hollow=doubtful.tolist() if "doubtful" in columns else (), hover=texts, samples=single,
    )]  # fmt: skip


def _intervals(values: np.ndarray, code: np.ndarray, n: np.ndarray, log: bool) -> tuple[np.ndarray, ...]:
    """Means and t intervals, through the logarithm where the axis is one."""
    mean, half = t_intervals(np.log(values) if log else values, code, n)
    ends = (mean, mean - half, mean + half)
    return tuple(np.exp(v) for v in ends) if log else ends


def _text(
    columns: dict[str, np.ndarray], code: np.ndarray, first: np.ndarray, group: int, ends: tuple[float, ...], n: int
) -> str:
    """The value with its interval; what else is known of a single seed; why a point is hollow."""
    parts = [f"{estimate(*ends)}, n = {n}"]
    if n == 1 and "more" in columns:
        parts.append(str(columns["more"][first[group]]))
    if "doubtful" in columns:
        reasons = columns["reason"][(code == group) & columns["doubtful"].astype(bool)]
        parts += [shortened(str(r) or "not to be trusted") for r in reasons[:1]]
    return "; ".join(p for p in parts if p)


def shortened(text: str, length: int = 110) -> str:
    """A text cut at a word, for the pointer.

    >>> shortened("one two three", 9)
    'one two …'
    """
    return (
        text if len(text) <= length else text[: text.rindex(" ", 0, length) if " " in text[:length] else length] + " …"
    )


def networks(frame: Frame) -> list[tuple[str, str, float]]:
    """(name, branch, level) of every network in a table: dense first, then branch by branch down the levels."""
    rank = {b: i for i, b in enumerate(known_first(frame["branch"]))}
    pairs = frame[["branch", "level"]].drop_duplicates().itertuples(index=False)
    found = sorted(((str(b), float(v)) for b, v in pairs), key=lambda p: (rank[p[0]], p[1]))
    return [(b if b == "dense" else f"{b}, level {v:g}", b, v) for b, v in found]


def with_dense(frame: Frame, branch: str) -> Frame:
    """The rows of a branch and those of the dense network that it comes from."""
    return frame[frame["branch"].isin({branch, "dense"})]


def sparse_branches(frame: Frame) -> Sequence[str]:
    """The branches of a table without the dense network, or that alone where there is nothing else."""
    found = known_first(frame["branch"])
    return [b for b in found if b != "dense"] or found
