"""Verdicts on synthetic studies with known effects: each claim both ways, and what no study decides."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from known_effects import KEYS, TABLES, Field, study

from sublevel.claims import CLAIMS, ClaimPart, claim, claims, compared, tickets, verdicts
from sublevel.claims.parts import Measured, assess
from sublevel.claims.words import amount
from sublevel.errors import ConfigError
from sublevel.tables import TABLES as KNOWN

MIXED = {"match": (6.0, 6.0, -6.0), "error barrier shared": (6.0, 6.0, -6.0)}
"""C11 needs densities at which both sides fail."""

FAR = 12.0
"""The dense threshold is estimated from five networks: only what is far beyond it is surely outside."""


def judged(claim: str, shifts: dict[str, Any] | None = None, *, seeds: int = 5, others: float = 6.0, seed: int = 0,
           **field: Any):  # fmt: skip
    rng = np.random.default_rng(seed)
    tables = study(rng, shifts or {}, seeds=seeds, others=others, claims=(claim,), field=Field(**field))
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
    row = judged(claim, {key: -FAR})
    if (claim, key) == ("C5", "match"):  # no density matches, so nothing is decided
        assert row["verdict"] == "undecided"
        assert "the ticket is not shown to match at" in row["sentence"]
        return
    if (claim, key) == ("C6", "steep retrained"):  # before pruning, at the dense network, it holds
        assert row["verdict"] == "undecided"
        assert "holds at 100%" in row["sentence"]
        return
    assert row["verdict"] == "contradicted", row["why"]
    assert row["p"] > 0.5
    assert row["why"] != judged(claim)["why"]
    named = [why.split(":")[0].split(",")[0] for why in (row["why"], judged(claim, {key: -FAR}, seed=1)["why"])]
    assert named[0] == named[1]


@pytest.mark.parametrize(("claim", "key"), BROKEN)
def test_one_part_that_is_not_decided_leaves_the_claim_so(claim, key):
    rng = np.random.default_rng(17)
    drawn = [study(rng, {key: 0.0}, others=6.0, claims=(claim,)) for _ in range(8)]
    found = [verdicts(tables, [claim])["verdict"].item() for tables in drawn]
    if (claim, key) == ("C6", "steep retrained"):
        assert found.count("supported") >= 7  # at the dense network
    else:
        assert found.count("undecided") >= 5


@pytest.mark.parametrize("claim", KEYS)
@pytest.mark.parametrize("seeds", [1, 2])
def test_fewer_than_three_seeds_are_never_enough(claim, seeds):
    for others in (6.0, -6.0):
        row = judged(claim, seeds=seeds, others=others)
        assert row["verdict"] == "undecided"
        assert "fewer than 3 seeds" in row["why"] or "C1 finds no match" in row["why"]
        assert math.isnan(row["p"])


@pytest.mark.parametrize("claim", KEYS)
def test_without_its_tables_a_claim_is_not_measured_and_says_what_it_lacks(claim):
    for tables in ({}, {name: pd.DataFrame(columns=list(KNOWN[name].columns)) for name in TABLES[claim]}):
        row = verdicts(tables, [claim]).iloc[0]
        assert row["verdict"] == "not measured"
        assert "not measured: no rows of" in row["why"]
        assert math.isnan(row["p_holm"])
        assert row["n"] == 0


def test_columns_and_order():
    found = verdicts({})
    assert list(found.columns) == list(KNOWN["verdicts"].columns)
    assert found["claim"].tolist() == ["C1", "C2", "C3", "C4a", "C4b", *(f"C{i}" for i in range(5, 13))]


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
        yield ClaimPart(
            name="mine", unit="train loss", measured=measured, low=-1.0, high=1.0, holds="so", fails="not so"
        )

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
    assert row["sentence"].startswith("Supported down to 30% of the weights: IMP is at most 0.5 points worse")
    assert "at 10% of the weights: IMP is worse than the dense network by more than 0.5 points" in row["why"]
    assert judged("C1")["sentence"].startswith("Supported down to 3% of the weights")


def test_a_claim_says_where_it_holds():
    row = judged("C3", {"oneshot": (-1.0, 6.0, 6.0)})
    assert row["verdict"] == "supported"
    assert row["sentence"].startswith("Supported at 10% and 3% of the weights: one-shot pruning costs ")
    assert row["density"] in (0.1, 0.03)


def test_densities_of_opposite_sign_are_never_averaged():
    """A mean over these three densities would be far above 0, and the claim supported."""
    row = judged("C3", {"oneshot": (-6.0, 12.0, 12.0)})
    assert row["verdict"] == "undecided"
    assert "it holds at 10% and 3% of the weights, and the opposite at 30% of the weights" in row["sentence"]
    assert judged("C3", {"oneshot": (-6.0, -6.0, -6.0)})["verdict"] == "contradicted"


def test_c7_is_not_contradicted_by_a_density_at_which_the_ticket_does_not_match():
    """Inside at 30%, far outside at 3%, where imp has long left the dense network's error: as in the demo."""
    row = judged("C7", {"match": (6.0, -6.0, -6.0), "inside": (6.0, -2.0, -60.0)})
    assert row["verdict"] == "supported", row["why"]
    assert "at 30% of the weights" in row["sentence"]
    assert "not part of the verdict: at 3% of the weights" in row["why"]
    assert "the loss of IMP's solution is above the dense threshold" in row["why"]


