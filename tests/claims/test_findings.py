"""The three findings of the first screen: read from data with known numbers, and silent below three seeds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from sublevel.claims.findings import findings
from sublevel.claims.margins import RISE_MARGIN

DENSITIES = {1: 0.5, 2: 0.3, 3: 0.1}
NOISE = np.array([-0.001, 0.0, 0.001])


def levels(seeds: int = 3, **excess: list[float]) -> pd.DataFrame:
    """Dense at 10% test error, branches at that plus an excess for each level, paired but for the noise."""
    rows = [("dense", 0, s, 1.0, 0.1) for s in range(seeds)]
    for branch, values in excess.items():
        name = branch.replace("_", "-")
        rows += [(name, v, s, DENSITIES[v], 0.1 + e + NOISE[s]) for v, e in enumerate(values, 1) for s in range(seeds)]
    return pd.DataFrame(rows, columns=["branch", "level", "seed", "density", "test_error"])


def membership(loss: float, top: float, seeds: int = 3) -> pd.DataFrame:
    """Searches at level 3: dense losses around 0.1, the solution's loss, and the lowest maximum of a path."""
    fixed = {"branch": "imp", "level": 3, "part": 0, "buffers": "none", "aligned": 0, "lowest_max": top}
    own = [{"seed": s, "loss": loss + NOISE[s] / 10, "loss_dense": 0.1 + NOISE[s]} for s in range(seeds)]
    return pd.DataFrame([fixed | each for each in own])


def test_the_ticket_matches_down_to_the_last_interval_below_the_margin():
    found = findings({"levels": levels(imp=[0.0, 0.001, 0.02])})[0]
    half = 100 * student.ppf(0.95, 2) * 0.001 / np.sqrt(3)
    assert found.number == "yes, down to 30%"
    assert f"down to 30% of the weights: +0.10 points (90% CI {0.1 - half:.2f} to {0.1 + half:.2f}; margin 0.5)" in (
        found.sentence
    )
    assert "At 10% of the weights it is worse: +2.00 points" in found.sentence


@pytest.mark.parametrize(("excess", "answer"), [(0.02, "no"), (0.005, "inconclusive"), (-0.02, "yes, down to 10%")])
def test_the_answer_follows_the_interval(excess, answer):
    assert findings({"levels": levels(imp=[excess] * 3)})[0].number.startswith(answer)


@pytest.mark.parametrize("seeds", [1, 2])
def test_below_three_seeds_nothing_is_claimed(seeds):
    tables = {"levels": levels(seeds, imp=[0.0] * 3, reinit=[0.05] * 3), "membership": membership(0.1, 0.1, seeds)}
    found = findings(tables)
    assert {f.number for f in found} == {"not decided"}
    assert all(f"fewer than 3 seeds, {seeds}" in f.sentence for f in found)
    assert not any("CI" in f.sentence for f in found)


def test_both_controls_have_to_cost_something():
    own = NOISE[[0, 0, 1]]  # not the noise of the others: equal differences have no spread
    tables: dict[str, Any] = {"levels": levels(imp=[0.0] * 3, reinit=[0.02] * 3, random_prune=[0.05] * 3)}
    of = tables["levels"]["branch"] == "imp"
    tables["levels"].loc[of, "test_error"] += own[tables["levels"].loc[of, "seed"]]
    asked = "Are its mask and its weights both needed?"
    both = next(f for f in findings(tables) if f.question == asked)
    assert both.number == "yes"
    assert "re-initialising costs 2.0" in both.sentence
    tables["levels"].loc[tables["levels"]["branch"] == "reinit", "test_error"] -= 0.04
    assert next(f for f in findings(tables) if f.question == asked).number == "in part"
    tables["levels"] = tables["levels"][tables["levels"]["branch"] != "random-prune"]
    one = next(f for f in findings(tables) if f.question == asked)
    assert (one.number, "re-initialising saves 1.9" in one.sentence) == ("no", True)


def test_controls_that_do_not_both_cost_are_told_at_the_sparsest_density():
    table = levels(imp=[0.02] * 3, reinit=[0.02] * 3, random_prune=[0.02, 0.02, 0.2])
    table.loc[table["branch"] == "reinit", "test_error"] += NOISE[[0, 2, 1] * 3]
    table.loc[table["branch"] == "random-prune", "test_error"] += NOISE[[1, 0, 2] * 3]
    found = findings({"levels": table})[1]
    assert found.sentence.startswith("At 10% of the weights, re-initialising costs")
    assert "inconclusive" in found.sentence
    assert "a random mask costs 18" in found.sentence


def test_a_solution_lies_in_the_basin_only_by_its_height_and_a_path():
    def lies(loss, top):
        tables = {"levels": levels(imp=[0.0] * 3), "membership": membership(loss, top)}
        return next(f for f in findings(tables) if "lie" in f.question)

    assert lies(0.08, 0.1005).number == "in the dense network's basin"
    assert lies(0.2, 0.2005).number == "same valley, higher up"
    behind = lies(0.08, 0.1 * (1 + 3 * RISE_MARGIN))
    assert behind.number == "no path found"
    assert behind.sentence.endswith("Failing to find a path does not prove that there is none.")


def test_a_study_without_imp_or_without_tables_is_told_as_it_is():
    assert findings({}) == []
    only = findings({"levels": levels(mine=[0.0] * 3)})
    assert [f.sentence.partition(" matches")[0] for f in only] == ["mine"]
