"""Prunings, pairs of volumes, the sweep of the fraction, and points after retraining: the numbers of the tables."""

# pyright: reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportOptionalSubscript=false

from __future__ import annotations

import math

import pandas as pd
import pytest
import synthetic_claims as claimed

from sublevel.report.describe import Figure, Panel, Series, View
from sublevel.report.figures import Drawn, figures
from sublevel.report.findings import studied
from sublevel.report.prepare import clean


def figure(drawn: Drawn, key: str) -> Figure:
    return next(f for f in drawn.all if f.key == key)


def chosen(drawn: Drawn, key: str, **choice: str) -> View:
    return next(v for v in figure(drawn, key).views if choice.items() <= v.choice.items())


def line(panel: Panel, label: str) -> Series:
    return next(s for s in panel.series if s.label == label)


def test_the_criterion_stands_beside_the_mean_of_its_random_draws(drawn):
    loss, error = chosen(drawn, "prunings", branch="imp").panels
    assert line(loss, "chosen by the criterion").y == pytest.approx([0.01 * v for v in range(1, 6)])
    assert line(loss, "random, as many in every layer").y == pytest.approx([0.05 * v for v in range(1, 6)])
    assert line(error, "chosen by the criterion").y == pytest.approx([0.25 * v for v in range(1, 6)])
    assert line(loss, "random, as many in every layer").x == pytest.approx([0.8**v for v in range(1, 6)])
    assert figure(drawn, "prunings").notes[1] == (
        "In 45 of 45 prunings the criterion's rise lies below that of every random draw (3 each)."
    )


def test_a_random_draw_that_is_as_good_is_counted(tables):
    rows = tables["prunings"].copy()
    rows.loc[(rows["level"] == 1) & (rows["draw"] == 1), "loss_end"] = 0.012 + 0.005
    drawn = figures({"levels": tables["levels"], "prunings": rows})
    assert any(n.startswith("In 36 of 45 prunings") for n in figure(drawn, "prunings").notes)


def test_pairs_of_volumes_are_differences_to_their_reference(drawn):
    view = chosen(drawn, "volume-pairs", pair="solution and dense, at matched loss", operator="adaptive")
    volume, trace, norm, gap = view.panels
    assert line(volume, "imp").y == pytest.approx([-1.0, -2.0, -3.0, -4.0, -5.0])
    # three seeds at -0.1, 0, 0.1 around it: s = 0.1, t_{0.95, 2} = 2.91999
    assert line(volume, "imp").high[0] + 1.0 == pytest.approx(2.91999 * 0.1 / math.sqrt(3), abs=1e-5)
    assert line(trace, "imp").y == pytest.approx([1.1, 1.2, 1.3, 1.4, 1.5])
    assert line(norm, "imp").y == pytest.approx([0.9] * 5)
    assert line(gap, "imp").y == pytest.approx([0.0] * 5)
    assert line(volume, "no difference").y == [0.0, 0.0]
    pruned = chosen(drawn, "volume-pairs", pair="after and before pruning", operator="Hessian").panels[0]
    assert line(pruned, "oneshot").y == pytest.approx([-0.5, -1.0, -1.5, -2.0, -2.5])
    assert any("matched pairs differ by 0% (median)" in n for n in figure(drawn, "volume-pairs").notes)


def test_a_pair_that_is_in_doubt_is_hollow_and_says_why(tables):
    rows = tables["volume_pairs"].copy()
    rows.loc[rows["level"] == 2, "converged"] = False
    rows.loc[rows["level"] == 3, "reason"] = "lambda_10 <= 0"
    drawn = figures({"levels": tables["levels"], "volume_pairs": rows})
    imp = line(figure(drawn, "volume-pairs").views[0].panels[0], "imp")
    assert list(imp.hollow) == [False, True, True, False, False]
    assert "not converged" in imp.hover[1]
    assert "lambda_10 <= 0" in imp.hover[2]


