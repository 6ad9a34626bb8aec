"""What most figures share: views, axes, one series per branch, the dense network as a line."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from sublevel.report.describe import Axis, Panel, Series, View, view
from sublevel.report.figures.measured import each_branch, measured
from sublevel.report.frame import Frame
from sublevel.report.numbers import estimate, percent
from sublevel.report.palette import OWN, PLAIN, Style, dashed, ramp
from sublevel.report.prepare import choices, where
from sublevel.report.terms import shown

POINTS = 100.0  # fractions are drawn as percentages
DOTTED = dashed(PLAIN, "dot")


def views(
    table: Frame, columns: Sequence[str], panels: Callable[[Frame], Sequence[Panel]], by: Sequence[str] = ()
) -> list[View]:
    """A view of the rows of each combination of some columns, sorted by ``by`` (these columns)."""
    found = [(c, where(table, **c)) for c in choices(table, columns, by)]
    return [view(panels(rows), **{k: shown(k, v) for k, v in c.items()}) for c, rows in found]


def networks(
    table: Frame, columns: Sequence[str], panels: Callable[[Frame], Sequence[Panel]], by: Sequence[str] = ()
) -> list[View]:
    """`beside_dense` of figures with a line for each network: in one view where no branch has several levels.

    Checkpoints that were trained elsewhere are such networks, and are to be compared.
    """
    if not by_name(table):
        return beside_dense(table, columns, panels, by)
    return views(table, [c for c in columns if c != "branch"], panels, [c for c in by if c != "branch"])


def by_name(table: Frame) -> bool:
    """Whether the branch alone tells one network from the others."""
    return bool((table.groupby("branch")["level"].nunique() < 2).all())


def beside_dense(
    table: Frame, columns: Sequence[str], panels: Callable[[Frame], Sequence[Panel]], by: Sequence[str] = ()
) -> list[View]:
    """`views` of each branch, in which the dense network that it comes from is seen too."""
    found = []
    for c in choices(sparse(table), columns, by):
        rest = {k: v for k, v in c.items() if k != "branch"}
        rows = where(table[table["branch"].isin({c["branch"], "dense"})], **rest)
        found.append(view(panels(rows), **{k: shown(k, v) for k, v in c.items()}))
    return found


def sparse(table: Frame) -> Frame:
    """The rows without the dense network, or all where there is nothing else."""
    found = table[table["branch"] != "dense"]
    return found if len(found) else table


def with_network(table: Frame) -> Frame:
    """The rows with the column ``network``: its name in words."""
    names = [b if b == "dense" else f"{b}, level {v:g}" for b, v in zip(table["branch"], table["level"], strict=True)]
    return table.assign(network=names)


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
    ticks = tuple((v, percent(v)) for v in inside)
    return Axis(title="weights remaining", log=True, reverse=True, ticks=ticks, hover=".3~p")


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
    pruned = kept["branch"] != "dense"
    ends = [1.0, float(kept.loc[pruned, "density"].min())] if pruned.any() else [1.0]
    found = []
    for s in measured(where(kept, branch="dense").assign(level=0.0), value, "dense", PLAIN, x="level", scale=scale,
                      log=log, dots=False):  # fmt: skip
        long = {k: [*getattr(s, k)] * len(ends) for k in ("y", "low", "high", "hover")}
        both = s.samples and replace(
            s.samples, seed=[*s.samples.seed] * len(ends), y=[*s.samples.y] * len(ends),
            at=[i for i in range(len(ends)) for _ in s.samples.at],
        )  # fmt: skip
        look = {"mode": "line", "interval": "band"} if len(ends) > 1 else {"mode": "points", "interval": "bars"}
        found.append(replace(s, x=ends, samples=both, **long, **look))  # pyright: ignore[reportArgumentType]
    return found + each_branch(frame[frame["branch"] != "dense"], value, scale=scale, log=log, dots=True)


def bare(series: Iterable[Series], **changes: object) -> list[Series]:
    """Lines with no markers, no interval and nothing under the pointer but their place."""
    return [replace(s, mode="line", low=None, high=None, hover=(), **changes) for s in series]  # pyright: ignore


def network(branch: str, level: float, shown: Frame) -> tuple[str, Style]:
    """The name and the look of a network among those that are shown: its branch's, or its level's."""
    if by_name(shown):
        return branch, OWN
    return "dense" if branch == "dense" else f"level {level:g}", level_look(
        branch, level, sorted(shown["level"].unique())
    )


def level_look(branch: str, level: float, levels: Sequence[float]) -> Style:
    """The dense network in grey, levels from cold to warm."""
    return PLAIN if branch == "dense" else Style(ramp(levels.index(level), len(levels)))


def hover(means: Frame) -> list[str]:
    """The text at each mean: its interval and the number of seeds."""
    rows = zip(means["mean"], means["low"], means["high"], means["n"], strict=True)
    return [f"{estimate(m, low, high)}, n = {int(n)}" for m, low, high, n in rows]


def flat(label: str, value: float, axis_values: Iterable[float], style: Style = DOTTED) -> Series:
    """A horizontal line of reference over the range of an axis, such as a margin."""
    finite = [v for v in axis_values if np.isfinite(v)]
    ends = [max(finite), min(finite)] if finite else []
    return Series(label=label, x=ends, y=[value] * len(ends), style=style, mode="line")


def chance(frame: Frame, value: str, scale: float = 1.0) -> list[Series]:
    """What chance gives at each density, as a dotted line."""
    rows = frame.groupby("level")[["density", value]].mean().dropna()
    mode = "line" if len(rows) > 1 else "points"
    return [Series(label="chance", x=list(rows["density"]), y=list(rows[value] * scale), style=DOTTED, mode=mode)]
