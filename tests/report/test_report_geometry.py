"""The figures of the geometry tables hold the numbers that were put into the tables."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest
import synthetic
import synthetic_geometry as geometry

import sublevel.study.tables  # noqa: F401 - declares the tables of all measurements
from sublevel.claims.basins import threshold
from sublevel.report.describe import Figure, Landscape, Panel, Series, View
from sublevel.report.figures import FIGURES, Drawn, figures, with_looks
from sublevel.report.figures.planes import SIDE, _box, grid, persistence, planes
from sublevel.report.figures.sublevel_sets import sublevel_set
from sublevel.report.palette import HEAT, OUTSIDE, styles
from sublevel.report.prepare import clean, where
from sublevel.report.render_mpl import draw
from sublevel.report.render_plotly import payload
from sublevel.tables import TABLES

GEOMETRY = (
    "densities", "estimates", "coordinates", "slices", "overlaps", "training", "membership", "planes", "landmarks",
    "persistence", "joins", "tree",
)  # fmt: skip
KEYS = {
    "instability", "membership", "membership-share", "disconnectivity", "landscape", "planes", "persistence",
    "layer-curvature", "densities", "estimates", "coordinates", "slices", "overlaps", "training", "volume-methods",
    "volume-eps",
}  # fmt: skip


def figure(drawn: Drawn, key: str) -> Figure:
    return next(f for f in drawn.all if f.key == key)


def chosen(drawn: Drawn, key: str, **choice: str) -> View:
    return next(v for v in figure(drawn, key).views if choice.items() <= v.choice.items())


def panel(view: View, title: str) -> Panel:
    return next(p for p in view.panels if p.title.startswith(title))


def line(panel: Panel, label: str) -> Series:
    return next(s for s in panel.series if s.label == label)


def test_every_kind_has_a_figure_and_both_back_ends_draw_it(drawn):
    assert {f.key for f in drawn.all} >= KEYS
    for f in drawn.all:
        if f.key in KEYS:
            view = f.views[-1]
            assert len(payload(f)["views"][-1]["panels"]) == len(view.panels)
            canvas = draw(view, f.title, f.columns)
            assert len([a for a in canvas.axes if a.get_label() != "<colorbar>"]) == len(view.panels)


@pytest.mark.parametrize("name", sorted({e.table for e in FIGURES}))
def test_a_table_of_nothing_but_holes_draws_nothing_and_breaks_nothing(tiny, name):
    kept = {"level", "seed", "part", "step"}
    holes = tiny[name].assign(**{c: np.nan for c in tiny[name].select_dtypes("number").columns if c not in kept})
    for frame in (holes, tiny[name].iloc[:1]):
        assert not [m for m in figures({name: frame}).missing if "failed" in m.why]


def test_operators_are_a_choice_and_layers_stand_apart(drawn):
    choices = [v.choice["operator"] for v in figure(drawn, "sharpness").views]
    assert choices == ["Hessian", "Gauss-Newton", "adaptive"]
    layers = panel(chosen(drawn, "layer-curvature", branch="imp", operator="Hessian"), "Largest eigenvalue")
    assert layers.x.ticks[:2] == ((1.0, "1"), (2.0, "2"))
    assert line(layers, "level 1").hover[0].startswith("conv1.weight: 8")
    assert any(
        n.startswith("Layers: 1 conv1.weight, 2 layer1.0.conv1.weight, ")
        for n in figure(drawn, "layer-curvature").notes
    )
    assert line(layers, "level 1").y == pytest.approx([10.0 * (i + 1) * 0.8 for i in range(6)])
    assert line(layers, "dense").y == pytest.approx([10.0 * (i + 1) for i in range(6)])


def test_other_parts_of_the_examples_do_not_enter_the_mean(tables, drawn):
    again = tables["curvature"].assign(part=1, largest=tables["curvature"]["largest"] * 1.5)
    both = figures({"levels": tables["levels"], "curvature": pd.concat([tables["curvature"], again])})
    top = line(panel(figure(both, "sharpness").views[0], "Largest, original"), "imp")
    assert top.y == line(panel(figure(drawn, "sharpness").views[0], "Largest, original"), "imp").y
    # (1.5 - 1) / 1.25 = 40%
    assert any("spreads by 40%" in n for n in figure(both, "sharpness").notes)


def test_tables_from_before_there_were_operators_are_of_the_hessian(tables, drawn):
    old = tables["curvature"]
    old = old[(old["operator"] == "hessian") & ~old["space"].str.startswith("layer")].drop(columns=["operator", "part"])
    view = figure(figures({"levels": tables["levels"], "curvature": old}), "sharpness").views[0]
    assert view.choice["operator"] == "Hessian"
    assert line(view.panels[0], "imp").y == line(figure(drawn, "sharpness").views[0].panels[0], "imp").y


def test_a_density_integrates_to_one_and_peaks_at_its_nodes(drawn):
    curve = line(chosen(drawn, "densities", branch="imp", space="own subspace").panels[0], "dense")
    x, y = np.asarray(curve.x), np.nan_to_num(np.asarray(curve.y))
    assert np.trapezoid(y, x) == pytest.approx(1.0, abs=0.01)
    places = [float(h.rsplit(" ", 1)[1].replace("\u2212", "-")) for h in curve.hover]
    assert places[int(y.argmax())] == pytest.approx(0.01, rel=0.6)
    outlier = y[np.abs(x - np.arcsinh(60 / 0.01)) < 0.5]
    assert np.trapezoid(outlier, dx=x[1] - x[0]) == pytest.approx(0.01, rel=0.1)


def test_estimates_have_one_panel_each_and_distrust_is_hollow(drawn):
    view = chosen(drawn, "estimates", space="original space", operator="Hessian")
    assert [p.title for p in view.panels] == [
        "Trace", "Share of negative eigenvalues", "Log-determinant (nats), delta = 0.001",
        "Log-determinant (nats), delta = 0.1", "Local learning coefficient",
    ]  # fmt: skip
    assert line(view.panels[0], "imp").y == pytest.approx([100 * 0.8**v for v in range(1, 6)])
    assert all(line(view.panels[2], "imp").hollow)
    chains = line(view.panels[4], "imp")
    assert list(chains.hollow) == [False, True, False, False, False]
    assert "R-hat 1.31" in chains.hover[1]
    assert any("mostly: quadrature not converged" in n for n in figure(drawn, "estimates").notes)


def test_one_seed_has_its_standard_error_unless_it_is_not_to_be_trusted(tables):
    one = figures({k: tables[k][tables[k]["seed"] == 0] for k in ("levels", "estimates")})
    view = chosen(one, "estimates", space="original space")
    trace, determinant = line(view.panels[0], "imp"), line(view.panels[2], "imp")
    assert trace.high[0] - trace.y[0] == pytest.approx(2 * 5.0)
    assert all(math.isnan(v) for v in determinant.low)
    assert "standard error 5, draws 8" in trace.hover[0]


def test_volumes_over_eps_rise_with_slope_one_half_and_methods_stand_side_by_side(drawn):
    radius, volume = chosen(drawn, "volume-methods", network="imp, level 1", space="original space").panels
    exact = line(radius, "logdet")
    assert exact.y == pytest.approx([math.sqrt(2 * e) for e in geometry.EPS])
    assert all(line(radius, "radial").hollow)
    assert line(volume, "thermodynamic").y[1] - line(volume, "logdet").y[1] == pytest.approx(1.0)
    branches = chosen(drawn, "volume-eps", method="importance", level="3", space="own subspace").panels[0]
    assert {s.label for s in branches.series} == {"dense", "imp", "oneshot", "reinit"}


def test_pruned_kept_and_random_coordinates_have_their_curvature_and_width(drawn):
    curvature, steepest, width = chosen(drawn, "coordinates", branch="imp").panels
    for name, value in list(geometry.SETS.items())[:3]:
        assert line(curvature, name).y == pytest.approx([value] * 6)
        assert line(width, name).y == pytest.approx([math.sqrt(0.2 / value)] * 6)
    assert line(steepest, "steepest").y == pytest.approx([60.0] * 6)
    kept = line(width, "kept")
    assert kept.low == pytest.approx([0.8 * v for v in kept.y])
    assert list(kept.hollow) == [False, False, True, False, False, False]


def test_slices_of_seeds_with_other_ranges_are_averaged_where_all_have_them():
    rows = [
        {"branch": "imp", "level": 1, "seed": s, "part": 0, "set": "kept", "radius": r, "loss": r**2 + s, "error": 0.1}
        for s, reach in ((0, 1.0), (1, 2.0)) for r in np.linspace(-reach, reach, 41)
    ]  # fmt: skip
    curve = line(chosen(figures({"slices": pd.DataFrame(rows)}), "slices").panels[0], "kept")
    assert (curve.x[0], curve.x[-1]) == (-1.0, 1.0)
    assert curve.y[16] == pytest.approx(0.5)


def test_overlaps_stand_beside_chance(drawn):
    overlap = panel(chosen(drawn, "overlaps", k="10"), "Overlap")
    assert line(overlap, "imp").y == pytest.approx([0.9**v for v in range(1, 6)])
    assert line(overlap, "chance").y == pytest.approx([0.01] * 5)
    assert line(panel(chosen(drawn, "overlaps"), "Largest angle"), "imp").y == pytest.approx([90.0] * 5)


def test_curvature_along_training_is_against_the_step(drawn):
    view = chosen(drawn, "training", network="dense")
    first = line(view.panels[0], "eigenvalue 1")
    assert first.x == [0.0, 100.0, 1000.0]
    assert first.y == pytest.approx([10.0, 11.0, 20.0])
    assert list(first.hollow) == [False, True, False]
    assert line(panel(view, "Train loss"), "train loss").y == pytest.approx([2.0, 1.0, 2 / 11])


def test_membership_asks_the_two_questions_of_its_claim(drawn):
    rise, loss = figure(drawn, "membership").views[0].panels
    # from level 4 on the path rises by 0.05 of a level over a loss of 0.1 a level
    assert line(rise, "reinit").y == pytest.approx([0, 0, 0, 50, 50])
    assert list(line(rise, "reinit").hollow) == [False, False, False, True, True]
    assert line(rise, "margin, 10%").y == [10.0, 10.0]
    assert line(loss, "imp").y == pytest.approx([0.1 * v for v in range(1, 6)])
    assert line(loss, "dense threshold").y == pytest.approx([0.012, 0.012])
    assert figure(drawn, "membership").notes[0].startswith("33 of 45 solutions joined (15 by a segment, 18 by a curve)")


def test_the_share_below_a_height_is_read_at_every_height(drawn):
    share = chosen(drawn, "membership-share", level="all").panels[0]
    reinit = line(share, "reinit")  # lowest maxima 0.1, 0.2, 0.3, 0.6, 0.75, three seeds each
    below = [y for x, y in zip(reinit.x, reinit.y, strict=True) if x <= 0.45]
    assert below[-1] == pytest.approx(60.0)
    assert reinit.y[0] == 0.0
    assert reinit.y[-1] == 100.0
    marked = line(share, "dense threshold")
    assert marked.x[0] == marked.x[1] == pytest.approx(0.012)


def test_the_dense_threshold_is_the_prediction_bound(drawn):
    # t(0.95, 2) = 2.919986, s = 0.01: 0.11 + 2.919986 * 0.01 * sqrt(4 / 3)
    expected = 0.11 + 2.919986 * 0.01 * math.sqrt(4 / 3)
    tree = chosen(drawn, "disconnectivity", quantity="loss").panels[0]
    assert line(tree, "dense threshold").y == pytest.approx([expected, expected])
    assert threshold([0.3, 0.4]) == pytest.approx(0.385)
    assert math.isnan(threshold([]))


def test_leaves_are_marked_by_branch_and_the_joined_ones_are_counted(drawn):
    tree = chosen(drawn, "disconnectivity", quantity="loss").panels[0]
    imp = line(tree, "imp")
    assert imp.y == pytest.approx([geometry.height("imp", 5, s) for s in range(3)])
    assert imp.hover[1] == "level 5, seed 1"
    assert "imp 3 of 3, oneshot 0 of 3, reinit 0 of 3" in figure(drawn, "disconnectivity").notes[0]
    stems = line(tree, "merges")
    assert sum(map(math.isnan, stems.y)) == len(stems.y) / 3  # each line is broken from the next


def test_a_plane_is_interpolated_between_its_points_and_cut_at_the_top(drawn):
    view = chosen(drawn, "planes", plane="random: dense", view="contour")
    land = view.panels[0].landscape
    assert land is not None
    z = 10 ** np.asarray(land.z)
    assert z.shape == (SIDE, SIDE)
    middle = SIDE // 2
    assert z[middle, middle] == pytest.approx(0.01)
    assert z[middle, middle + 10] == pytest.approx(geometry.bowl(0.5, 0.0))
    assert z.max() < geometry.bowl(1.0, 1.0)
    assert land.texts[0][0] == "3.01"  # under the pointer, what was cut
    assert view.panels[1].landscape.z[middle][middle] == pytest.approx(100 * 0.01 / 4)


def test_contour_and_surface_show_the_same_heights_and_print_both(drawn):
    contour, solid = figure(drawn, "planes").views[:2]
    assert (contour.choice["view"], solid.choice["view"]) == ("contour", "surface")
    assert contour.panels[0].landscape.z == solid.panels[0].landscape.z
    assert figure(drawn, "planes").printed == 2
    shown = payload(figure(drawn, "planes"))["views"]
    assert [t["type"] for t in shown[0]["panels"][0]["data"]] == ["contour", *["scatter"] * 6]
    assert [t["type"] for t in shown[1]["panels"][0]["data"]] == ["surface", *["scatter3d"] * 6]
    assert shown[0]["panels"][0]["data"][0]["z"] == shown[1]["panels"][0]["data"][0]["z"]
    assert [s["title"] for s in shown[0]["scales"]] == ["Train loss", "Train error (%)"]


def test_landmarks_lie_on_the_plane_and_the_run_ends_at_the_dense_network(drawn):
    marks = chosen(drawn, "planes", plane="random: dense", view="surface").panels[0].series
    line, run = (s for s in marks if s.label == "the dense network's run")
    assert (line.mode, len(line.x), line.legend, run.legend) == ("line", 25, True, False)
    assert (run.x, run.y) == ([-0.9, -0.4, 0.0], [-0.9, -0.3, 0.0])
    assert "0.5 from the plane" in run.hover[0]
    dense = next(s for s in marks if s.label == "dense")
    assert len({s.style.marker for s in marks if s.label.startswith("imp")}) == 2
    assert 10 ** dense.z[0] == pytest.approx(0.01)


def test_a_point_without_a_finite_loss_leaves_a_hole():
    axis = np.linspace(-1, 1, 9)
    rows = [{"x": x, "y": y, "loss": math.inf if (x, y) == (0.5, 0.5) else 1.0} for y in axis for x in axis]
    _, _, z = grid(pd.DataFrame(rows), "loss")
    assert np.isnan(z[30, 30])
    assert np.isfinite(z[10, 10])
    straight = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [0.0, 1.0, 2.0, 3.0], "loss": 1.0})
    assert grid(straight, "loss") is None


def test_features_that_never_die_stand_hollow_at_the_top(drawn):
    diagram = chosen(drawn, "persistence", plane="random: dense").panels[0]
    basins = line(diagram, "basins (dimension 0)")
    assert list(basins.hollow) == [True, False]
    assert basins.y[0] > 0.9
    assert (basins.x[1], basins.y[1]) == (0.3, 0.5)
    assert line(diagram, "rings around peaks (dimension 1)").y == [0.9]


def test_a_seam_of_the_statistics_is_drawn_and_said_and_what_it_makes_is_grey():
    axis, about = np.linspace(-1, 1, 9), {"plane": "through: a, b, c", "seed": 0}
    doubt = "BatchNorm's statistics are those of the nearest solution and change at a line"
    rows = {
        "planes": [
            {
                **about,
                "buffers": "nearest",
                "reason": doubt,
                "x": x,
                "y": y,
                "loss": 1 + x * x,
                "error": 0.1,
                "level": 0,
            }
            for y in axis
            for x in axis
        ],
        "landmarks": [
            {**about, "name": "dense", "branch": "dense", "level": 0, "step": None, "x": 0.0, "y": 0.0, "residual": 0.0}
        ],
        "persistence": [
            {**about, "dimension": 0, "birth": 1.0, "death": math.nan, "x": 0.0, "y": 0.0, "reason": ""},
            {
                **about,
                "dimension": 0,
                "birth": 1.2,
                "death": 1.3,
                "x": 0.5,
                "y": 0.0,
                "reason": "may be made by the seam",
            },
        ],
        "seams": [{**about, "x0": -0.5, "y0": -1.0, "x1": -0.5, "y1": 1.0, "jump": 0.1}],
    }
    with_seam = clean({name: pd.DataFrame(each) for name, each in rows.items()})
    drawn, diagram = with_looks(planes(with_seam), styles(["dense"])), persistence(with_seam)
    for shown in drawn.views:
        seam = line(shown.panels[0], "the statistics change: a seam, no wall")
        assert (seam.style.dash, seam.mode, set(seam.x), min(seam.y), max(seam.y)) == (
            "dash",
            "line",
            {-0.5},
            -1.0,
            1.0,
        )
        draw(shown, drawn.title, drawn.columns)
    assert any(doubt in note for note in drawn.notes)
    grey = line(diagram.views[0].panels[0], "basins (dimension 0), may be the seam's")
    assert (grey.x, grey.y, grey.style.colour) == ([1.2], [1.3], "#767676")
    assert line(diagram.views[0].panels[0], "basins (dimension 0)").x == [1.0]
    assert any("made by the seam" in note for note in diagram.notes)
    without = clean(
        {n: pd.DataFrame(each).drop(columns="reason", errors="ignore") for n, each in rows.items() if n != "seams"}
    )
    assert not any(s.label.startswith("the statistics") for v in planes(without).views for s in v.panels[0].series)
    assert not any(persistence(without).notes)


def test_instability_falls_with_the_step_and_stays_out_of_the_other_barriers(drawn):
    error = panel(chosen(drawn, "instability"), "Error barrier")
    assert line(error, "test").x == [0.0, 500.0, 2000.0]
    assert line(error, "test").y == pytest.approx([10.0, 5.0, 1.0])
    assert line(error, "train").y == pytest.approx([5.0, 2.5, 0.5])
    assert line(error, "margin, 0.5 points").y == [0.5, 0.5]
    assert "instability" not in {v.choice["path"] for v in figure(drawn, "barriers").views}


def test_columns_of_names_stay_names(tables):
    ready = clean({"tree": tables["tree"], "estimates": tables["estimates"]})
    assert set(ready["tree"]["part"]) == {"leaf", "line"}
    assert set(ready["estimates"]["operator"]) == {"hessian", ""}
    assert ready["estimates"]["part"].dtype == float
    assert set(ready) == set(TABLES)


def test_synthetic_tables_have_only_columns_of_the_schema():
    made = synthetic.make(1, 2, ("imp",), curves=2)
    assert all(list(f.columns) == list(TABLES[name].columns) for name, f in made.items())
    assert all(len(made[name]) for name in GEOMETRY)


def test_the_sublevel_set_of_the_dense_network_is_drawn_at_the_bound_of_the_claims(tables, drawn):
    # the dense losses of levels.csv; t(0.95, 2) = 2.919986
    losses = where(clean(tables)["levels"], branch="dense")["train_loss"]
    expected = losses.mean() + 2.919986 * losses.std(ddof=1) * math.sqrt(4 / 3)
    found = sublevel_set(where(clean(tables)["landmarks"], plane="random: dense"), clean(tables)["levels"])
    assert found is not None
    assert found.height == pytest.approx(expected)
    shown = chosen(drawn, "landscape", view="contour").panels[0]
    edge = line(shown, found.label)
    inside = [v for v in edge.z if math.isfinite(v)]
    assert inside == pytest.approx([math.log10(expected)] * len(inside))
    near = [geometry.bowl(x, y) for x, y in zip(edge.x, edge.y, strict=True) if math.isfinite(x)]
    assert near == pytest.approx([expected] * len(near), rel=0.9)  # the grid is coarse there
    notes = {s.label: s.note for s in shown.series if s.note}
    assert notes["dense"].startswith("dense\ninside the dense set\nloss ")
    assert notes["imp L5"].splitlines()[1:] == ["inside the dense set", "loss 0.012"]
    heights = np.asarray(shown.landscape.x), np.asarray(shown.landscape.y)
    assert (shown.x.limits, shown.y.limits) == tuple((v[0], v[-1]) for v in heights)  # no blank band at the edges
    for s in (s for s in shown.series if s.note):
        at = tuple((p - v[0]) / np.ptp(v) for p, v in zip((s.x[0], s.y[0]), heights, strict=True))
        assert min(box := _box(s.note, at, s.below, s.align)) >= -0.02  # sizes are rounded up
        assert max(box) <= 1.02


def test_colours_leap_to_grey_at_the_level_and_contours_meet_it():
    land = Landscape(x=[0, 1], y=[0, 1], z=[[0, 1], [2, 10]], texts=[[""] * 2] * 2, title="", low=0.0, high=10.0,
                     ticks=(), level=2.0)  # fmt: skip
    stops = land.stops(0.0, 10.0)
    leap = [c for share, c in stops if share == pytest.approx(0.2)]
    assert leap == [HEAT[-1], OUTSIDE[0]]
    assert any(v == pytest.approx(2.0) for v in land.contours)
    assert sum(v < 2.0 for v in land.contours) >= 3
    bands = land.bands
    assert [b[0] for b in bands] == [0.0, *land.contours]
    assert [b[1] for b in bands] == [*land.contours, 10.0]
    assert HEAT[-1] not in [c for *_, c in bands]  # no band has its middle at the level, so none is so bright
    grey = [max(p) - min(p) < 20 for *_, c in bands if (p := [int(c[i : i + 2], 16) for i in (1, 3, 5)])]
    assert grey == [start > 1.99 for start, *_ in bands]
    plain = dataclasses.replace(land, level=None)
    assert [c for _, c in plain.stops(0.0, 10.0)] == list(HEAT)
    assert len(plain.contours) == 15


def test_with_few_dense_networks_the_set_ends_a_tenth_above_their_loss(tables):
    ready = clean(tables)
    levels = ready["levels"]
    one = levels[levels["seed"] == 0]
    loss = float(where(one, branch="dense")["train_loss"].iloc[0])
    assert sublevel_set(ready["landmarks"], one).height == pytest.approx(1.1 * loss)
    marks = where(ready["landmarks"], name="imp L5")
    foreign = one[one["branch"] != "dense"]
    own = float(where(foreign, branch="imp", level=5)["train_loss"].iloc[0])
    found = sublevel_set(marks, foreign)
    assert found.height == pytest.approx(1.1 * own)
    assert found.label.startswith("sublevel set of imp L5")
    assert sublevel_set(marks, foreign.iloc[:0]) is None
