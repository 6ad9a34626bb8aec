"""What the tables say about the claims: effects with intervals over seeds, and a plain reading of each.

The seed is the unit. Solutions are paired by seed at the same level; a pair with a missing or infinite value
is left out, and ``n`` counts the pairs that are left. A reading is not a verdict: each row stands alone, with
no correction for how many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from math import isfinite

import pandas as pd

from sublevel.stats import Paired, paired
from sublevel.tables import COLUMNS

LEVEL = 0.95
"""The confidence level of every interval."""

FEWEST_SEEDS = 3
"""Below this many pairs nothing is read from an interval."""

MARGINS = {"C1": 0.005}
"""How much worse still counts as matching, in the unit of the claim: 0.5 points of test error."""

UNITS = {"test error": "test_error", "train loss": "train_loss"}
"""Unit of an effect -> column of ``levels``."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the claims table; its fields are the table's columns but for those of `Paired`."""

    comparison: str
    level: int
    density: float
    unit: str
    result: Paired
    reading: str


@dataclass(frozen=True)
class Claim:
    """One claim: its statement, and the function that reads its rows from ``levels``."""

    name: str
    statement: str
    rows: Callable[[pd.DataFrame], Iterator[Row]]


CLAIMS: dict[str, Claim] = {}


def claim(name: str, statement: str) -> Callable[[Callable[[pd.DataFrame], Iterator[Row]]], Callable]:
    """Register a function from the ``levels`` table to `Row` under a claim's name and its one sentence."""

    def register(rows: Callable[[pd.DataFrame], Iterator[Row]]) -> Callable:
        CLAIMS[name] = Claim(name, statement, rows)
        return rows

    return register


@claim("C1", "IMP with rewinding matches the dense network's test error.")
def matches_dense(levels: pd.DataFrame) -> Iterator[Row]:
    """Non-inferiority of imp to dense at each level; the margin stands in `MARGINS`."""
    yield from compare(levels, "imp", "dense", "test error", within_margin, reference_level=0)


@claim("C2", "IMP's mask from a new initialisation, or a random mask, does worse.")
def needs_mask_and_weights(levels: pd.DataFrame) -> Iterator[Row]:
    """Test error of the controls over imp's."""
    for branch in ("reinit", "random-prune"):
        yield from compare(levels, branch, "imp", "test error", better_or_worse)


@claim("C3", "Iterative pruning beats one-shot pruning to the same number of weights.")
def beats_oneshot(levels: pd.DataFrame) -> Iterator[Row]:
    """Test error of one-shot pruning over imp's, at equal density and not at equal training cost."""
    yield from compare(levels, "oneshot", "imp", "test error", better_or_worse)


@claim("C4", "Rewinding beats fine-tuning.")
def beats_finetuning(levels: pd.DataFrame) -> Iterator[Row]:
    """Test error and train loss of fine-tuning over imp's, told apart."""
    for branch in ("finetune", "finetune-mask"):
        for unit in UNITS:
            yield from compare(levels, branch, "imp", unit, better_or_worse)


def claims(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return one row per claim, comparison, unit and level; claims whose branches are absent have none.

    ``tables`` holds at least ``levels``. ``effect`` is the first branch of ``comparison`` minus the
    second, ``low`` and ``high`` its 95% t interval over paired seeds, ``p`` and ``p_exact`` the two-sided t
    and sign-flip tests of no difference.
    """
    levels = tables["levels"]
    lines = [
        {"claim": each.name, "statement": each.statement, **asdict(row), **asdict(row.result)}
        for each in sorted(CLAIMS.values(), key=lambda each: (len(each.name), each.name))
        for row in each.rows(levels)
    ]
    return pd.DataFrame(lines, columns=list(COLUMNS["claims"]))


def compare(
    levels: pd.DataFrame,
    branch: str,
    reference: str,
    unit: str,
    read: Callable[[Paired], str],
    *,
    reference_level: int | None = None,
) -> Iterator[Row]:
    """Yield ``branch`` minus ``reference`` at every level that both have, or against one level for all."""
    ours, theirs = of_branch(levels, branch), of_branch(levels, reference)
    for level in sorted(set(ours["level"].tolist())):
        here = ours.loc[ours["level"] == level]
        there = theirs.loc[theirs["level"] == (level if reference_level is None else reference_level)]
        if there.empty:
            continue
        result = paired(*by_seed(here, there, UNITS[unit]), level=LEVEL)
        yield Row(
            comparison=f"{branch} - {reference}",
            level=int(level),
            density=float(here["density"].to_numpy().mean()),
            unit=unit,
            result=result,
            reading=read(result) if result.n >= FEWEST_SEEDS else "not decided: fewer than 3 seeds",
        )


def of_branch(levels: pd.DataFrame, branch: str) -> pd.DataFrame:
    """Return the rows of one branch."""
    return levels.loc[levels["branch"] == branch]


def by_seed(ours: pd.DataFrame, theirs: pd.DataFrame, column: str) -> tuple[list[float], list[float]]:
    """Return the two columns over the seeds that have a finite value in both, in the order of the seeds."""
    a, b = (dict(zip(t["seed"].tolist(), numbers(t.loc[:, column]), strict=True)) for t in (ours, theirs))
    seeds = sorted(seed for seed in a.keys() & b.keys() if isfinite(a[seed]) and isfinite(b[seed]))
    return [a[seed] for seed in seeds], [b[seed] for seed in seeds]


def numbers(column: pd.Series) -> list[float]:
    """Return a column as floats, NaN where there is none: a regression has no error."""
    return [float(value) for value in pd.Series(pd.to_numeric(column, errors="coerce")).astype(float)]


def within_margin(result: Paired) -> str:
    """Read C1 off the interval: all of it below the margin, all of it above, or neither."""
    margin = MARGINS["C1"]
    if result.high < margin:
        return f"within {100 * margin:g} points of dense"
    if result.low > margin:
        return f"worse than dense by more than {100 * margin:g} points"
    return undecided(result)


def better_or_worse(result: Paired) -> str:
    """Read who is better off an interval of (other - imp), where less is better."""
    if result.low > 0:
        return "imp better"
    if result.high < 0:
        return "imp worse"
    return undecided(result)


def undecided(result: Paired) -> str:
    """Say that the seeds there are do not decide."""
    return f"not decided by {result.n} seeds"
