"""The words for what tables name in short, and the order in which values of a column are shown."""

from __future__ import annotations

from typing import Any

from sublevel.report.palette import BRANCHES

SPACES = {"own": "own subspace", "all": "original space", "next": "next level's"}
OPERATORS = {"hessian": "Hessian", "ggn": "Gauss-Newton", "adaptive": "adaptive"}
WHEN = {"before": "before pruning", "retrained": "after retraining"}
"""Which coordinates, and at which point: those that the next level prunes, or those that this level pruned."""
PAIRS = {"matched-loss": "solution and dense, at matched loss", "prune": "after and before pruning"}
SHOWN: dict[str, dict[str, str]] = {"space": SPACES, "operator": OPERATORS, "when": WHEN, "pair": PAIRS}
"""Column -> value -> what a reader sees."""

PATHS = ("successive", "to-dense", "to-dense-aligned", "from-start", "start-to-dense", "orders")
ORDER: dict[str, tuple[str, ...]] = {
    **{column: tuple(words) for column, words in SHOWN.items()},
    "branch": tuple(BRANCHES),
    "split": ("train",),
    "order": ("shared",),
    "path": PATHS,
}
"""Column -> the values that come first; the others follow by name."""


def rank(column: str, value: Any) -> tuple[int, Any]:
    """Where a value of a column comes in a list.

    >>> sorted(["test", "new", "train"], key=lambda split: rank("split", split))
    ['train', 'new', 'test']
    """
    known = ORDER.get(column, ())
    return known.index(value) if value in known else len(known), value


def shown(column: str, value: Any) -> str:
    """A value as a reader sees it.

    >>> shown("operator", "ggn"), shown("k", 5.0)
    ('Gauss-Newton', '5')
    """
    return SHOWN.get(column, {}).get(value, value) if isinstance(value, str) else f"{value:g}"