def test_claims_about_tickets_are_decided_where_the_ticket_matches_densest_first():
    for name in ("C5", "C7", "C8", "C9"):
        assert CLAIMS[name].combine is tickets
    row = judged("C9", {"prune volume": (6.0, 0.0, 6.0)}, seed=1)
    assert row["sentence"].startswith("Supported at 30% of the weights")  # the sequence ends at the second
    assert judged("C9", {"prune volume": (0.0, 6.0, 6.0)}, seed=1)["verdict"] == "undecided"
    nowhere = judged("C9", {"match": -6.0})
    assert nowhere["verdict"] == "undecided"
    assert nowhere["why"].startswith("C1 finds no match at the densities where this was measured")


@pytest.mark.parametrize(
    ("name", "zeros", "verdict"),
    [
        ("C7", ("path", "start"), "supported"),
        ("C8", ("error barrier shared", "error barrier independent"), "supported"),
        ("C8", ("loss rise shared", "loss rise independent"), "contradicted"),
        ("C12", ("small rise",), "supported"),
        ("C12", ("small rise", "middle rise"), "contradicted"),
    ],
)
def test_a_height_of_zero_in_every_seed_lies_inside_any_margin(name, zeros, verdict):
    for seeds in (3, 10):
        row = judged(name, zeros=zeros, others=FAR if name == "C7" else 5.0, seeds=seeds)
        assert row["verdict"] == verdict, row["why"]
    assert "no spread" not in row["why"]


def test_zero_barriers_say_their_side_of_an_if_and_only_if():
    row = judged("C11", {"match": (6.0, 6.0, -6.0)}, zeros=("error barrier shared",))
    assert row["verdict"] == "contradicted"
    assert "at 3% of the weights there is no error barrier, yet IMP is worse" in row["sentence"]


