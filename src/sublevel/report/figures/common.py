"""What most figures share: the density axis, one series per branch, the dense network as a line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from sublevel.report.describe import Axis, Panel, Samples, Series, legend, view
from sublevel.report.figures.measured import measured
from sublevel.report.frame import Column, Frame
from sublevel.report.numbers import estimate, percent
from sublevel.report.palette import PLAIN, Style, known_first, styles
from sublevel.report.prepare import over_seeds, where

SPACES = {"own": "own subspace", "all": "original space", "next": "next level's"}
POINTS = 100.0  # fractions are drawn as percentages


def density_axis(densities: Iterable[float]) -> Axis:
    """A logarithmic axis of weights remaining, dense at the left, with ticks of 1, 2, 5 per decade.

    >>> [text for _, text in density_axis([1.0, 0.1]).ticks]
    ['100%', '50%', '20%', '10%']
    """
    finite = [d for d in densities if np.isfinite(d) and d > 0]
    low, high = (min(finite), max(finite)) if finite else (0.1, 1.0)
    decades = np.log10(high / low)
    steps = (1, 2, 5) if decades < 2.2 else (1, 3) if decades < 4 else (1,)
    values = [s * 10.0**e for e in range(-8, 1) for s in steps]
    inside = sorted((v for v in values if low / 1.1 <= v <= high * 1.1), reverse=True)
    if len(inside) < 2:
        inside = sorted({high, low}, reverse=True)
    return Axis(
        title="weights remaining",
        log=True,
        reverse=True,
        ticks=tuple((v, percent(v)) for v in inside),
        hover=".3~p",
    )


def level_axis(levels: Iterable[float], title: str = "level") -> Axis:
    """A linear axis of levels, or of another count, with at most twelve whole ticks."""
    found = sorted({int(v) for v in levels if np.isfinite(v)})
    step = max(1, -(-len(found) // 12))
    return Axis(title=title, ticks=tuple((float(v), str(v)) for v in found[::step]), hover="d")


def density_panels(
    frame: Frame, values: Sequence[tuple[str, str, float, bool]], extra: Sequence[Series] = ()
) -> list[Panel]:
    """One panel per (column, title, scale, log y) of a frame with ``branch, level, seed, density``.

    What is scaled to `POINTS` is a share.
    """
    axis = density_axis(frame["density"])
    return [
        Panel(
            title=title,
            x=axis,
            y=Axis(log=log, share=scale == POINTS),
            series=[*by_branch(frame, column, scale, log=log), *extra],
        )
        for column, title, scale, log in values
    ]


def by_branch(frame: Frame, value: str, scale: float = 1.0, *, log: bool = False) -> list[Series]:
    """The mean of a value over seeds against density, one series for each branch.

    The dense network is a horizontal line with its interval. Where the y axis is logarithmic the mean is
    the geometric one and the interval that of the logarithms; values of 0 or less have no place there.
    """
    kept = frame[np.isfinite(frame[value]) & ((frame[value] > 0) | (not log))]
    look = styles(frame["branch"])
    others = [b for b in known_first(kept["branch"]) if b != "dense"]
    span = kept.loc[kept["branch"] != "dense", "density"]
    found: list[Series] = []
    dense = where(kept, branch="dense")
    if not dense.empty:
        found.append(_dense(dense, value, span, scale, log))
    lines = (measured(where(kept, branch=b), value, b, look[b], scale=scale, log=log, dots=True) for b in others)
    return found + [s for line in lines for s in line]


def mean_of(frame: Frame, value: str, by: Sequence[str], scale: float = 1.0, log: bool = False) -> Frame:
    """``over_seeds`` in the units of the figure: scaled, and through the logarithm where the axis is one."""
    values = frame[value].to_numpy(dtype=float) * scale
    if log:
        values = np.log(np.where(values > 0, values, np.nan))
    out = over_seeds(frame[list(by)].assign(value=values), "value", by)
    return out.assign(**{c: np.exp(out[c]) for c in ("mean", "low", "high")}) if log else out


def samples(
    frame: Frame, value: str, means: Frame, by: str, scale: float = 1.0, *, log: bool = False, dots: bool = False
) -> Samples | None:
    """The single seeds behind ``means``, which ``mean_of`` took by the same column; None for a single seed."""
    if means.empty or means["n"].max() < 2:
        return None
    values = frame[value].to_numpy(dtype=float) * scale
    keep = np.isfinite(values) & ((values > 0) | (not log))
    at = np.searchsorted(means[by].to_numpy(), frame[by].to_numpy()[keep])
    seed = frame["seed"].to_numpy()[keep]
    return Samples(seed=seed.tolist(), at=at.tolist(), y=values[keep].tolist(), geometric=log, dots=dots)


def hover(means: Frame) -> list[str]:
    """The text at each mean: its interval and the number of seeds."""
    rows = zip(means["mean"], means["low"], means["high"], means["n"], strict=True)
    return [f"{estimate(m, low, high)}, n = {int(n)}" for m, low, high, n in rows]


def _dense(frame: Frame, value: str, span: Column, scale: float, log: bool) -> Series:
    mean = mean_of(frame, value, ["branch"], scale, log)
    x = [1.0, float(span.min())] if len(span) else [1.0]
    copies = pd.concat([mean] * len(x))
    single = samples(frame, value, mean, "branch", scale, log=log)
    both = single and replace(
        single, seed=[*single.seed] * len(x), y=[*single.y] * len(x),
        at=[i for i in range(len(x)) for _ in single.at],
    )  # fmt: skip
    return Series(
        label="dense", x=x, y=list(copies["mean"]), low=list(copies["low"]), high=list(copies["high"]),
        style=PLAIN, mode="line" if len(x) > 1 else "points", interval="band" if len(x) > 1 else "bars",
        hover=hover(copies), samples=both,
    )  # fmt: skip


def flat(label: str, value: float, axis_values: Iterable[float], style: Style = PLAIN) -> Series:
    """A horizontal line of reference over the range of an axis, such as a margin."""
    finite = [v for v in axis_values if np.isfinite(v)]
    ends = [max(finite), min(finite)] if finite else []
    return Series(label=label, x=ends, y=[value] * len(ends), style=style, mode="line")


__all__ = [
    "POINTS", "SPACES", "by_branch", "density_axis", "density_panels", "flat", "hover",
    "legend", "level_axis", "mean_of", "samples", "view",
]  # fmt: skip
