"""Compare studies: their settings, the test errors of their solutions, and their verdicts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sublevel.claims.margins import INTERVAL
from sublevel.errors import ConfigError
from sublevel.stats import mean_interval
from sublevel.study.result import Result, reading

if TYPE_CHECKING:
    import pandas as pd

ABOUT = {"data": ("origin", "train", "validation", "test"), "model": ("parameters", "prunable")}
"""Fields of a run that are compared with the settings of its study."""

DIGITS = 3
"""Solutions share a row if their densities agree to this number of significant digits."""


@dataclass(frozen=True)
class Comparison:
    """Compared studies. Every table has one column per study, empty if the study has no value.

    ``settings``: the keys in which the studies differ. ``accuracy``: branch, density, and the test error's mean with
    its 90% t interval over seeds. ``verdicts``: each claim with the sentence of each study.
    """

    names: tuple[str, ...]
    settings: pd.DataFrame
    accuracy: pd.DataFrame
    verdicts: pd.DataFrame

    @property
    def tables(self) -> dict[str, tuple[str, pd.DataFrame]]:
        """The tables in reading order: title -> caption and rows."""
        return {
            "Claims": ("The verdict of each study, from its own seeds alone.", self.verdicts),
            "Test error": (
                "Mean and 90% t interval over seeds. Studies are not paired, so overlapping intervals decide nothing.",
                self.accuracy,
            ),
            "Settings": (
                "The settings in which the studies differ; a test of one against the other confounds them.",
                self.settings,
            ),
        }

    def html(self) -> str:
        """The comparison as one HTML page."""
        from sublevel.report.side_by_side import render

        return render(self.names, self.tables)


def compare(*runs: str | Path) -> Comparison:
    """Compare finished runs.

    Raises ConfigError for fewer than two runs, and for a folder without a run.
    """
    import pandas as pd

    if len(runs) < 2:
        raise ConfigError(f"a comparison needs two runs or more; got {len(runs)}")
    results = [Result(run) for run in runs]
    plain = [result.document["study"]["name"] for result in results]
    names = tuple(f"{n} ({i + 1})" if plain.count(n) > 1 else n for i, n in enumerate(plain))
    columns = {
        "settings": (["setting"], _settings),
        "accuracy": (["branch", "density"], _accuracy),
        "verdicts": (["claim", "statement"], _verdicts),
    }
    tables = {}
    for table, (keys, of) in columns.items():
        rows: dict[tuple[Any, ...], dict[str, str]] = {}
        for name, result in zip(names, results, strict=True):
            with reading(f"the results of {result.folder}"):
                for key, text in of(result):
                    rows.setdefault(key, {})[name] = text
        lines = [dict(zip(keys, key, strict=True)) | {n: row.get(n, "") for n in names} for key, row in rows.items()]
        tables[table] = pd.DataFrame(lines, columns=[*keys, *names])
    different = tables["settings"].loc[:, list(names)].nunique(axis=1) > 1
    tables["settings"] = tables["settings"].loc[different].reset_index(drop=True)
    order = tables["accuracy"].sort_values(["branch", "density"], ascending=[True, False], kind="stable")
    tables["accuracy"] = order.reset_index(drop=True)
    return Comparison(names, **tables)


def _settings(result: Result) -> Iterator[tuple[tuple[str], str]]:
    for key, value in flat({k: v for k, v in result.document["study"].items() if k != "name"}):
        yield (key,), value
    for group, keys in ABOUT.items():
        for key in keys:
            yield (f"{group}: {key}",), str(result.document["about"][group].get(key, ""))


def flat(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """The leaves of nested settings with their dotted keys; a list is one leaf.

    >>> list(flat({"train": {"lr": 0.1}, "seeds": [0, 1]}))
    [('train.lr', '0.1'), ('seeds', '[0, 1]')]
    """
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value if isinstance(value, str) else json.dumps(value)


def _accuracy(result: Result) -> Iterator[tuple[tuple[str, float], str]]:
    levels = result.tables["levels"].dropna(subset=["test_error"])
    for _, rows in levels.groupby(["branch", "level"], sort=False):
        density = float(f"{rows['density'].mean():.{DIGITS}g}")
        yield (str(rows["branch"].iloc[0]), density), percent(mean_interval(rows["test_error"], INTERVAL))


def percent(found: Any) -> str:
    """A mean of fractions with its interval, as percentages.

    >>> percent(mean_interval([0.10, 0.12]))
    '11.00% [-1.71, 23.71], 2 seeds'
    """
    interval = f" [{100 * found.low:.2f}, {100 * found.high:.2f}]" if found.low == found.low else ""
    return f"{100 * found.mean:.2f}%{interval}, {found.n} seed" + ("s" if found.n != 1 else "")


def _verdicts(result: Result) -> Iterator[tuple[tuple[str, str], str]]:
    for row in result.tables["verdicts"].to_dict("records"):
        said = row["sentence"] if row["verdict"] != "not measured" else f"Not measured: {row['why']}"
        yield (str(row["claim"]), str(row["statement"])), str(said)
