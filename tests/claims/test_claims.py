"""Single comparisons behind the claims, on tables whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

import sublevel.study.tables  # noqa: F401 - declares the tables of all measurements
from sublevel.claims import CLAIMS, claims
from sublevel.claims.margins import INTERVAL
from sublevel.stats import paired
from sublevel.tables import TABLES


def table(effects: dict[tuple[str, int], float], seeds: int = 5, noise: float = 1e-4) -> pd.DataFrame:
    """Return a levels table with test error 0.1 + effect and train loss 0.5 - effect."""
    rng = np.random.default_rng(7)
    rows = []
    for seed in range(seeds):
        common = rng.normal(0, 0.02)
        for (branch, level), effect in effects.items():
            jitter = rng.normal(0, noise)
            rows.append(
                {
                    "branch": branch,
                    "level": level,
                    "seed": seed,
                    "density": 0.8**level,
                    "test_error": 0.1 + common + effect + jitter,
                    "train_loss": 0.5 + common - effect + jitter,
                }
            )
    return pd.DataFrame(rows)


def read(levels: pd.DataFrame, name: str) -> dict[tuple[str, str, int], str]:
    found = claims({"levels": levels})
    found = found.loc[found["claim"] == name]
    return {(r.comparison, r.unit, r.level): r.reading for r in found.itertuples()}


def test_c1_names_the_levels_within_the_margin():
    effects = {("dense", 0): 0, ("imp", 1): -0.01, ("imp", 2): 0.004, ("imp", 3): 0.005, ("imp", 4): 0.03}
    assert read(table(effects), "C1") == {
        ("imp - dense", "test error", 1): "IMP is at most 0.5 points worse than the dense network",
        ("imp - dense", "test error", 2): "IMP is at most 0.5 points worse than the dense network",
        ("imp - dense", "test error", 3): "inconclusive with 5 seeds",
        ("imp - dense", "test error", 4): "IMP is worse than the dense network by more than 0.5 points",
    }


def test_c2_and_c3_read_the_controls_at_the_levels_that_both_have():
    effects = {
        ("imp", 1): 0,
        ("imp", 2): 0,
        ("reinit", 2): 0.02,
        ("random-prune", 2): -0.02,
        ("oneshot", 3): 1,
    }
    levels = table(effects)
    found = read(levels, "C2")
    assert found[("reinit - imp", "test error", 2)].startswith("re-initialising costs 2.0")
    assert found[("random-prune - imp", "test error", 2)].startswith("a random mask saves 1.99")
    assert len(found) == 2
    assert read(levels, "C3") == {}
    found = read(table({("imp", 3): 0, ("oneshot", 3): 1}), "C3")
    assert found[("oneshot - imp", "test error", 3)].startswith("one-shot pruning costs ")


def test_c4_is_two_claims():
    effects = {("imp", 1): 0, ("finetune", 1): 0.02, ("finetune-mask", 1): 0}
    levels = table(effects, noise=0.001)
    errors, losses = read(levels, "C4a"), read(levels, "C4b")
    assert set(errors) == {(f"{name} - imp", "test error", 1) for name in ("finetune", "finetune-mask")}
    assert set(losses) == {(f"{name} - imp", "train loss", 1) for name in ("finetune", "finetune-mask")}
    assert "costs" in errors[("finetune - imp", "test error", 1)]
    assert "lower in train loss" in losses[("finetune - imp", "train loss", 1)]
    assert errors[("finetune-mask - imp", "test error", 1)] == "inconclusive with 5 seeds"
    assert losses[("finetune-mask - imp", "train loss", 1)] == "inconclusive with 5 seeds"


def test_numbers_are_those_of_the_paired_comparison():
    levels = table({("imp", 1): 0, ("reinit", 1): 0.02}).sample(frac=1, random_state=0)
    by_branch = levels.sort_values("seed").groupby("branch")["test_error"]
    expected = paired(by_branch.get_group("reinit"), by_branch.get_group("imp"), INTERVAL)
    row = claims({"levels": levels}).iloc[0]
    assert row["density"] == 0.8
    for column in ("n", "effect", "low", "high", "p", "p_exact"):
        assert row[column] == pytest.approx(getattr(expected, column), rel=1e-12)
    assert row["interval"] == "seeds"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_failed_run_takes_its_pair_out_of_n(bad):
    levels = table({("dense", 0): 0, ("imp", 1): 0, ("reinit", 1): 0.02})
    levels.loc[(levels["branch"] == "reinit") & (levels["seed"] == 3), "test_error"] = bad
    levels = levels.loc[~((levels["branch"] == "imp") & (levels["seed"] == 4))]
    found = claims({"levels": levels}).set_index("claim")
    assert found.loc["C1", "n"] == 4
    assert found.loc["C2", "n"] == 3
    assert np.isfinite(found.loc["C2", "effect"])


@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_decide_nothing(seeds):
    found = claims({"levels": table({("imp", 1): 0, ("oneshot", 1): 1, ("dense", 0): 0}, seeds)})
    assert set(found["reading"]) == {f"not decided: fewer than 3 seeds, {seeds}"}
    assert set(found["n"]) == {seeds}
    assert found["low"].isna().all() == (seeds == 1)


def test_equal_differences_decide_nothing():
    levels = table({("imp", 1): 0, ("oneshot", 1): 0})
    levels["test_error"] = np.where(levels["branch"] == "imp", 0.25, 0.5)
    row = claims({"levels": levels}).iloc[0]
    assert row["effect"] == 0.25
    assert row["reading"] == "not decided: no spread over seeds, so no estimate of the error"


def test_pairs_that_all_failed_are_listed_with_none_left():
    levels = table({("imp", 1): 0, ("oneshot", 1): 1})
    levels.loc[levels["branch"] == "oneshot", "test_error"] = math.nan
    row = claims({"levels": levels}).iloc[0]
    assert row["n"] == 0
    assert math.isnan(row["effect"])
    assert row["reading"] == "not decided: fewer than 3 seeds, 5 dropped: a value is missing"


def test_no_branches_no_rows_but_the_columns():
    empty = pd.DataFrame(columns=list(TABLES["levels"].columns))
    for levels in (empty, table({("dense", 0): 0}), table({("imp", 1): 0})):
        found = claims({"levels": levels})
        assert found.empty
        assert list(found.columns) == list(TABLES["claims"].columns)


def test_the_order_does_not_depend_on_that_of_the_rows():
    names = ["imp", "reinit", "random-prune", "oneshot", "finetune", "finetune-mask"]
    effects = {("dense", 0): 0.0} | {(name, level): 0.01 for name in names for level in (1, 2, 10)}
    levels = table(effects)
    one, two = claims({"levels": levels}), claims({"levels": levels.sample(frac=1, random_state=3)})
    pd.testing.assert_frame_equal(one, two)
    assert list(one["claim"].unique()) == ["C1", "C2", "C3", "C4a", "C4b", "C5", "C9", "C11"]
    assert list(one["level"][:3]) == [1, 2, 10]


def test_every_statement_is_one_sentence():
    assert CLAIMS
    for each in CLAIMS.values():
        assert each.statement.count(".") == 1
        assert each.statement.endswith(".")
