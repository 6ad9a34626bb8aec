"""Cards, the box of what next, what limits a study, and what can be pasted: read off tables with known numbers."""

# pyright: reportOptionalMemberAccess=false

from __future__ import annotations

import math
import re

import pandas as pd
import pytest
import synthetic
from hostile import EVIL

from sublevel.report.figures import NOTHING, figures
from sublevel.report.guide import next_steps, terms
from sublevel.report.health import faults
from sublevel.report.latex import escape, levels_table, verdicts_table
from sublevel.report.methods import methods
from sublevel.report.page import render
from sublevel.report.prepare import clean
from sublevel.report.references import WORKS
from sublevel.report.verdicts import verdicts


def visible(html: str) -> str:
    return re.sub(r"<script.*?</script>", "", html, flags=re.S)


@pytest.fixture(scope="module")
def ready(tables):
    return clean(tables)


def test_a_card_has_all_that_is_known_of_its_claim(ready):
    found = verdicts(ready["verdicts"], ready["claims"], {"accuracy", "volume-pairs"})
    first = found.cards[0]
    assert (first.claim, first.verdict, first.kind, first.figure) == ("C1", "supported", "supported", "accuracy")
    assert first.why == ["The whole interval lies below the margin at every level down to 41%."]
    assert (first.effect, first.interval, first.unit) == ("0.04", "[−0.21, 0.29]", "points")
    assert first.facts == [("seeds", "3"), ("margin", "0.5"), ("p", "0.012"), ("corrected (Holm)", "0.061")]
    # the margin, 0.5, is the farthest from zero: 46 places to each side
    assert (first.drawn.low, first.drawn.mid, first.drawn.high) == (30.7, 53.7, 76.7)
    assert first.drawn.margins == (4.0, 96.0)
    assert first.drawn.words == "0.04 [−0.21, 0.29] points, margin 0.5"
    assert found.counts == [("supported", 2), ("contradicted", 1), ("undecided", 2)]


def test_a_card_says_where_a_margin_would_flip_it_and_what_is_exploratory(ready):
    row = {"claim": "C8", "verdict": "supported", "statement": "A barrier.", "unit": "share", "effect": 0.3, "n": 5,
           "low": 0.21, "high": 0.39, "margin": 0.1, "margin_flip": 0.21, "density": 0.25, "family": "exploratory",
           "p": 0.01}  # fmt: skip
    tables = clean({"verdicts": pd.DataFrame([row])})
    card = verdicts(tables["verdicts"], tables["claims"], set()).cards[0]
    facts = dict(card.facts)
    assert (card.effect, card.unit, facts["margin"], facts["weights left"]) == ("30.0", "%", "10", "25%")
    assert facts["verdict flips at a margin of"] == "21"
    assert facts[""] == "exploratory"
    assert "corrected (Holm)" not in facts


def test_a_card_lists_its_comparisons_by_density_and_by_their_part_in_the_verdict():
    about = {"claim": "C2", "unit": "test error", "low": 0.01, "high": 0.03, "reading": "it costs", "n": 3}
    rows = [
        about | {"comparison": "b", "level": 2, "density": 0.1, "effect": 0.02, "role": "beyond"},
        about | {"comparison": "a", "level": 1, "density": 0.25, "effect": 0.02, "role": "decides"},
        about | {"comparison": "b", "level": 1, "density": 0.25, "effect": 0.02, "role": "decides"},
        about | {"comparison": "c", "level": 1, "density": 0.25, "effect": 0.02, "role": "comparison"},
        about | {"comparison": "none", "level": 1, "density": 0.25, "effect": float("nan"), "role": "decides"},
        about | {"comparison": "not at a fixed density", "level": 3, "density": 0.05, "effect": 0.02, "role": ""},
        about | {"comparison": "of another claim", "claim": "C3", "density": 0.25, "effect": 0.02, "role": "decides"},
    ]
    verdict = {"claim": "C2", "verdict": "undecided", "statement": "It does worse.", "why": "few seeds", "n": 3}
    tables = clean({"verdicts": pd.DataFrame([verdict]), "claims": pd.DataFrame(rows)})
    (card,) = verdicts(tables["verdicts"], tables["claims"], set()).cards
    assert [(e.heading, e.decides, [name for name, _, _ in e.rows]) for e in card.evidence] == [
        ("25% of the weights", True, ["a", "b"]),
        ("10% of the weights, not part of the verdict", False, ["b"]),
        ("25% of the weights, for comparison", False, ["c"]),
    ]
    assert card.evidence[0].rows[0] == ("a", "2.0 [1.0, 3.0] points (test error)", "it costs")


