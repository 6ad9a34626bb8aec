"""Open questions on tables whose answer is known, for and against."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import sublevel.study.tables  # noqa: F401 - declares the tables of all measurements
from sublevel.claims import CLAIMS, claims, verdicts
from sublevel.claims.open_questions import measured_limit

SEEDS = 5
DENSITY = {0: 1.0, 1: 0.3, 2: 0.1}
BRANCHES = ("imp", "finetune", "oneshot", "reinit")
QUESTIONS = [name for name, each in CLAIMS.items() if each.exploratory]


def levels(errors: dict[str, float], *, base: str = "") -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {
            "branch": branch, "base": base or branch, "level": level, "seed": seed, "density": DENSITY[level],
            "test_error": 0.2 + error + rng.normal(0, 0.001), "train_error": 0.01, "train_loss": 0.05,
        }
        for seed in range(SEEDS) for branch, error in errors.items() for level in (1, 2)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def solutions(**columns: float) -> pd.DataFrame:
    """A row for each solution; a column is slope * place + a little noise."""
    rng = np.random.default_rng(1)
    rows = []
    for seed in range(SEEDS):
        for place, branch in enumerate(BRANCHES):
            for level in (1, 2):
                row = {"branch": branch, "base": branch, "level": level, "level_to": level, "seed": seed}
                row |= {"density": DENSITY[level], "split": "train", "path": "to-dense", "buffers": "none"}
                x = place + 0.3 * level
                rows.append(row | {c: 5 + slope * x + rng.normal(0, 0.2) for c, slope in columns.items()})
    return pd.DataFrame(rows)


def q1(sign: int) -> dict[str, pd.DataFrame]:
    return {"levels": levels({"permuted-mask": -0.02 * sign, "other-mask": 0.0, "reinit": 0.0})}


def q2(sign: int) -> dict[str, pd.DataFrame]:
    return {"levels": levels({"ticket-signs": -0.02 * sign, "reinit-signs": 0.0, "imp": -0.03})}


def q3(sign: int) -> dict[str, pd.DataFrame]:
    rows, limits = [], []
    for seed in range(SEEDS):
        rows.append({"branch": "dense", "base": "dense", "level": 0, "seed": seed, "density": 1.0, "train_loss": 0.05})
        for level, (density, loss) in enumerate([(0.5, 0.05), (0.25, 0.1), (0.1, 0.25)], start=1):
            row = {"branch": "oneshot", "base": "oneshot", "level": level, "seed": seed, "density": density}
            rows.append(row | {"train_loss": loss})
        fraction = 0.8 + 0.001 * seed - (0.3 if sign < 0 else 0.0)  # measured: 0.75 + 0.15 / 3
        limits.append({"branch": "dense", "level": 0, "seed": seed, "eps": 0.1, "fraction": fraction, "part": 0})
    return {"levels": pd.DataFrame(rows), "limits": pd.DataFrame(limits)}


def anatomy(of: str, sign: int) -> dict[str, pd.DataFrame]:
    rng = np.random.default_rng(2)
    rows = [
        {
            "branch": branch, "level": level, "seed": seed, "set": of, "part": 0, "buffers": "none",
            "share": 0.3, "eigenspace": 0.3 + 0.1 * sign + rng.normal(0, 0.01),
            "trace_matched": 0.3, "trace": 0.3 - 0.1 * sign + rng.normal(0, 0.01),
        }
        for seed in range(SEEDS) for branch in ("imp", "random-prune") for level in (1, 2)
    ]  # fmt: skip
    return {"levels": levels({"imp": 0.0, "random-prune": 0.1}), "anatomy": pd.DataFrame(rows)}


def q6(sign: int) -> dict[str, pd.DataFrame]:
    paths = solutions(loss_height=float(sign), error_height=float(sign))
    return {"levels": solutions(test_error=1.0).assign(train_error=0.0), "paths": paths}


def q7(sign: int) -> dict[str, pd.DataFrame]:
    found = [
        solutions(radius=float(slope)).assign(of=of, space="own", height=0.1)
        for of, slope in (("train loss", 1), ("train error", sign), ("test error", sign))
    ]
    return {"levels": levels({"imp": 0.0}), "exits": pd.concat(found)}


def q8(sign: int) -> dict[str, pd.DataFrame]:
    table = solutions(test_error=1.0).assign(base="oneshot", train_error=0.0)
    return {"levels": table, "paths": solutions(loss_height=float(sign), error_height=1.0)}


def q9(sign: int) -> dict[str, pd.DataFrame]:
    found = [
        solutions(effective_radius=slope).assign(method=method, space="own", eps=0.1, reason="")
        for method, slope in (("logdet", 1.0), ("top-k", float(sign)))
    ]
    flagged = solutions(effective_radius=-1.0).assign(method="radial", space="own", eps=0.1, reason="too few rays")
    return {"levels": levels({"imp": 0.0}), "volumes": pd.concat([*found, flagged])}


TABLES = {
    "Q1": q1, "Q2": q2, "Q3": q3, "Q4": lambda sign: anatomy("kept", sign), "Q5": lambda sign: anatomy("next", sign),
    "Q6": q6, "Q7": q7, "Q8": q8, "Q9": q9,
}  # fmt: skip


def test_every_question_is_tried() -> None:
    assert sorted(TABLES) == sorted(QUESTIONS)


@pytest.mark.parametrize(("sign", "verdict"), [(1, "supported"), (-1, "contradicted")])
@pytest.mark.parametrize("name", TABLES)
def test_an_effect_is_found_in_its_direction(name: str, sign: int, verdict: str) -> None:
    row = verdicts(TABLES[name](sign)).set_index("claim").loc[name]
    assert row["verdict"] == verdict, row["why"]
    assert row["family"] == "exploratory"
    assert "5 seeds" in row["sentence"]


@pytest.mark.parametrize("name", TABLES)
def test_two_seeds_decide_nothing(name: str) -> None:
    tables = {key: table[table["seed"] < 2] for key, table in TABLES[name](1).items()}
    assert verdicts(tables).set_index("claim").loc[name, "verdict"] == "undecided"


def test_a_question_that_was_not_asked_has_no_row_unless_named() -> None:
    found = verdicts({"levels": levels({"imp": 0.0})})
    assert not set(found["claim"]) & set(QUESTIONS)
    assert verdicts({}, ["Q1"])["verdict"].tolist() == ["not measured"]


def test_a_limit_that_no_ticket_reached_is_not_measured() -> None:
    tables = q3(1)
    assert measured_limit(tables, 0, 0.1) == pytest.approx(0.8)
    assert np.isnan(measured_limit(tables, 0, 0.5))
    assert measured_limit(tables, 0, 0.02) == pytest.approx(0.5 + 0.25 * 0.4)


def test_a_correlation_is_over_all_solutions_and_its_interval_ends_at_one() -> None:
    rng = np.random.default_rng(3)
    tables = {"levels": solutions(test_error=1.0).assign(train_error=0.0)}
    noisy = tables["levels"].assign(loss_height=lambda t: t["test_error"] + rng.normal(0, 1.5, len(t)))
    row = verdicts(tables | {"paths": noisy[noisy["seed"] < 3]}).set_index("claim").loc["Q6"]
    assert row["high"] == 1.0
    assert row["effect"] < 1.0
    assert "level" not in row["sentence"] + row["why"]
    assert np.isnan(row["density"])


def test_one_network_under_two_names_counts_once() -> None:
    """One-shot pruning is IMP at its first level: twice the same two numbers would count as two solutions."""
    once = {name: table.assign(test_loss=0.5) for name, table in q6(1).items()}
    once["levels"]["train_loss"] = np.arange(len(once["levels"]), dtype=float)
    twice = {}
    for name, table in once.items():
        copied = table[(table["branch"] == "imp") & (table["level"] == 1)].assign(branch="zz-imp-again")
        twice[name] = pd.concat([table, copied])
    before, after = (verdicts(tables, ["Q6"]).iloc[0] for tables in (once, twice))
    assert after["effect"] == before["effect"]
    assert after["low"] == before["low"]


def test_a_dense_network_with_long_exits_in_every_set_is_no_evidence() -> None:
    """The tickets' exits are in opposite orders, whatever a network with more dimensions does."""
    tables = q7(-1)
    dense = tables["exits"].query("branch == 'imp' and level == 1").assign(branch="dense", level=0, radius=100.0)
    tables["exits"] = pd.concat([tables["exits"], dense])
    found = claims(tables).query("claim == 'Q7'").set_index("comparison")["effect"]
    name = "exits of the train loss with those of the test error"
    assert found[name] < -0.8
    assert found[f"{name}, with the dense network"] > found[name] + 0.2
    assert verdicts(tables, ["Q7"])["verdict"].tolist() == ["contradicted"]
