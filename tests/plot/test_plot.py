"""`sl.plot` draws what the report describes: one figure for a result's table and for the object that filled it."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib.figure
import numpy as np
import plotly.graph_objects as go
import pytest
import torch

import sublevel as sl
from sublevel.errors import ConfigError
from sublevel.plot.choose import chosen, described
from sublevel.plot.objects import PLOTS
from sublevel.report.figures import figures

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

ORIGIN = torch.zeros(12, dtype=torch.float64)
BOWL = sl.Quadratic(torch.linspace(1, 6, 12, dtype=torch.float64))
SADDLE = sl.Quadratic(torch.linspace(-1, 5, 12, dtype=torch.float64))
SIDES = np.linspace(-1.5, 1.5, 7)


def objects() -> dict[str, object]:
    a = ORIGIN.clone()
    a[0], b = 1.0, ORIGIN.clone()
    b[1] = 1.0
    frame = sl.planes.plane_through(ORIGIN, a, b)
    points = {"dense": ORIGIN, "ticket": a}
    plane = sl.planes.scan(BOWL, frame, SIDES, SIDES, points=points)
    space = sl.Space.of(torch.nn.Linear(3, 4))
    return {
        "Plane": plane,
        "Mesh": sl.planes.adaptive_scan(BOWL, frame, SIDES, SIDES, points=points, tolerance=0.5, levels=1),
        "SpectralDensity": sl.curvature.spectral_density(SADDLE, ORIGIN, probes=2, steps=6),
        "Smoothed": sl.curvature.spectral_density(SADDLE, ORIGIN, probes=2, steps=6).density(
            np.linspace(-2, 6, 9), 0.5
        ),
        "Spectrum": sl.curvature.top_eigenvalues(SADDLE, ORIGIN, k=3),
        "Profile": sl.paths.segment(BOWL, -a, a, points=5, refine=0),
        "Connection": sl.paths.connected(BOWL, a, b, 9.0),
        "MergeTree": sl.topology.disconnectivity({"dense": 0.1, "imp L3 s0": 0.2}, {("dense", "imp L3 s0"): 0.5}),
        "Persistence": sl.topology.persistence(plane.loss),
        "Line": sl.planes.profile(BOWL, ORIGIN, a, SIDES),
        "Volume": sl.volume.log_volume(BOWL, ORIGIN, method="top-k", k=4),
        "Ticket": sl.Ticket(space.full_mask(), {"start": sl.Point(torch.zeros(space.dim))}, space),
    }


@pytest.fixture(scope="module")
def made() -> dict[str, object]:
    return objects()


@pytest.fixture(scope="module")
def result():
    import synthetic

    tables = synthetic.make(3, 4, ("imp", "reinit"), curves=2)
    return SimpleNamespace(tables=tables, described={f.key: f for f in figures(tables).all})


def test_every_object_that_can_be_drawn_is_tested(made):
    assert {kind.__name__ for kind in PLOTS} == set(made)


@pytest.mark.parametrize("name", sorted(kind.__name__ for kind in PLOTS))
def test_an_object_is_drawn_by_both_back_ends_and_says_what_it_is_in_one_line(made, name):
    of = made[name]
    assert isinstance(of.plot(), go.Figure)
    assert isinstance(of.plot(backend="matplotlib"), matplotlib.figure.Figure)
    assert repr(of).startswith(f"<{name}: ")
    assert "\n" not in repr(of)
    assert f"<caption>{name}</caption>" in of._repr_html_()


@pytest.mark.parametrize("name", [
    "plane", "surface", "spectrum", "eigenvalues", "path", "tree", "persistence", "profile", "volumes", "accuracy",
    "masks",
])  # fmt: skip
def test_a_result_is_drawn_with_the_numbers_of_its_report(result, name):
    assert isinstance(getattr(sl.plot, name)(result, backend="matplotlib"), matplotlib.figure.Figure)
    drawn = getattr(sl.plot, name)(result)
    titles = {f.title for f in result.described.values()}
    assert any(title in drawn.layout.title.text for title in titles)


def test_series_of_plotly_hold_the_values_of_the_description(result):
    one = result.described["accuracy"]
    imp = next(s for s in one.views[0].panels[0].series if s.label == "imp")
    drawn = sl.plot.accuracy(result, panel="Test error")
    line = next(t for t in drawn.data if t.name == "imp" and t.mode == "lines+markers")
    assert line.y == pytest.approx(list(imp.y))
    assert line.error_y.array == pytest.approx([h - y for h, y in zip(imp.high, imp.y, strict=True)], rel=1e-4)
    assert drawn.layout.xaxis.title.text == "weights remaining"


def test_objects_give_the_lines_that_their_numbers_say(made):
    profile = made["Profile"]
    line = described(profile, "profiles").views[0].panels[0].series[0]
    assert line.y == pytest.approx(profile.loss.tolist())
    values = described(made["Spectrum"], "spectra").views[0].panels[0].series[0]
    assert values.y == pytest.approx(made["Spectrum"].values.tolist())
    ritz = described(made["SpectralDensity"], "densities").views[0].panels[0].series[1]
    assert len(ritz.x) == sum(map(len, made["SpectralDensity"].nodes))
    map_ = described(made["Ticket"], "layers").views[0].panels[0].heat
    assert np.asarray(map_.z).tolist() == [[0.0]]
    assert map_.low < map_.high  # also where every weight is left


def test_several_objects_lie_in_one_figure_by_name(made):
    names = {t.name for t in sl.plot.spectrum({"dense": made["SpectralDensity"], "mine": made["SpectralDensity"]}).data}
    assert names == {"dense", "mine"}
    assert {t.name for t in sl.plot.path(made["Profile"]).data} == {"path"}
    paths = {t.name for t in sl.plot.path({"to a": made["Profile"], "to b": made["Profile"]}).data}
    assert paths == {"to a", "to b"}
    sweep = sl.volume.sweep(BOWL, ORIGIN, method="top-k", k=4, eps=[0.1, 0.2, 0.4])
    line = described({"top-k": sweep}, "volume-methods").views[0].panels[1].series[0]
    assert line.y == pytest.approx([v.log_volume for v in sweep])


def test_a_caption_of_matplotlib_is_inside_its_figure_and_below_the_axes(made):
    canvas = made["Plane"].plot(backend="matplotlib", caption=True)
    text = next(t for t in canvas.texts if t.get_text().startswith("Train loss and error"))
    box, whole = text.get_window_extent(), canvas.bbox
    assert whole.x0 < box.x0 < box.x1 < whole.x1
    assert 0 < box.y0 < box.y1 < min(axes.get_tightbbox().y0 for axes in canvas.axes)
    assert box.y1 < canvas.legends[0].get_window_extent().y0


def test_a_level_draws_the_border_of_its_sublevel_set(made):
    panel = described(made["Mesh"], "planes", level=1.0).views[0].panels[0]
    edge = next(s for s in panel.series if s.label == "sublevel set: loss ≤ 1")
    inside = [(x, y) for x, y in zip(edge.x, edge.y, strict=True) if math.isfinite(x)]
    losses = [float(BOWL.loss(made["Mesh"].frame.point(x, y))) for x, y in inside]
    assert losses == pytest.approx([1.0] * len(losses), rel=0.2)


def test_a_branch_and_a_view_are_chosen_by_name(result):
    labels = {s.label for s in chosen(result.described["accuracy"], {"branch": "imp"})[0].panels[0].series}
    assert labels == {"dense", "imp"}
    view, title = chosen(result.described["layers"], {"branch": "reinit"})
    assert view.choice["branch"] == "reinit"
    assert "branch reinit" in title


@pytest.mark.parametrize(("how", "says"), [
    ({"branch": "imo"}, "did you mean 'imp'"),
    ({"scal": "everything"}, "unknown choice 'scal'"),
    ({"panel": "Test loss"}, "unknown panel"),
    ({"backend": "bokeh"}, "unknown backend"),
    ({"backend": "plotly", "ax": object()}, "ax is an axes of matplotlib"),
])  # fmt: skip
def test_a_wrong_choice_names_the_right_ones(result, how, says):
    with pytest.raises(ConfigError, match=says):
        sl.plot.accuracy(result, **how)


def test_what_cannot_be_drawn_is_refused(made, result):
    with pytest.raises(ConfigError, match="no figure of a str"):
        sl.plot.draw("a text")
    with pytest.raises(ConfigError, match="cannot be drawn from MergeTree"):
        sl.plot.plane(made["MergeTree"])
    with pytest.raises(ConfigError, match="unknown figure 'acuracy'"):
        sl.plot.figure(result, "acuracy")


def test_what_a_run_did_not_measure_is_named_with_the_block_that_measures_it(result):
    bare = SimpleNamespace(tables=result.tables, described={"accuracy": result.described["accuracy"]})
    for plot, block in (
        (sl.plot.plane, "planes"), (sl.plot.path, "paths"), (sl.plot.tree, "topology"), (sl.plot.spectrum, "density"),
        (sl.plot.eigenvalues, "spectra"), (sl.plot.persistence, "planes"), (sl.plot.volumes, "volumes"),
        (sl.plot.profile, "coordinates"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=f"measured nothing .* add geometry = {{'{block}'"):
            plot(bare)


def test_axes_that_are_given_are_drawn_on(result):
    canvas = matplotlib.figure.Figure()
    one, two = canvas.subplots(1, 2)
    assert sl.plot.accuracy(result, ax=[one, two]) is canvas
    assert (one.get_title("left"), two.get_title("left")) == ("Test error (%)", "Validation error (%)")
    with pytest.raises(ConfigError, match="three dimensions"):
        sl.plot.surface(result, ax=one)