def test_what_was_not_measured_is_no_card_and_says_what_to_add(ready):
    found = verdicts(ready["verdicts"], ready["claims"], set())
    assert [claim for claim, _, _ in found.unmeasured] == ["C10", "C12"]
    assert found.unmeasured[0][2] == "add [geometry.prunings] to the study."
    assert {c.claim for c in found.cards} == {"C1", "C2", "C4", "C5", "C8"}


def test_an_effect_without_an_interval_or_a_figure_is_still_a_card(ready):
    last = verdicts(ready["verdicts"], ready["claims"], {"accuracy"}).cards[-1]
    assert (last.effect, last.interval, last.figure) == ("0.07", "", "")
    assert (last.drawn.low, last.drawn.high) == (last.drawn.mid, last.drawn.mid)
    assert last.facts == [("seeds", "3")]


def test_verdicts_come_before_the_figures_and_every_anchor_is_there(html):
    text = visible(html)
    assert text.index('class="cards"') < text.index('id="section-accuracy"')
    anchors = set(re.findall(r'href="#([^"]+)"', text))
    assert anchors <= set(re.findall(r'id="([^"]+)"', text))
    assert {"accuracy", "volume-pairs"} <= anchors
    assert "no-such-figure" not in text


def test_the_story_is_in_the_order_of_the_argument(html):
    order = ["findings", "first-accuracy", "first-landscape", "claims", "section-accuracy",
             "section-what-pruning-and-retraining-do", "section-paths-and-barriers", "section-sublevel-sets",
             "section-planes", "section-curvature", "section-volume", "protocol", "appendix", "next", "layers",
             "learning", "setup"]  # fmt: skip
    places = [html.index(f'id="{name}"') for name in order]
    assert places == sorted(places)


def test_tables_without_verdicts_still_render(tiny):
    text = visible(render({k: tiny[k] for k in ("levels", "claims")}, synthetic.summary()))
    assert "These tables have no verdicts." in text
    assert '<details class="card' not in text


def test_a_short_study_is_told_to_add_seeds_and_a_plane(ready):
    shown = dict(next_steps(ready, {"name": "mini"}))
    assert "sublevel run mini --set seeds=5" in shown.values()
    assert any("--set model.name=my_nets:build" in c for c in shown.values())
    assert not any("planes" in c for c in shown.values())
    flat = ready | {"planes": ready["planes"].iloc[:0]}
    assert any('through=[["dense","imp/1","imp/5"]]' in c for _, c in next_steps(flat, {"name": "mini"}))
    assert all("my.toml" in c for _, c in next_steps(ready, {"name": "somebody's"}))
    python = {"name": "somebody's", "study": {"data": {"name": "own"}}}
    assert all(c.startswith("sl.Study(") for _, c in next_steps(ready, python))
    assert next_steps(clean({}), {}) == []


def test_limits_name_the_networks_and_the_reason(tables):
    levels = tables["levels"].copy()
    levels.loc[(levels["branch"] == "imp") & (levels["level"] == 3) & (levels["seed"] == 1), "train_loss"] = math.nan
    levels.loc[(levels["branch"] == "oneshot") & (levels["level"] == 5), "collapsed_layers"] = 1
    levels = levels[~((levels["branch"] == "reinit") & (levels["level"] == 2) & (levels["seed"] == 0))]
    found = faults(clean({"levels": levels}))
    assert any("1 networks that other seeds have are missing (reinit level 2 seed 0)" in f for f in found)
    assert any("have no finite loss or error (imp level 3 seed 1)" in f for f in found)
    assert any("a layer without weights (oneshot level 5 seed 0," in f for f in found)
    assert len(found) == 3
    layers = tables["layers"].copy()
    second = sorted(layers["layer"].unique())[1]
    layers.loc[(layers["branch"] == "oneshot") & (layers["level"] == 5) & (layers["layer"] == second), "remaining"] = 0
    assert any(
        f.endswith(f"describe that. Empty layers: {second}.") for f in faults({"levels": levels, "layers": layers})
    )


def test_one_seed_and_no_dense_network_are_limits(tables):
    levels = tables["levels"]
    found = faults(clean({"levels": levels[(levels["seed"] == 0) & (levels["branch"] != "dense")]}))
    assert found[0].startswith("1 seed: no interval and no test. Set seeds = 3")
    assert found[1].startswith("The dense network is missing")
    assert faults(clean({})) == []


