"""The order of branches at a density, and what may be said of it."""

from __future__ import annotations

import math

import pandas as pd
import pytest
from scipy.stats import t

from sublevel.report.figures.ranking import ordered, ranking
from sublevel.report.prepare import clean

ERRORS = {
    "dense": [0.10, 0.11, 0.12],
    "best": [0.20, 0.23, 0.26],
    "near": [0.22, 0.22, 0.28],
    "far": [0.30, 0.34, 0.36],
    "same": [0.25, 0.28, 0.31],  # 5 points behind the best in every seed
}


def tables(names=ERRORS, levels=(3,)):
    rows = [
        {"branch": name, "level": level if name != "dense" else 0, "seed": seed, "test_error": error,
         "density": 1.0 if name == "dense" else 0.5**level}
        for level in levels for name in names for seed, error in enumerate(ERRORS[name])
    ]  # fmt: skip
    return clean({"levels": pd.DataFrame(rows)})


def test_the_excess_is_paired_by_seed_and_its_interval_is_that_of_the_differences():
    levels = tables()["levels"]
    order = ordered(levels[levels["branch"] != "dense"]).set_index("branch")
    assert list(order.index) == ["best", "near", "same", "far"]
    differences = [10.0, 11.0, 10.0]
    mean = sum(differences) / 3
    half = t.ppf(0.95, 2) * math.sqrt(sum((d - mean) ** 2 for d in differences) / 2 / 3)
    far = order.loc["far"]
    assert (far["mean_behind"], far["low_behind"], far["high_behind"]) == pytest.approx(
        (mean, mean - half, mean + half)
    )
    assert order.loc["best", "mean"] == pytest.approx(23.0)
    assert order.loc[["best", "same"], "low_behind"].isna().all()  # equal differences have no spread


def test_only_what_its_interval_bears_out_is_said_to_be_behind():
    found = ranking(tables())
    (sentence, seeds) = found.notes
    assert sentence.startswith(
        "At 12.5% of the weights, best has the lowest mean test error; not significantly different: near, same"
    )
    assert "worse: far (+10.33 [9.36, 11.31] points)" in sentence
    assert "n = 3" in seeds
    (shown,) = found.views
    assert shown.choice == {"density": "12.5%"}
    left, right = shown.panels
    assert [text for _, text in left.x.ticks] == ["best", "near", "same", "far"]
    assert [series.label for series in right.series] == ["near", "same", "far"]
    assert [series.x for series in right.series] == [[2.0], [3.0], [4.0]]
    for panel in shown.panels:
        ends = [v for s in panel.series for part in (s.y, s.low, s.high) for v in part if math.isfinite(v)]
        assert panel.y.limits[0] < min(ends)  # no cap of an interval is cut
        assert max(ends) < panel.y.limits[1]


def test_the_last_level_comes_first_and_two_branches_make_no_order():
    assert [view.choice["density"] for view in ranking(tables(levels=(1, 2))).views] == ["25%", "50%"]
    assert ranking(tables(("dense", "best", "near"))).views == []
