"""Test-set noise: error differences cross seeds with test examples where it is known which examples are right."""

from __future__ import annotations

import base64

import numpy as np
import pandas as pd
import pytest
from known_effects import study, with_examples

from sublevel.bits import pack
from sublevel.claims import claims, verdicts
from sublevel.claims.examples import Correct
from sublevel.stats import crossed


def drawn(rng, difference: float, seeds: int = 5, persistence: float = 0.9) -> dict[str, pd.DataFrame]:
    tables = study(rng, seeds=seeds, claims=("C1",))
    return with_examples(tables, rng, difference=difference, persistence=persistence)


def test_bits_come_back_in_the_order_of_the_examples():
    correct = np.random.default_rng(0).random(2003) < 0.9
    row = {"branch": "imp", "level": 1, "seed": 0, "split": "test", "examples": 2003, "bits": pack(correct)}
    found = Correct(pd.DataFrame([row])).wrong(("imp", 1, 0))
    assert found is not None
    np.testing.assert_array_equal(found, ~correct)
    assert base64.b64decode(row["bits"])[0] >> 7 == correct[0]  # the first example in the highest bit
    assert Correct(pd.DataFrame([row | {"split": "train"}])).wrong(("imp", 1, 0)) is None
    assert Correct(pd.DataFrame([row | {"bits": "!"}])).wrong(("imp", 1, 0)) is None
    assert Correct(pd.DataFrame([row | {"examples": 99}])).wrong(("imp", 1, 0)) is None


def test_c1_uses_the_crossed_interval_and_says_so():
    tables = drawn(np.random.default_rng(0), 0.0)
    rows = claims(tables)
    row = rows[(rows["claim"] == "C1") & (rows["level"] == 1)].iloc[0]
    source = Correct(tables["correct"])
    ours, theirs = (np.array([source.wrong((*of, s)) for s in range(5)]) for of in (("imp", 1), ("dense", 0)))
    d = ours - theirs
    low, high = crossed(d).interval(0.9)
    assert (row["effect"], row["low"], row["high"]) == pytest.approx((d.mean(), low, high))
    assert row["interval"] == "seeds and test examples"
    assert "5 seeds and test examples" in verdicts(tables, ["C1"])["sentence"].item()
    alone = claims({"levels": tables["levels"]}).iloc[0]
    assert alone["interval"] == "seeds"
    assert alone["high"] - alone["low"] < (row["high"] - row["low"]) / 2


@pytest.mark.parametrize("spoil", ["absent for one seed", "other errors", "other examples"])
def test_bits_that_do_not_belong_to_the_errors_do_not_count(spoil):
    tables = drawn(np.random.default_rng(0), 0.0)
    correct = tables["correct"]
    of = (correct["branch"] == "imp") & (correct["seed"] == 2)
    if spoil == "absent for one seed":
        tables["correct"] = correct.loc[~of]
    elif spoil == "other errors":
        tables["levels"].loc[tables["levels"]["branch"] == "dense", "test_error"] += 0.01
    else:
        correct.loc[of, ["examples", "bits"]] = [8, pack(np.ones(8, dtype=bool))]
    rows = claims(tables)
    assert set(rows.loc[rows["claim"] == "C1", "interval"]) == {"seeds"}


@pytest.mark.full
def test_a_network_on_the_margin_is_rarely_said_to_match_whatever_test_set_was_drawn():
    """5% of the examples differ, the same for every seed: seeds alone would say so in a study of five or more often."""
    rng = np.random.default_rng(1)
    crossed = seeds = 0
    for _ in range(60):
        tables = drawn(rng, 0.005)
        crossed += verdicts(tables, ["C1"])["verdict"].item() == "supported"
        seeds += verdicts({"levels": tables["levels"]}, ["C1"])["verdict"].item() == "supported"
    assert crossed <= 8  # 5% of 60, and three standard errors
    assert seeds >= 12