@pytest.mark.parametrize("spoilt", ["one seed", "no dense", "losses are not numbers", "collapsed", "one row"])
def test_bad_input_gives_a_page_that_says_what_is_missing(tables, spoilt):
    levels = tables["levels"]
    bad = {
        "one seed": levels[levels["seed"] == 0],
        "no dense": levels[levels["branch"] != "dense"],
        "losses are not numbers": levels.assign(train_loss=math.inf, test_loss=math.nan, test_error="nan"),
        "collapsed": levels.assign(collapsed_layers=2, gradient_norm=0.0, weight_norm=math.nan),
        "one row": levels.iloc[:1],
    }[spoilt]
    text = visible(render({"levels": bad, "spectra": tables["spectra"].assign(eigenvalue=math.nan)}, {}))
    assert 'id="limits"' in text
    assert "Figures without data: " in text
    assert "its function failed" not in text


def test_a_table_without_a_finite_value_is_told_from_one_that_is_not_there(tables):
    drawn = figures({"spectra": tables["spectra"].assign(eigenvalue=math.nan)})
    assert [m.name for m in drawn.missing if m.why == NOTHING] == ["spectra"]


def test_the_latex_table_of_levels_holds_means_and_half_widths():
    levels = pd.DataFrame(
        [("dense", 0, s, 1.0, e) for s, e in enumerate((0.10, 0.12, 0.14))]
        + [("imp", 1, s, 0.8, e) for s, e in enumerate((0.10, 0.12, 0.14))]
        + [("my_own & co", 2, 0, 0.64, 0.2)],
        columns=["branch", "level", "seed", "density", "test_error"],
    )
    text = levels_table(clean({"levels": levels})["levels"])
    # s = 2 points, n = 3: 2.91999 * 2 / sqrt(3) = 3.37
    assert r"1 & 80\% & $12.0 \pm 3.4$ & -- \\" in text
    assert r"2 & 64\% & -- & 20.00 \\" in text
    assert r"0 & 100\% & \multicolumn{2}{c}{dense: $12.0 \pm 3.4$} \\" in text
    assert r"Level & Left & imp & my\_own \& co \\" in text
    assert "mean over 1 to 3 seeds" in text
    assert text.count(r"\begin{") == text.count(r"\end{") == 2


def test_the_latex_table_of_verdicts_holds_effects_and_p(ready):
    text = verdicts_table(ready["verdicts"])
    assert r"C1 & supported & $0.04$ $[-0.21, 0.29]$ & points & 3 & 0.012 & 0.061 \\" in text
    assert r"C2 & supported & $5.10$ $[4.40, 5.80]$ & points & 3 & $<$ 0.001 & $<$ 0.001 \\" in text
    assert r"C10 & not measured & -- &  &  &  &  \\" in text


def test_what_is_pasted_is_escaped():
    raw = re.sub(
        r"\\(?:textbackslash|textasciitilde|textasciicircum)\{\}|\\[&%$#_{}]|\$[<>]\$", "", escape(EVIL + "_#^~\\")
    )
    assert not set(raw) & set("&%$#_{}^~\\<>")


def test_the_methods_name_protocol_sizes_seeds_estimators_and_statistics(ready):
    found = methods(ready, synthetic.summary())
    for part in (
        "resnet20 (272,474 parameters, 270,896 of them prunable) on cifar10",
        "multiplied by 0.1 after 31280 steps and 46920 steps, for 160 epochs",
        "removed 20% of the remaining weights at each of 10 levels",
        "values after 2000 steps", "one-shot pruning", "repeated with 3 seeds", "45,000 training",
        "(Ghorbani et al. 2019)", "(Ainsworth et al. 2023)", "(Lau et al. 2025)", "(Holm 1979)",
    ):  # fmt: skip
        assert part in found.text, part
    assert "[[" not in found.text + found.latex
    assert r"~\citep{frankle2019lottery,frankle2020linear}" in found.latex
    assert "20\\% of the" in found.latex


def test_branches_are_named_in_the_words_of_the_run(ready):
    words = {"reinit": {"summary": "a new start [[x]]", "cite": "nobody2020nothing"}, "imp": 3, "oneshot": {}}
    text = methods(ready, {"branches": words}).text
    assert "It was compared with a new start [x]]." in text
    assert "reinit: a new start [[x]]" in dict(terms(ready["levels"], {"branches": words}))["Branches"]


def test_every_citation_has_its_entry_and_no_other_is_there(ready):
    found = methods(ready, synthetic.summary())
    cited = {k for keys in re.findall(r"\\citep\{([^}]+)\}", found.latex) for k in keys.split(",")}
    entries = set(re.findall(r"@\w+\{(\w+),", found.bibtex))
    assert cited == entries <= set(WORKS)
    assert {"saleem2024insights", "frankle2020linear", "frankle2019lottery", "ainsworth2023git"} <= entries
    assert "2403.15022" in found.bibtex
    few = methods(clean({"levels": ready["levels"]}), {})
    assert "ghorbani" not in few.bibtex
    assert "Holm" not in few.text