def test_what_may_be_negative_has_no_floor():
    tables = study(np.random.default_rng(0), claims=("C3",))
    levels = tables["levels"]
    levels["test_error"] = np.where(levels["branch"] == "oneshot", 0.5, 0.25)
    row = verdicts(tables, ["C3"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert "no spread over seeds" in row["why"]


@pytest.mark.parametrize("end_sd", [1e-4, 2e-3, 8e-3])
def test_the_margin_of_a_barrier_does_not_grow_with_the_noise_of_the_ends(end_sd):
    row = judged("C8", {"loss rise shared": -4.0, "loss rise independent": -4.0}, end_sd=end_sd)
    assert (row["verdict"], row["margin"]) == ("contradicted", 0.1)
    row = judged("C8", end_sd=end_sd)
    assert (row["verdict"], row["margin"]) == ("supported", 0.1)
    assert 0.1 < row["margin_flip"] < row["effect"]


def test_c8_shows_the_height_over_the_chord_in_nats_and_as_a_share_of_the_fall():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C8",))
    tables["paths"]["loss_barrier"] = 0.2 + 0.01 * tables["paths"]["seed"]
    rows = claims(tables).set_index("comparison")
    shared = "shared order, height over the chord"
    assert rows.loc[shared, "effect"].iloc[0] == pytest.approx(0.22)
    assert rows.loc[f"{shared} as a share of the dense run's fall", "effect"].iloc[0] == pytest.approx(0.22)
    assert set(rows.loc[shared, "role"]) == {"comparison"}
    without = {name: frame.drop(columns="train_loss_start", errors="ignore") for name, frame in tables.items()}
    assert not claims(without)["comparison"].str.contains("fall").any()
    why = verdicts(without, ["C8"])["why"].item()
    assert "for comparison, shared order, height over the chord as a share of the dense run's fall" in why
    assert why.count("share of the dense run's fall: not measured") == 2


def test_the_estimated_threshold_does_not_call_its_own_quantile_inside():
    """At the true 95% quantile of dense losses the solution is neither inside nor outside."""
    rng = np.random.default_rng(5)
    drawn = [study(rng, {"inside": 0.0}, others=FAR, claims=("C7",)) for _ in range(20)]
    found = [verdicts(tables, ["C7"])["verdict"].item() for tables in drawn]
    assert found.count("supported") <= 4  # 5% of 20, and 3 standard errors
    assert found.count("contradicted") <= 4


def test_a_seed_without_a_dense_loss_is_dropped_and_not_read_against_a_threshold_as_if_it_were_known():
    tables = study(np.random.default_rng(0), others=FAR, seeds=6, claims=("C7",))
    member = tables["membership"]
    member.loc[member["seed"] == 2, "loss_dense"] = math.nan
    row = verdicts(tables, ["C7"]).iloc[0]
    assert row["verdict"] == "supported", row["why"]
    assert "imp, end loss - dense threshold, train loss: 1 seed dropped" in row["why"]
    member["loss_dense"] = member["loss_dense"].where(member["seed"] == 0)
    row = verdicts(tables, ["C7"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert "no dense threshold: it needs the losses of two dense networks" in row["why"]


def test_of_two_variants_the_studys_own_is_read_whatever_comes_first():
    """Another step to rewind to is told by no column: the label that is the branch's own name is taken."""
    tables = study(np.random.default_rng(0), others=6.0, claims=("C8",))
    levels, paths = tables["levels"], tables["paths"]
    other = levels.loc[levels["branch"] == "imp"].assign(branch="imp-0it")
    flat = paths.loc[paths["branch"] == "imp"].assign(branch="imp-0it", loss_max=0.0)
    both = {"levels": pd.concat([other, levels]), "paths": pd.concat([flat, paths])}
    assert verdicts(both, ["C8"])["p"].item() == verdicts(tables, ["C8"])["p"].item()


def test_c7_a_new_initialisation_needs_both_searches():
    tables = study(np.random.default_rng(0), {"leaves reinit": -3.0}, others=FAR, claims=("C7",))
    member = tables["membership"]
    reinit = member["branch"] == "reinit"
    # before matching there is no path, after it there is: the barrier was a permutation
    member.loc[reinit & (member["aligned"] == 0), "lowest_max"] *= 2
    row = verdicts(tables, ["C7"]).iloc[0]
    assert row["verdict"] == "contradicted"
    assert "a path from the re-initialised network rises less than 10%" in row["why"]
    alone = tables | {"membership": member.loc[member["aligned"] == 0]}
    row = verdicts(alone, ["C7"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert "aligned = 0 and 1" in row["why"]


def test_c7_leaves_by_its_loss_alone():
    """A path that does not rise leads from the dense network up to a solution above the threshold."""
    tables = study(np.random.default_rng(0), others=FAR, claims=("C7",))
    member = tables["membership"]
    out = member["branch"].isin(["reinit", "random-prune"])
    member.loc[out, "lowest_max"] = member.loc[out, "loss"]
    row = verdicts(tables, ["C7"]).iloc[0]
    assert row["verdict"] == "supported", row["why"]
    assert "the loss of the re-initialised network is above the dense threshold" in row["why"]


def test_c5_reads_the_difference_of_differences_and_leaves_the_rest_beside():
    row = judged("C5", {"volume apart": -6.0})
    assert row["verdict"] == "contradicted"
    assert "random masks lose" in row["sentence"]
    assert "so the loss is not specific to IMP" in row["sentence"]
    tables = study(np.random.default_rng(0), others=6.0, claims=("C5",))
    pairs = tables["volume_pairs"]
    top = pairs.loc[pairs["setting"] == 1e-3].assign(method="top-k", k=5, operator="adaptive", setting=np.nan)
    alone = verdicts({"levels": tables["levels"], "volume_pairs": top}, ["C5"]).iloc[0]
    assert alone["verdict"] == "undecided"
    assert "GGN log-determinant was not measured" in alone["sentence"]
    both = verdicts({"levels": tables["levels"], "volume_pairs": pd.concat([pairs, top])}, ["C5"]).iloc[0]
    assert both["verdict"] == "supported"
    assert "setting 0.001" in both["why"]  # the middle damping
    assert "for comparison, IMP's solution has less volume" in both["why"]


def test_c5_volumes_of_older_runs_are_not_measured():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C5",))
    pairs = tables["volume_pairs"]
    for old in (pairs.drop(columns=["method", "setting"]), pairs.assign(method=np.nan, setting=np.nan)):
        row = verdicts({"levels": tables["levels"], "volume_pairs": old}, ["C5"]).iloc[0]
        assert row["verdict"] == "undecided"
        assert "was not measured" in row["sentence"]


def test_c5_leaves_out_volumes_that_are_not_to_be_trusted():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C5",))
    pairs = tables["volume_pairs"]
    flagged = (pairs["branch"] == "imp") & (pairs["seed"] < 3) & (pairs["level"] == 1)
    pairs.loc[flagged, "reason"] = "the curvature is not positive"
    row = verdicts(tables, ["C5"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert "fewer than 3 seeds, 3 dropped: a value is missing" in row["why"]
    assert "3 of the pairs of imp left out (the curvature is not positive)" in row["why"]


def test_c6_reads_ranks_at_the_dense_network_too():
    row = judged("C6", {"steep before": 0.0, "steep retrained": 0.0})
    assert row["verdict"] == "undecided"
    assert "at 100% of the weights" in row["why"]
    tables = study(np.random.default_rng(0), others=6.0, claims=("C6",))
    assert min(tables["coordinates"]["curvature"]) < 0  # curvature of either sign, and one statistic
    assert verdicts(tables, ["C6"])["verdict"].item() == "supported"
    tables["coordinates"] = tables["coordinates"].drop(columns=["rank", "rank_se"])
    row = verdicts(tables, ["C6"]).iloc[0]
    assert row["verdict"] == "not measured"
    assert "that have a rank" in row["why"]


def test_c9_decides_nothing_while_its_volumes_are_missing():
    tables = study(np.random.default_rng(0), {"finetune-mask loss": -6.0}, others=6.0, claims=("C9",))
    assert verdicts(tables, ["C9"])["verdict"].item() == "contradicted"
    row = verdicts({name: t for name, t in tables.items() if name != "volume_pairs"}, ["C9"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert math.isnan(row["p_contrary"])
    assert "log volume, rays was not measured" in row["sentence"]


def test_c11_needs_both_directions():
    row = judged("C11")
    assert row["verdict"] == "undecided"
    assert "only one direction" in row["why"]


@pytest.mark.parametrize("shifts", [{"match": (6, -6, -6)}, {"error barrier shared": (-6, 6, -6)}])
def test_c11_is_contradicted_by_one_density_that_does_one_and_not_the_other(shifts):
    row = judged("C11", MIXED | shifts)
    assert row["verdict"] == "contradicted"
    assert ", yet " in row["sentence"]


def test_c11_says_both_sides():
    row = judged("C11", MIXED)
    assert row["sentence"].startswith("Supported: at 30% of the weights there is no error barrier and IMP is at most")
    assert "at 3% of the weights there is an error barrier and IMP is worse than the dense network" in row["sentence"]


def test_c12_needs_a_middle_fraction_that_differs():
    row = judged("C12", {"middle rise": -4.0})
    assert row["verdict"] == "contradicted"
    assert "the segment from the dense network to the middle fraction rises by less than 10%" in row["sentence"]
    tables = study(np.random.default_rng(0), others=6.0, claims=("C12",))
    levels = tables["levels"]
    keep = ~levels["fraction"].between(0.1, 0.8)
    row = verdicts({**tables, "levels": levels.loc[keep]}, ["C12"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert "imp with a fraction between 0.1 and 0.8" in row["why"]


def test_branches_are_known_by_columns_and_not_by_their_labels():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C12", "C3"))
    names = {"imp": "winner", "sweep small": "small", "oneshot": "at once", "dense": "whole"}
    renamed = {name: t.assign(branch=t["branch"].replace(names)) for name, t in tables.items()}
    found = verdicts(renamed, ["C3", "C12"])
    assert found["verdict"].tolist() == ["supported", "supported"]
    assert found["p"].tolist() == pytest.approx(verdicts(tables, ["C3", "C12"])["p"].tolist())


def test_another_criterion_is_no_sweep_and_not_the_studys_imp():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C12",))
    levels = tables["levels"]
    lamp = levels.loc[levels["branch"] == "sweep large"].assign(branch="imp-0.9-lamp", criterion="lamp")
    without = levels.loc[levels["branch"] != "sweep large"]
    row = verdicts({**tables, "levels": pd.concat([without, lamp])}, ["C12"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert "imp with a fraction of at least 0.8" in row["why"]
    other = levels.loc[levels["branch"] == "imp"].assign(branch="imp-lamp", criterion="lamp")
    other["test_error"] += 0.2
    both = pd.concat([other, levels])
    assert verdicts({"levels": both}, ["C1"])["verdict"].item() == "supported"
    assert verdicts({"levels": both}, ["C1"], {"criterion": "lamp"})["verdict"].item() == "contradicted"


def test_tables_without_the_columns_take_a_label_for_the_branch():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C3",))
    old = tables["levels"].drop(columns=["base", "fraction", "criterion", "order"])
    assert verdicts({"levels": old}, ["C3"])["verdict"].item() == "supported"


def test_a_random_mask_of_either_kind_serves_as_the_control():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C2",))
    levels = tables["levels"]
    levels = levels.loc[levels["branch"] != "random-prune"]
    worse = levels["branch"] == "random-imp"
    levels.loc[worse, "test_error"] += 0.01 + 1e-4 * levels.loc[worse, "seed"]
    assert verdicts({"levels": levels}, ["C2"])["verdict"].item() == "supported"


def test_c1_is_tested_by_itself_and_holm_corrects_the_other_primary_claims():
    tables = study(np.random.default_rng(3), {"match": (12.0, 12.0, 12.0)}, others=6.0)
    every = verdicts(tables).set_index("claim")
    assert every.loc["C1", "p_holm"] == every.loc["C1", "p"]
    assert set(every["family"]) == {"primary"}
    named = verdicts(tables, study={"primary": ["C1", "C3", "C8"]}).set_index("claim")
    assert named.loc["C1", "p_holm"] == named.loc["C1", "p"]
    two = named.loc[["C3", "C8"]]
    assert two["p_holm"].min() == pytest.approx(2 * two["p"].min())
    assert (every.loc["C3", "p_holm"] > named.loc["C3", "p_holm"]) or every.loc["C3", "p"] == two["p"].max()
    rest = named.drop(["C1", "C3", "C8"])
    assert set(rest["family"]) == {"exploratory"}
    assert not np.isfinite(rest["p_holm"].to_numpy(dtype=float)).any()
    assert rest.loc["C2", "verdict"] == "supported"
    assert rest.loc["C2", "sentence"].endswith("Exploratory: not corrected for the number of claims.")


def test_a_study_names_its_densities():
    tables = study(np.random.default_rng(0), {"oneshot": (6.0, 0.0, 0.0)}, others=6.0, claims=("C3",))
    row = verdicts(tables, ["C3"], {"claim_densities": [0.3]}).iloc[0]
    assert row["sentence"].startswith("Supported at 30% of the weights")
    assert "10%" not in row["why"]


def test_c3_reports_the_comparison_at_equal_cost_beside_and_does_not_count_it():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C3",))
    levels = tables["levels"]
    cyclic = levels.loc[levels["branch"] == "imp"].assign(branch="oneshot-cyclic", base="oneshot-cyclic")
    cyclic["test_error"] -= 0.01 + 0.001 * cyclic["seed"]
    row = verdicts({"levels": pd.concat([levels, cyclic])}, ["C3"]).iloc[0]
    assert row["verdict"] == "supported"
    assert "for comparison, one-shot pruning at equal cost saves" in row["why"]


def test_a_part_that_was_not_measured_cannot_be_taken_as_held():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C2",))
    levels = tables["levels"]
    row = verdicts({"levels": levels.loc[levels["branch"] != "reinit"]}, ["C2"]).iloc[0]
    assert row["verdict"] == "undecided"
    assert "reinit - imp, test error: not measured: no rows of levels with branch = reinit" in row["why"]


def test_holm_takes_away_what_held_alone_and_says_so():
    tables = study(np.random.default_rng(5), {"oneshot": 1.6}, others=0.0)
    levels = tables["levels"]
    at = levels["branch"] == "oneshot"
    imp = levels.loc[levels["branch"] == "imp"].set_index(["level", "seed"])["test_error"]
    wanted = 0.0045 + 0.0015 * np.array([-2, -1, 0, 1, 2])
    keys = levels.loc[at, ["level", "seed"]]
    levels.loc[at, "test_error"] = [imp[key] + wanted[key[1]] for key in keys.itertuples(index=False, name=None)]
    alone, among = verdicts(tables, ["C3"]).iloc[0], verdicts(tables).set_index("claim").loc["C3"]
    assert alone["verdict"] == "supported"
    assert among["verdict"] == "undecided"
    assert "significant alone" in among["why"]
    assert "not after Holm's correction over" in among["why"]
    assert among["p_holm"] > among["p"] == alone["p"]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_none_takes_its_seed_out(bad):
    tables = study(np.random.default_rng(0), others=6.0, seeds=6, claims=("C4b",))
    levels = tables["levels"]
    levels.loc[(levels["branch"] == "finetune") & (levels["seed"] == 2) & (levels["level"] == 1), "train_loss"] = bad
    row = verdicts(tables, ["C4b"]).iloc[0]
    assert row["verdict"] == "supported"
    assert "finetune - imp, train loss: 1 seed dropped: a value is missing" in row["why"]


def test_a_density_that_no_level_reaches_is_not_read():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C3",))
    levels = tables["levels"]
    row = verdicts({"levels": levels.loc[levels["level"] < 3]}, ["C3"]).iloc[0]
    assert row["sentence"].startswith("Supported at 30% and 10% of the weights")
    dense = levels.assign(density=0.9)
    row = verdicts({"levels": dense}, ["C3"]).iloc[0]
    assert row["verdict"] == "not measured"
    assert "near a fixed density" in row["why"]


def test_all_parts_of_a_claim_are_read_at_one_level():
    """Level 4 is nearer to 10%, but reinit was followed to level 2 alone: what both have is read."""
    levels = study(np.random.default_rng(0), others=6.0, claims=("C2",))["levels"]
    nearer = levels[(levels["level"] == 2) & (levels["branch"] != "reinit")].assign(level=4, density=0.101)
    levels.loc[levels["level"] == 2, "density"] = 0.12
    found = claims({"levels": pd.concat([levels, nearer])})
    decides = found[(found["claim"] == "C2") & (found["role"] == "decides")]
    assert set(decides["level"]) == {1, 2, 3}


def test_collapsed_networks_are_counted_and_said():
    tables = study(np.random.default_rng(0), others=6.0, claims=("C2",))
    levels = tables["levels"]
    levels["collapsed_layers"] = ((levels["branch"] == "random-prune") & (levels["level"] == 3)).astype(int)
    row = verdicts(tables, ["C2"]).iloc[0]
    assert "included: 5 networks of random-prune with a layer without weights" in row["why"]


def test_the_seed_is_the_unit_and_not_the_level():
    """Densities of a seed that move together are corrected for, not pooled: three never give a smaller p than one."""
    tables = study(np.random.default_rng(1), claims=("C3",))
    levels = tables["levels"]
    first = levels.loc[levels["level"] <= 1]
    copies = [first.assign(level=n, density=d) for n, d in ((1, 0.3), (2, 0.1), (3, 0.03))]
    one = verdicts({"levels": first}, ["C3"]).iloc[0]
    three = verdicts({"levels": pd.concat(copies)}, ["C3"]).iloc[0]
    assert three["n"] == one["n"] == 5
    assert three["p"] == pytest.approx(3 * one["p"], rel=1e-9)


def test_the_order_of_rows_changes_nothing():
    tables = study(np.random.default_rng(2), MIXED)
    mixed = {name: frame.sample(frac=1, random_state=4) for name, frame in tables.items()}
    pd.testing.assert_frame_equal(verdicts(tables), verdicts(mixed))


def test_columns_of_objects_with_none_are_read_like_numbers():
    tables = study(np.random.default_rng(2), MIXED)
    loose = {name: frame.astype(object).where(frame.notna(), None) for name, frame in tables.items()}
    pd.testing.assert_frame_equal(verdicts(tables), verdicts(loose))


@pytest.mark.parametrize("noise", [0.0, 1e-17, -1e-17, -1e-4])
def test_an_effect_that_rounds_to_zero_has_one_sign(noise):
    """The mean of 1, -1 and 0 is 0 or a rounding error of either sign, by the order in which a processor adds."""
    measured = Measured({(1, s): v + noise for s, v in enumerate((1.0, -1.0, 0.0))}, {1: 0.5}, "rows")
    part = ClaimPart(name="mine", unit="train loss", measured=measured, low=-1.0, high=1.0, holds="so", fails="not so")
    assert amount(assess(part, 1).mean, assess(part, 1)) == "+0.0"
