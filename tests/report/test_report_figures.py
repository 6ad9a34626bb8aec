"""A description holds the right numbers, whatever draws it later."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import synthetic

from sublevel.report.describe import Axis, Figure, Landscape, Panel, Series, legend, words
from sublevel.report.figures import FIGURES, SECTIONS, UNMEASURED, Drawn, figures
from sublevel.report.palette import BRANCHES, styles
from sublevel.report.prepare import clean, over_seeds, with_density


def known(test_errors: dict[tuple[str, int], list[float]]) -> dict[str, pd.DataFrame]:
    rows = [
        {"branch": b, "level": v, "seed": s, "density": 0.8**v, "test_error": e}
        for (b, v), errors in test_errors.items()
        for s, e in enumerate(errors)
    ]
    return {"levels": pd.DataFrame(rows)}


def figure(drawn: Drawn, key: str) -> Figure:
    return next(f for f in drawn.all if f.key == key)


def panel(drawn: Drawn, key: str, title: str) -> Panel:
    return next(p for p in figure(drawn, key).views[0].panels if p.title.startswith(title))


def series(panel: Panel, label: str) -> Series:
    return next(s for s in panel.series if s.label == label)


def test_mean_and_t_interval_of_known_numbers():
    drawn = figures(known({("dense", 0): [0.10, 0.12, 0.14], ("imp", 1): [0.08, 0.10], ("imp", 2): [0.2, 0.2, 0.2]}))
    shown = panel(drawn, "accuracy", "Test error")
    imp, dense = series(shown, "imp"), series(shown, "dense")
    assert imp.x == pytest.approx([0.8, 0.64])
    assert imp.y == pytest.approx([9.0, 20.0])
    # n = 2: t_{0.95, 1} = 6.3, which says nothing and stretches the axis; the two seeds are drawn as points
    assert math.isnan(imp.high[0])
    assert math.isnan(imp.low[0])
    assert imp.samples.dots
    assert imp.samples.y[:2] == pytest.approx([8.0, 10.0])
    assert imp.high[1] == imp.low[1] == pytest.approx(20.0)
    # n = 3: t_{0.95, 2} = 2.91999, s = 2
    assert dense.y == pytest.approx([12.0, 12.0])
    assert dense.high[0] - 12 == pytest.approx(2.91999 * 2 / math.sqrt(3), abs=1e-4)
    assert dense.interval == "band"
    assert dense.x == pytest.approx([1.0, 0.64])


def test_an_interval_of_a_share_ends_at_the_whole():
    """Three errors near 0 and near 1, whose t intervals reach beyond both; a loss is no share."""
    tables = known({("dense", 0): [0.0, 0.0, 0.09], ("imp", 1): [1.0, 1.0, 0.91]})
    tables["levels"]["train_loss"] = tables["levels"]["test_error"]
    drawn = figures(tables)
    error, loss = (panel(drawn, "accuracy", title) for title in ("Test error", "Train loss"))
    assert series(error, "dense").low[0] == 0
    assert series(error, "dense").high[0] == pytest.approx(3 + 2.91999 * 3, abs=1e-3)
    assert series(error, "imp").high == [100.0]
    assert error.y.share
    assert not loss.y.share
    assert series(loss, "dense").low[0] == pytest.approx(0.03 - 2.91999 * 0.03, abs=1e-5)


def test_the_interval_agrees_with_scipy():
    from scipy import stats

    values = np.random.default_rng(1).normal(size=7)
    row = over_seeds(pd.DataFrame({"g": 0, "v": values}), "v", ["g"]).iloc[0]
    low, high = stats.t.interval(0.90, 6, loc=values.mean(), scale=stats.sem(values))
    assert (row["low"], row["high"]) == pytest.approx((low, high))


def test_one_seed_has_points_and_no_interval():
    drawn = figures(known({("dense", 0): [0.1], ("imp", 1): [0.1]}))
    shown = panel(drawn, "accuracy", "Test error")
    assert all(math.isnan(v) for s in shown.series for v in s.low)
    assert not any(s.samples for s in shown.series)
    assert figure(drawn, "accuracy").notes == ("One seed: points only, no intervals.",)


def test_dense_is_at_the_left_of_a_logarithmic_axis(drawn):
    axis = panel(drawn, "accuracy", "Test error").x
    assert axis.log
    assert axis.reverse
    assert [text for _, text in axis.ticks] == ["100%", "50%"]


def test_rows_without_a_value_do_not_count():
    drawn = figures(known({("imp", 1): [0.1, math.nan, 0.3]}))
    assert series(panel(drawn, "accuracy", "Test error"), "imp").y == pytest.approx([20.0])


def test_every_registered_figure_is_drawn_from_a_whole_study(drawn):
    assert drawn.missing == []
    assert len(drawn.all) >= sum(e.of != "checkpoints" for e in FIGURES)
    assert len({f.key for f in drawn.all}) == len(drawn.all)
    assert list(drawn.sections) == list(SECTIONS)
    assert all(not p.empty for f in drawn.all for v in f.views for p in v.panels)


def test_every_figure_says_in_few_short_sentences_how_to_read_it_and_what_its_trap_is(drawn, measured):
    for f in [*drawn.all, *measured.all]:
        for text in (f.how, f.trap):
            sentences = re.split(r"(?<=[.?!]) (?=[A-Z(])", text)
            assert 1 <= len(sentences) <= 3, (f.key, text)
            assert all(s[-1] in ".?" and len(s) <= 190 for s in sentences), (f.key, sentences)


def test_empty_and_missing_tables_give_no_figure_and_name_it():
    for nothing in (synthetic.empty(), {}):
        drawn = figures(nothing)
        assert drawn.all == []
        assert sorted(m.name for m in drawn.missing) == sorted(e.name for e in FIGURES if e.of != "checkpoints")
        assert {m.why for m in drawn.missing} == {UNMEASURED}


def test_a_figure_whose_function_fails_costs_no_other(monkeypatch, smallest):
    def broken(tables):
        raise KeyError("no such column")

    monkeypatch.setattr(
        "sublevel.report.figures.FIGURES", [replace(e, make=broken) if e.name == "volumes" else e for e in FIGURES]
    )
    drawn = figures({k: smallest[k] for k in ("levels", "volumes")})
    assert {"accuracy", "masks", "volume-methods"} <= {f.key for f in drawn.all}
    assert (
        next(m.why for m in drawn.missing if m.name == "volumes")
        == "its function failed on this table (KeyError: 'no such column')"
    )


def test_any_column_of_measurements_may_be_empty(tiny):
    tables = tiny
    levels = tables["levels"].assign(validation_error=None, train_loss=np.nan, overlap_imp="")
    titles = [p.title for p in figure(figures({"levels": levels}), "accuracy").views[0].panels]
    assert titles == ["Test error (%)", "Train error (%)"]


def test_a_branch_that_no_list_knows_has_a_look_of_its_own():
    looks = styles(["imp", "mine", "yours"])
    assert looks["imp"] == BRANCHES["imp"]
    assert len({(s.colour, s.marker) for s in looks.values()}) == 3


def test_no_two_branches_share_colour_or_shape():
    assert len({s.colour for s in BRANCHES.values()}) == len(BRANCHES)
    assert len({s.marker for b, s in BRANCHES.items() if b != "dense"}) == len(BRANCHES) - 1


def test_undefined_volumes_are_crosses_with_their_reason(tables):
    volumes = tables["volumes"].copy()
    volumes.loc[volumes["level"] == 5, ["log_volume", "effective_radius"]] = math.nan
    volumes.loc[volumes["level"] == 5, "reason"] = "lambda_10 <= 0"
    volumes.loc[volumes["level"] == 4, "stationary"] = False
    drawn = figures({"levels": tables["levels"], "volumes": volumes})
    shown = panel(drawn, "volumes", "Effective radius, own")
    crosses = series(shown, "undefined")
    assert len(crosses.x) == 9
    assert "lambda_10 <= 0" in crosses.hover[0]
    assert list(series(shown, "imp").hollow) == [False, False, False, True]
    assert any("undefined, mostly: lambda_10 <= 0" in n for n in figure(drawn, "volumes").notes)


def test_eigenvalues_of_zero_or_less_have_no_place_on_a_logarithm(tiny):
    tables = tiny
    spectra = tables["spectra"].copy()
    spectra.loc[(spectra["end"] == "largest") & (spectra["index"] > 8), "eigenvalue"] = -0.5
    shown = panel(figures({"spectra": spectra}), "spectra", "Largest, own")
    assert min(v for s in shown.series for v in s.y if math.isfinite(v)) > 0


def test_the_error_margin_of_the_claims_is_a_line(drawn):
    shown = panel(drawn, "barriers", "Error barrier")
    assert series(shown, "margin, 0.5 points").y == [0.5, 0.5]


def test_refined_alphas_of_single_seeds_do_not_bend_the_mean():
    rows = [
        {"path": "successive", "branch": "imp", "level_from": 0, "level_to": 1, "seed": s, "order": "shared",
         "split": "train", "buffers": "none", "alpha": a, "loss": 1.0 + s, "error": 0.1}
        for s in (0, 1) for a in (0.0, 0.5, 1.0, 0.5 + 0.01 * (s + 1))
    ]  # fmt: skip
    line = panel(figures({"profiles": pd.DataFrame(rows)}), "paths-successive", "Loss").series[0]
    assert line.x == [0.0, 0.5, 1.0]
    assert line.y == pytest.approx([1.5, 1.5, 1.5])


def test_densities_are_looked_up_and_fall_back_on_the_level():
    levels = pd.DataFrame({"branch": ["imp", "imp"], "level": [1.0, 1.0], "seed": [0.0, 1.0], "density": [0.8, 0.8]})
    asked = pd.DataFrame({"branch": ["imp", "imp", "other", "dense"], "level": [1.0, 1, 1, 0], "seed": [0.0, 9, 0, 0]})
    assert with_density(asked, levels)["density"].tolist() == pytest.approx([0.8, 0.8, 0.8, 1.0])


def test_tables_read_back_from_csv_give_the_same_figures(smallest, tmp_path):
    tables = {k: smallest[k] for k in ("levels", "curvature", "coordinates", "prunings", "volumes", "volume_pairs")}
    for name, frame in tables.items():
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    back = {name: pd.read_csv(tmp_path / f"{name}.csv") for name in tables}
    pd.testing.assert_frame_equal(clean(back)["volumes"], clean(tables)["volumes"])
    assert [f.key for f in figures(back).all] == [f.key for f in figures(tables).all]


def test_legends_name_each_label_once_in_the_order_of_the_branches(drawn):
    names = [s.label for s in legend(figure(drawn, "masks").views[0])]
    assert names == ["dense", "imp", "oneshot", "reinit", "chance"]


def test_a_landscape_is_said_in_words():
    land = Landscape(x=[0, 1], y=[0, 2], z=[[1.0, 2.0], [math.nan, 4.0]], texts=[["1", "2"], ["", "4"]], title="Loss",
                     low=1.0, high=4.0, ticks=((1.0, "1"),), solid=True)  # fmt: skip
    spoken = words(Panel(title="Loss", x=Axis(title="first"), landscape=land))
    assert spoken == "Loss. A surface in three dimensions, from 1 at (0, 0) up to 4."
