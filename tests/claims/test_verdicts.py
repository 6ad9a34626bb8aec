"""Verdicts on synthetic studies with known effects: each claim both ways, and what no study decides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from sublevel.claims import CLAIMS, Part, claim, claims, compared, verdicts
from sublevel.claims.margins import ERROR_MARGIN
from sublevel.claims.synthetic import KEYS, TABLES, study
from sublevel.errors import ConfigError
from sublevel.tables import COLUMNS

MIXED = {"match": (6.0, 6.0, -6.0), "error barrier shared": (6.0, 6.0, -6.0)}
"""C11 needs levels at which both sides fail."""


def judged(claim: str, shifts: dict[str, Any] | None = None, *, seeds: int = 5, others: float = 6.0, seed: int = 0):
    tables = study(np.random.default_rng(seed), shifts or {}, seeds=seeds, others=others, claims=(claim,))
    return verdicts(tables, [claim]).iloc[0]


def start(claim: str) -> dict[str, Any]:
    return dict(MIXED) if claim == "C11" else {}


@pytest.mark.parametrize("claim", KEYS)
def test_where_every_part_holds_the_claim_is_supported(claim):
    row = judged(claim, start(claim))
    assert row["verdict"] == "supported", row["why"]
    assert row["n"] == 5
    assert row["p"] == row["p_holm"] <= 0.05
    assert "5 seeds" in row["sentence"]
    assert row["low"] < row["effect"] < row["high"]


BROKEN = [(claim, key) for claim, keys in KEYS.items() for key in keys if claim != "C11"]


@pytest.mark.parametrize(("claim", "key"), BROKEN)
def test_one_part_on_the_other_side_contradicts_and_is_named(claim, key):
    row = judged(claim, {key: -6.0})
    assert row["verdict"] == "contradicted", row["why"]
    assert row["p"] > 0.5
    whole = judged(claim)
    assert row["why"] != whole["why"]
    assert judged(claim, {key: -6.0}, seed=1)["why"].split(":")[0] == row["why"].split(":")[0]


@pytest.mark.parametrize(("claim", "key"), BROKEN)
def test_one_part_that_is_not_decided_leaves_the_claim_so(claim, key):
    rng = np.random.default_rng(17)
    drawn = [study(rng, {key: 0.0}, others=6.0, claims=(claim,)) for _ in range(8)]
    found = [verdicts(tables, [claim])["verdict"].item() for tables in drawn]
    assert found.count("undecided") >= 5


@pytest.mark.parametrize("claim", KEYS)
@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_never_enough(claim, seeds):
    for others in (6.0, -6.0):
        row = judged(claim, seeds=seeds, others=others)
        assert row["verdict"] == "undecided"
        assert "fewer than 3 seeds" in row["why"]
        assert math.isnan(row["p"])


@pytest.mark.parametrize("claim", KEYS)
def test_without_its_tables_a_claim_is_not_measured_and_says_what_it_lacks(claim):
    for tables in ({}, {name: pd.DataFrame(columns=list(COLUMNS[name])) for name in TABLES[claim]}):
        row = verdicts(tables, [claim]).iloc[0]
        assert row["verdict"] == "not measured"
        assert "not measured: no rows of" in row["why"]
        assert math.isnan(row["p_holm"])
        assert row["n"] == 0


def test_columns_and_order():
    found = verdicts({})
    assert tuple(found.columns) == COLUMNS["verdicts"]
    assert found["claim"].tolist() == [f"C{i}" for i in range(1, 13)]


def test_every_claim_names_a_figure_of_the_report():
    from sublevel.report.figures import FIGURES
    from sublevel.report.prepare import clean

    ready = clean({})
    made = [entry.make(ready) for entry in FIGURES]
    keys = {figure.key for each in made for figure in (each if isinstance(each, list) else [each])}
    assert {claim.figure for claim in CLAIMS.values()} <= keys


def test_a_claim_of_ones_own_needs_one_function_and_is_judged_with_the_others():
    def query(tables):
        measured = compared(tables, "oneshot", "dense", "train loss", reference_level=0)
        yield Part(name="mine", unit="train loss", measured=measured, low=-1.0, high=1.0, holds="so", fails="not so")

    tables = study(np.random.default_rng(0), claims=("C3",))
    claim("X1", "Mine.", figure="accuracy")(query)
    try:
        found = verdicts(tables).set_index("claim")
        assert found.loc["X1", "verdict"] == "supported"
        assert "X1" in set(claims(tables)["claim"])
        claim("X1", "Mine.", figure="accuracy")(lambda tables: iter(()))
        with pytest.raises(ConfigError, match="claim X1 has no decisive part"):
            verdicts(tables)
    finally:
        del CLAIMS["X1"]
    with pytest.raises(ConfigError, match="unknown claim 'C13'"):
        verdicts(tables, ["C13"])


def test_c1_names_the_lowest_density_before_the_first_that_fails():
    row = judged("C1", {"match": (6.0, -6.0, 6.0)})
    assert row["verdict"] == "supported"
    assert "down to 30% of the weights" in row["sentence"]
    assert "next, level 2 (10%): worse than dense" in row["why"]
    assert "down to 3%" in judged("C1")["sentence"]


def test_c1_names_no_density_that_holms_level_does_not_reach():
    """Level 2 passes at 5%, but not at the level that Holm leaves to this claim."""
    rng = np.random.default_rng(3)
    tables = study(rng, {"match": (12.0, 12.0, 12.0)}, others=2.0)
    levels = tables["levels"]
    imp, at = levels["branch"] == "imp", levels["level"] == 2
    dense = levels[levels["branch"] == "dense"].set_index("seed")["test_error"]
    steps = np.array([-2, -1, 0, 1, 2]) * 0.0014  # t = (0.005 - mean) / (s / sqrt 5)
    target = ERROR_MARGIN - 0.0028 + steps
    seeds = levels.loc[imp & at, "seed"]
    levels.loc[imp & at, "test_error"] = dense[seeds].to_numpy() + target[seeds.to_numpy()]
    alone = verdicts(tables, ["C1"]).iloc[0]
    among = verdicts(tables).iloc[0]
    assert "down to 3%" in alone["sentence"]
    assert among["verdict"] == "supported"
    assert "down to 30%" in among["sentence"]


def test_c5_says_whether_the_control_falls_as_much():
    assert "random-imp falls as much" in judged("C5", {"control volume": 6.0}, seed=1)["why"]
    assert "imp falls further than random-imp" in judged("C5", {"control volume": 0.0})["why"]
    assert "falls further than imp, so the fall is none of imp's own" in judged("C5", {"control volume": 12.0})["why"]


def test_c5_leaves_out_volumes_that_are_not_to_be_trusted():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C5",))
    pairs = tables["volume_pairs"]
    pairs.loc[(pairs["branch"] == "imp") & (pairs["seed"] < 3) & (pairs["level"] == 2), "reason"] = "lambda_20 <= 0"
    row = verdicts(tables, ["C5"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert "fewer than 3 seeds with a finite value at every level, 3 left out" in row["why"]
    assert "3 of the pairs left out (lambda_20 <= 0)" in row["why"]


def test_c11_needs_both_directions():
    row = judged("C11")
    assert row["verdict"] == "undecided"
    assert "only one direction" in row["why"]


@pytest.mark.parametrize("shifts", [{"match": (6, -6, -6)}, {"error barrier shared": (-6, 6, -6)}])
def test_c11_is_contradicted_by_one_level_that_does_one_and_not_the_other(shifts):
    assert judged("C11", MIXED | shifts)["verdict"] == "contradicted"


def test_c3_reports_the_comparison_at_equal_cost_beside_and_does_not_count_it():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C3",))
    levels = tables["levels"]
    cyclic = levels[levels["branch"] == "imp"].assign(branch="oneshot-cyclic")
    cyclic["test_error"] -= 0.01 + 0.001 * cyclic["seed"]
    row = verdicts({"levels": pd.concat([levels, cyclic])}, ["C3"]).iloc[0]
    assert row["verdict"] == "supported"
    assert "beside it, oneshot-cyclic - imp, test error: imp worse" in row["why"]


def test_a_part_that_was_not_measured_cannot_be_taken_as_held():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C2",))
    levels = tables["levels"]
    row = verdicts({"levels": levels[levels["branch"] != "reinit"]}, ["C2"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert "reinit - imp, test error: not measured: no rows of levels with branch = reinit" in row["why"]


def test_holm_takes_away_what_held_alone_and_says_so():
    tables = study(np.random.default_rng(5), {"oneshot": 1.6}, others=0.0)
    levels = tables["levels"]
    at = levels["branch"] == "oneshot"
    imp = levels[levels["branch"] == "imp"].set_index(["level", "seed"])["test_error"]
    wanted = 0.003 + 0.0015 * np.array([-2, -1, 0, 1, 2])
    keys = levels.loc[at, ["level", "seed"]]
    levels.loc[at, "test_error"] = [imp[key] + wanted[key[1]] for key in keys.itertuples(index=False, name=None)]
    alone, among = verdicts(tables, ["C3"]).iloc[0], verdicts(tables).set_index("claim").loc["C3"]
    assert alone["verdict"] == "supported"
    assert among["verdict"] == "undecided"
    assert "holds by itself" in among["why"]
    assert "not after Holm's correction over" in among["why"]
    assert among["p_holm"] > among["p"] == alone["p"]


def test_equal_differences_are_undecided():
    tables = study(np.random.default_rng(0), claims=("C3",))
    levels = tables["levels"]
    levels["test_error"] = np.where(levels["branch"] == "oneshot", 0.5, 0.25)
    row = verdicts(tables, ["C3"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert "no spread over seeds" in row["why"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_none_takes_its_seed_out(bad):
    tables = study(np.random.default_rng(0), others=6.0, seeds=6, claims=("C4",))
    levels = tables["levels"]
    levels.loc[(levels["branch"] == "finetune") & (levels["seed"] == 2) & (levels["level"] == 1), "train_loss"] = bad
    row = verdicts(tables, ["C4"]).iloc[0]
    assert row["verdict"] == "supported"
    assert "finetune - imp, train loss: 1 seed left out" in row["why"]


def test_a_density_that_no_level_reaches_is_said():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C3",))
    levels = tables["levels"]
    row = verdicts({"levels": levels[levels["level"] < 3]}, ["C3"]).iloc[0]
    assert row["verdict"] == "supported"
    assert "3% of the weights: no level near it" in row["why"]
    dense = levels.assign(density=0.9)
    row = verdicts({"levels": dense}, ["C3"]).iloc[0]
    assert row["verdict"] == "not measured"
    assert "no level within a factor of 2" in row["why"]


def test_collapsed_networks_are_counted_and_said():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C2",))
    levels = tables["levels"]
    levels["collapsed_layers"] = ((levels["branch"] == "random-prune") & (levels["level"] == 3)).astype(int)
    row = verdicts(tables, ["C2"]).iloc[0]
    assert "5 networks of random-prune with a layer that has no weights left" in row["why"]


def test_the_seed_is_the_unit_and_not_the_level():
    """Levels of a seed that move together are one observation: three of them give the p value of one."""
    tables = study(np.random.default_rng(1), claims=("C3",))
    levels = tables["levels"]
    first = levels[levels["level"] <= 1]
    copies = [first.assign(level=n, density=d) for n, d in ((1, 0.3), (2, 0.1), (3, 0.03))]
    one = verdicts({"levels": first}, ["C3"]).iloc[0]
    three = verdicts({"levels": pd.concat(copies)}, ["C3"]).iloc[0]
    assert three["n"] == one["n"] == 5
    assert three["p"] == pytest.approx(one["p"], rel=1e-9)


def test_the_order_of_rows_changes_nothing():
    tables = study(np.random.default_rng(2), MIXED)
    mixed = {name: frame.sample(frac=1, random_state=4) for name, frame in tables.items()}
    pd.testing.assert_frame_equal(verdicts(tables), verdicts(mixed))


def test_columns_of_objects_with_none_are_read_like_numbers():
    tables = study(np.random.default_rng(2), MIXED)
    loose = {name: frame.astype(object).where(frame.notna(), None) for name, frame in tables.items()}
    pd.testing.assert_frame_equal(verdicts(tables), verdicts(loose))


def test_c5_reads_the_error_of_the_networks_whose_volume_was_measured():
    """Imp matches at levels 1 and 2, and not at 3, where alone there are volumes."""
    tables = study(np.random.default_rng(0), {"match": (6.0, 6.0, -6.0)}, others=6.0, claims=("C5",))
    pairs = tables["volume_pairs"]
    tables["volume_pairs"] = pairs[pairs["level"] == 3]
    row = verdicts(tables, ["C5"]).iloc[0]
    assert row["verdict"] == "contradicted"
    assert row["why"].startswith("imp - dense: worse than dense by more than 0.5 points")
