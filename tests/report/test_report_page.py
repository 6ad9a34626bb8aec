"""The page: what it says, that nothing in it can be markup by accident, that it is always the same."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pandas as pd
import pytest
import synthetic
from hostile import evil

from sublevel.report import write
from sublevel.report.describe import Series
from sublevel.report.page import render
from sublevel.report.palette import PLAIN
from sublevel.report.render_mpl import draw
from sublevel.report.render_plotly import payload
from sublevel.report.writer import names


def visible(html: str) -> str:
    """The page without its scripts."""
    return re.sub(r"<script.*?</script>", "", html, flags=re.S)


def test_the_first_screen_is_computed_from_the_tables():
    rows = [("dense", 0, s, 1.0, e) for s, e in enumerate((0.08, 0.09, 0.10))]
    rows += [("imp", 3, s, 0.512, e) for s, e in enumerate((0.10, 0.12, 0.14))]
    levels = pd.DataFrame(rows, columns=["branch", "level", "seed", "density", "test_error"])
    text = visible(render({"levels": levels}, {"model": {"name": "lenet"}}))
    assert "IMP pruned lenet down to 51.2% of its weights: 6 networks measured, 3 seeds." in text
    # differences 2, 3 and 4 points: half-width 2.920 * 1 / sqrt(3) = 1.69
    said = "IMP is worse than the dense network (9.0% test error) already at 51.2% of the weights: +3.0 points "
    assert f"{said}(90% CI 1.3 to 4.7; margin 0.5)." in text


def test_two_seeds_decide_nothing_on_the_first_screen():
    rows = [("dense", 0, s, 1.0, e) for s, e in enumerate((0.08, 0.09))]
    rows += [("imp", 3, s, 0.512, e) for s, e in enumerate((0.10, 0.12))]
    levels = pd.DataFrame(rows, columns=["branch", "level", "seed", "density", "test_error"])
    text = visible(render({"levels": levels}, {"model": {"name": "lenet"}}))
    said = "IMP differs from the dense network (8.5% test error) by +2.5 points."
    assert f"{said} Nothing is decided: fewer than 3 seeds, 2." in text
    assert '<p class="answer">not decided</p>' in text


def test_failures_and_notes_are_visible(html):
    text = visible(html)
    assert "1 cell did not finish" in text
    assert "the train loss was nan at step 1204" in text
    assert "the same at every level" in text


def test_nothing_failed_nothing_said(tiny):
    text = visible(render({"levels": tiny["levels"]}, {}))
    assert "did not finish" not in text


def test_an_empty_study_is_a_page_without_axes(tmp_path):
    text = write(synthetic.empty(), {}, tmp_path).read_text()
    assert "No network has been evaluated" in visible(text)
    assert visible(text).count("<figure") == 0
    assert "Figures without data: accuracy against sparsity, " in visible(text)
    assert list((tmp_path / "figures").iterdir()) == []


def test_text_from_data_is_never_markup(hostile):
    drawn, html = hostile
    assert "<img" not in html.replace(html[html.index('id="plotly"') :], "")
    data = re.findall(r'class="data">(.*?)</script>', html, flags=re.S)
    assert len(data) == visible(html).count("<figure") == len(drawn.all) + 2 > 27
    for block in data:
        assert "<" not in block
        parsed = json.loads(block)
        texts = [t["name"] for v in parsed["views"] for p in v["panels"] for t in p["data"] if "name" in t]
        assert not any("<" in t for t in texts)


def test_the_page_asks_for_nothing_and_says_so(html):
    assert "default-src 'none'" in html
    assert not re.search(r'(?:src|href)="(?!#|data:)', visible(html))


def test_the_same_tables_give_the_same_bytes(tables, tmp_path):
    layers = tables["layers"]
    small = {"layers": layers[layers["branch"] == "imp"], "claims": tables["claims"], "verdicts": tables["verdicts"]}
    written = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        write(small, synthetic.summary(), folder)
        written.append({p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()})
    assert written[0] == written[1]
    assert sorted(p.suffix for p in written[0]) == [".html", ".pdf", ".svg"]


def test_without_figures_only_the_page_is_written(tiny, tmp_path):
    path = write({"levels": tiny["levels"]}, {}, tmp_path, figures=False)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    assert path == tmp_path / "report.html"


def test_both_back_ends_draw_the_same_numbers(drawn):
    view = drawn.all[0].views[0]
    canvas = draw(view, "t")
    for axes, panel in zip(canvas.axes, view.panels, strict=True):
        mean = next(s for s in panel.series if s.label == "imp")
        printed = [line for line in axes.lines if len(line.get_xdata()) == len(mean.x)]
        assert any(list(line.get_ydata()) == list(mean.y) for line in printed)
    shown = payload(drawn.all[0])["views"][0]["panels"][0]["data"]
    mean = next(s for s in view.panels[0].series if s.label == "imp")
    assert any(t["y"] == pytest.approx(list(mean.y), rel=1e-5) for t in shown if t["name"] == "imp" and "low" in t)


def test_names_of_files_are_safe_and_distinct(hostile):
    for figure in hostile[0].all:
        stems = names(figure)
        assert len(set(stems)) == len(figure.views)
        assert all(re.fullmatch(r"[a-z0-9.-]+", s) for s in stems)


def test_every_view_prints_even_with_hostile_names(tables, tmp_path):
    changed, summary = evil({k: tables[k] for k in ("layers", "failures", "claims")}, "oneshot")
    write(changed, summary, tmp_path, views="all")
    assert len(list((tmp_path / "figures").glob("*.svg"))) == 3


def test_numbers_that_are_not_finite_are_null():
    from sublevel.report.describe import Axis, Figure, Panel, View

    line = Series(label="a", x=[1.0, 2.0], y=[float("inf"), 1.0], style=PLAIN)
    shown = payload(
        Figure(
            key="k",
            title="t",
            how="",
            trap="",
            views=[View(panels=[Panel(title="p", x=Axis(), series=[line])])],
        )
    )
    assert shown["views"][0]["panels"][0]["data"][0]["y"] == [None, 1]


def test_the_report_needs_no_torch():
    code = "import sys, sublevel.report.writer, sublevel.report.render_mpl; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