def test_the_sweep_has_a_figure_of_its_own_and_stays_out_of_all_others(drawn, tables):
    error, barrier, loss = figure(drawn, "fractions").views[0].panels
    once = line(error, "pruned once")
    assert once.x == pytest.approx([0.05, 0.2, 0.5, 0.9])
    assert [once.y[i] for i in (0, 2, 3)] == pytest.approx([100 * claimed.error_at(f) for f in claimed.FRACTIONS])
    assert "step 0.05" in once.hover[0]
    assert once.hover[1].endswith("; imp")
    assert [line(barrier, "pruned once").y[i] for i in (0, 2, 3)] == pytest.approx([0.5, 5.0, 9.0])
    assert [line(loss, "pruned once").y[i] for i in (0, 2, 3)] == pytest.approx([0.05, 0.5, 0.9])
    labels = {s.label for f in drawn.all for v in f.views for p in v.panels for s in p.series}
    assert not [name for name in labels if name.startswith("step ")]
    assert studied(clean(tables), {}).startswith("IMP and 2 other methods pruned one network")


def test_the_sweep_is_told_by_columns_and_not_by_labels(tables):
    levels, paths = (
        tables[n].assign(branch=tables[n]["branch"].replace("step 0.05", "small")) for n in ("levels", "paths")
    )
    lamp = levels[levels["branch"] == "step 0.9"].assign(branch="imp-0.7-lamp", criterion="lamp", fraction=0.7)
    found = figures({"levels": pd.concat([levels, lamp.assign(density=0.3)]), "paths": paths})
    once = line(figure(found, "fractions").views[0].panels[0], "pruned once")
    assert once.x == pytest.approx([0.05, 0.2, 0.5, 0.9])  # another criterion is no part of it
    assert once.hover[0].endswith("; small")
    assert "imp-0.7-lamp" in {s.label for s in figure(found, "accuracy").views[0].panels[0].series}


def test_without_a_sweep_there_is_no_such_figure(tables):
    levels = tables["levels"][~tables["levels"]["branch"].str.startswith("step ")]
    assert "fractions" not in {f.key for f in figures({"levels": levels, "paths": tables["paths"]}).all}


def test_coordinates_are_chosen_before_pruning_or_after_retraining(drawn):
    before = chosen(drawn, "coordinates", branch="imp", when="before pruning").panels[0]
    after = chosen(drawn, "coordinates", branch="imp", when="after retraining").panels[0]
    assert line(before, "pruned").y == pytest.approx([0.1] * 6)  # the dense network first
    assert line(after, "pruned").y == pytest.approx([0.2] * 5)


def test_coordinates_of_old_tables_are_those_before_pruning(tables):
    old = tables["coordinates"]
    old = old[old["when"] == "before"].drop(columns="when")
    views = figure(figures({"levels": tables["levels"], "coordinates": old}), "coordinates").views
    assert {v.choice["when"] for v in views} == {"before pruning"}


def test_new_kinds_of_paths_have_their_figures(drawn):
    keys = {f.key for f in drawn.all}
    assert {"paths-start-to-dense", "paths-to-dense-aligned"} <= keys
    assert "permuted to match" in figure(drawn, "paths-to-dense-aligned").how
    assert {"to-dense-aligned", "start-to-dense"} <= {v.choice["path"] for v in figure(drawn, "barriers").views}


def test_the_seeds_behind_a_mean_give_it_back(drawn):
    """What the page takes means from again when a seed is switched off."""
    checked = 0
    for series in (s for f in drawn.all for v in f.views for p in v.panels for s in p.series):
        if series.samples is None:
            continue
        frame = pd.DataFrame({"at": series.samples.at, "y": series.samples.y})
        if series.samples.geometric:
            frame["y"] = frame["y"].map(math.log)
        mean = frame.groupby("at")["y"].mean()
        mean = mean.map(math.exp) if series.samples.geometric else mean
        assert [series.y[i] for i in mean.index] == pytest.approx(mean.tolist())
        checked += 1
    assert checked > 300
