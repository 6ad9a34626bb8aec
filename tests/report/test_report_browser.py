"""The page in a real browser with the network off: everything drawn, nothing overlapping, no request."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import synthetic
from browser import AXE, OVERLAPS, axe, draw_all, opened

from sublevel.report import write
from sublevel.report.page import asset

pytestmark = pytest.mark.browser
# ruff: noqa: E501
SOFTWARE_GL = ("GL Driver Message", "willReadFrequently")
"""What a browser without a graphics card says of its own reading back of pixels: no fault of the page."""


@pytest.fixture(scope="module")
def wide(context, page_file):
    """The page at 1280 pixels; tests leave it as they found it."""
    page, watch = opened(context, page_file, 1280)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    yield page, watch
    page.close()


def drawing(page: Any, key: str, panel: int = 0) -> list[dict[str, Any]]:
    """What plotly has drawn in one panel, once a reader has come to it."""
    page.locator(f"#{key}").scroll_into_view_if_needed()
    page.wait_for_function("(key) => document.querySelector(`#${key} .plot`).data", arg=key)
    script = """([key, panel]) => JSON.stringify(document.querySelectorAll(`#${key} .plot`)[panel].data.map(
      (t) => ({name: t.name, mode: t.mode, x: t.x, y: t.y, up: t.error_y && t.error_y.array, text: t.text, opacity: t.opacity, hover: t.hovertemplate})))"""
    return json.loads(page.evaluate(script, [key, panel]))


def line(page: Any, key: str, name: str, panel: int = 0) -> dict[str, Any]:
    return next(
        t for t in drawing(page, key, panel) if t["name"] == name and "lines" in t["mode"] and not t.get("opacity")
    )


def press(page: Any, selector: str) -> None:
    """By the keyboard alone."""
    page.locator(selector).focus()
    page.keyboard.press("Space")


@pytest.fixture(scope="module")
def printed(context, short, tmp_path_factory):
    """A page of a few figures that was sent to paper before anyone scrolled, and what it said on the way."""
    path = tmp_path_factory.mktemp("short") / "report.html"
    path.write_text(short, encoding="utf-8")
    page, watch = opened(context, path, 1280)
    page.wait_for_function("() => window.Plotly !== undefined")
    state = """[document.querySelectorAll('figure script.data').length,
      window.__sublevel.drawn === window.__sublevel.expected, document.documentElement.dataset.theme || ""]"""
    said = {"before": page.evaluate(state)}
    for event, name in (("beforeprint", "on paper"), ("afterprint", "after")):
        page.evaluate("(name) => dispatchEvent(new Event(name))", event)
        said[name] = page.evaluate(state)
    yield page, watch, said
    page.close()


def test_figures_are_parsed_when_they_come_near_and_all_are_drawn_on_white_paper(printed):
    page, watch, said = printed
    (waiting, whole, _) = said["before"]
    assert waiting >= 4
    assert not whole
    assert said["on paper"] == [0, True, "light"]
    assert said["after"] == [0, True, ""]
    page.emulate_media(media="print", color_scheme="dark")
    unbroken = "(s) => [...document.querySelectorAll(s)].every((n) => getComputedStyle(n).breakInside === 'avoid')"
    assert page.evaluate(unbroken, "figure, .card")
    style = "([s, name]) => [...new Set([...document.querySelectorAll(s)].map((n) => getComputedStyle(n)[name]))]"
    assert page.evaluate(style, [".scale .bar", "printColorAdjust"]) == ["exact"]
    assert page.evaluate(style, ["h2, h3, h4, dt", "breakAfter"]) == ["avoid"]
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".controls, nav, .copy").first.is_visible()
    page.emulate_media(media="screen", color_scheme="light")
    assert watch.errors == []


def test_axe_finds_nothing_serious_in_light_and_dark(printed):
    page, _, _ = printed
    page.evaluate("document.querySelectorAll('details').forEach((n) => { n.open = true; })")
    assert axe(page) == []
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert axe(page, rules="color-contrast") == []
    page.locator("#theme").click()


def test_nothing_overlaps_on_a_desk_and_on_a_tablet(printed):
    page, watch, _ = printed
    assert page.evaluate(OVERLAPS) == []
    assert watch.abroad == []
    page.set_viewport_size({"width": 768, "height": 900})
    fits = """() => [...document.querySelectorAll(".plot")].every(
      (n) => !n._fullLayout || !n.clientWidth || Math.abs(n._fullLayout.width - n.clientWidth) < 2)"""
    page.wait_for_function(fits, timeout=20_000)
    page.evaluate("scrollTo(0, 0)")
    assert page.evaluate(OVERLAPS) == []


def test_all_is_drawn_and_nothing_overlaps_on_a_telephone_in_the_dark(context, page_file):
    page, watch = opened(context, page_file, 390, "dark")
    draw_all(page)
    assert page.evaluate(OVERLAPS) == []
    assert page.locator("#theme").inner_text() == "Light theme"
    assert (watch.errors, watch.abroad, page.evaluate("window.__sublevel.errors")) == ([], [], [])
    page.close()


def test_the_numbers_of_the_tables_are_those_of_the_page(wide):
    page, _ = wide
    card = page.locator(".card").first
    assert card.locator(".verdict").inner_text() == "supported"
    assert card.locator(".verdict svg").count() == 1
    assert card.locator(".effect").inner_text() == "0.04 [−0.21, 0.29] points"
    assert not card.locator(".facts").is_visible()
    card.locator("summary").click()
    assert card.locator(".facts").inner_text().split("\n")[:2] == ["seeds", "3"]
    card.locator("summary").click()
    assert page.locator(".card .verdict").all_inner_texts() == [
        "supported",
        "supported",
        "contradicted",
        "undecided",
        "undecided",
    ]
    assert page.locator(".unmeasured summary").inner_text().startswith("Not measured: C10, C12.")
    assert "matches the dense network" in page.locator("#findings").inner_text()
    assert line(page, "prunings", "chosen by the criterion")["y"] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05])
    assert line(page, "volume-pairs", "imp")["y"] == pytest.approx([-1, -2, -3, -4, -5])
    assert [line(page, "fractions", "pruned once")["y"][i] for i in (0, 2, 3)] == pytest.approx([8.425, 10.9, 16.5])
    assert (
        page.locator("#prunings .plot")
        .first.get_attribute("aria-label")
        .startswith("Rise of the train loss against weights remaining. chosen by the criterion: 0.01 to 0.05.")
    )


def test_hovering_says_branch_seed_and_density(wide):
    page, _ = wide
    mean = line(page, "accuracy", "imp")
    assert mean["hover"].startswith("<b>imp</b><br>weights remaining %{x:.3~p}")
    assert "n = 3, level 1" in mean["text"][0]
    dots = next(t for t in drawing(page, "accuracy") if t["name"] == "imp" and t.get("opacity"))
    assert dots["text"][:3] == ["seed 0", "seed 1", "seed 2"]
    assert "<b>imp</b>" in dots["hover"]
    assert "level 1 (imp)</b>, 80% left, mean of 3 seeds" in line(page, "paths-successive", "level 1")["hover"]


def test_a_seed_that_is_switched_off_leaves_every_mean(wide):
    page, watch = wide
    page.locator("#volume-pairs").scroll_into_view_if_needed()
    page.evaluate("document.querySelector('.controls details').open = true")
    press(page, "[data-seed='0']")
    page.locator("#volume-pairs").scroll_into_view_if_needed()
    page.wait_for_function(
        "() => document.querySelector('#volume-pairs .plot').data.find((t) => t.name === 'imp' && !t.opacity).text[0].endsWith('n = 2')"
    )
    imp = line(page, "volume-pairs", "imp")
    # seeds 1 and 2: 0 and -0.1 beside -1; two seeds have no interval
    assert imp["y"] == pytest.approx([-1.05, -2.05, -3.05, -4.05, -5.05])
    assert imp.get("up") is None
    assert page.locator("[data-seed='0']").get_attribute("aria-pressed") == "false"
    assert page.locator("#shown").inner_text() == "all but seed 0"
    page.locator("#spectra").scroll_into_view_if_needed()
    page.locator("#spectra .aside", has_text="are still in this figure").wait_for()
    page.locator("#everything").click()
    page.locator("#volume-pairs").scroll_into_view_if_needed()
    page.wait_for_function(
        "() => document.querySelector('#volume-pairs .plot').data.find((t) => t.name === 'imp' && !t.opacity).y[0] === -1"
    )
    assert watch.errors == []


def test_the_page_takes_an_interval_from_three_seeds_on(wide):
    page, _ = wide
    found = re.search(r"^function interval.*?^}$", asset("series.js"), flags=re.MULTILINE | re.DOTALL)
    assert found
    study = "const study = JSON.parse(document.getElementById('study').textContent);"
    taken = page.evaluate(
        f"() => {{ {study} {found[0]}; return [[1, 2, 3], [1, 3], [2]].map((v) => interval(v, false)); }}"
    )
    # t_{0.95, 2} = 2.91999, s = 1
    assert taken[0] == pytest.approx([2, 0.31415, 3.68585], abs=1e-5)
    assert taken[1:] == [[2, None, None], [2, None, None]]


def test_a_branch_that_is_switched_off_leaves_every_figure(wide):
    page, watch = wide
    page.evaluate("document.querySelector('.controls details').open = true")
    page.locator("#legs").scroll_into_view_if_needed()
    assert page.locator("#legs select[data-word='branch']").input_value() == "imp"
    press(page, "[data-branch='imp']")
    page.locator("#legs").scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('#legs select').value === 'oneshot'")
    assert page.locator("#legs select option[value='imp']").is_disabled()
    page.locator("#accuracy").scroll_into_view_if_needed()
    page.wait_for_function("() => !document.querySelector('#accuracy .plot').data.some((t) => t.name === 'imp')")
    assert page.locator("#accuracy .legend button").all_inner_texts() == ["dense", "oneshot", "reinit"]
    page.locator("#everything").click()
    page.wait_for_function("() => document.querySelector('#accuracy .plot').data.some((t) => t.name === 'imp')")
    page.locator("#legs").scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('#legs select').value === 'imp'")
    assert watch.errors == []


def test_choices_legend_theme_and_copying(wide):
    page, watch = wide
    figure = page.locator("#paths-successive")
    figure.scroll_into_view_if_needed()
    figure.locator("select").first.select_option("oneshot")
    assert "(oneshot)" in line(page, "paths-successive", "level 1")["hover"]
    accuracy = page.locator("#accuracy")
    accuracy.scroll_into_view_if_needed()
    press(page, "#accuracy .legend button >> nth=3")
    assert not [t for t in drawing(page, "accuracy") if t["name"] == "reinit"]
    assert accuracy.locator(".legend button").nth(3).get_attribute("aria-pressed") == "false"
    page.keyboard.press("Space")  # the focus has stayed
    assert [t for t in drawing(page, "accuracy") if t["name"] == "reinit"]
    ink = "getComputedStyle(document.querySelector('#accuracy .xtick text')).fill"
    light = page.evaluate(ink)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"(was) => {ink} !== was", arg=light)
    page.emulate_media(color_scheme="light")
    page.locator("summary", has_text="LaTeX table of the levels").click()
    page.locator("[data-copies='tex-levels']").click()
    page.locator("[data-copies='tex-levels']", has_text="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()").startswith("\\begin{table}")
    assert watch.errors == []


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_the_view_that_is_shown_is_saved_with_one_click(wide, kind, tmp_path):
    page, watch = wide
    page.locator("#accuracy").scroll_into_view_if_needed()
    with page.expect_download() as found:
        page.locator(f"#accuracy [data-save='{kind}']").click()
    path = tmp_path / found.value.suggested_filename
    found.value.save_as(path)
    assert path.name == f"accuracy.{kind}"
    if kind == "svg":
        text = path.read_text(encoding="utf-8")
        assert text.count('class="main-svg"') >= 4
        texts = re.findall(r">([^<>]+)</text>", text)
        assert texts.count("Test error (%)") == texts.count("reinit") == 1
        assert any(title.endswith(". Accuracy against sparsity") for title in texts)
    else:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert path.stat().st_size > 20_000
    assert watch.errors == []


def test_a_link_to_what_is_folded_unfolds_it(wide):
    page, _ = wide
    page.evaluate("location.hash = '#claim-2'")
    page.wait_for_function("() => document.getElementById('claim-2').open")
    page.evaluate("document.getElementById('claim-2').open = false; location.hash = ''")


def test_hostile_text_stays_text(context, hostile, tmp_path):
    path = tmp_path / "report.html"
    path.write_text(hostile[1], encoding="utf-8")
    page, watch = opened(context, path, 390, "dark")
    page.on("dialog", lambda d: watch.errors.append(f"dialog: {d.message}"))
    page.locator("#accuracy").scroll_into_view_if_needed()
    page.locator("#accuracy .main-svg .trace").first.wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert page.locator("img").count() == 0
    assert page.locator("h1").inner_text().startswith("</script><img src=x")
    assert page.locator("#accuracy .legend button", has_text="<img src=x").count() == 1
    assert page.evaluate(
        "[...document.querySelectorAll('[data-branch]')].some((n) => n.dataset.branch.includes('<img src=x'))"
    )
    assert page.evaluate("window.__sublevel.errors") == []
    assert watch.errors == []
    page.close()


@pytest.mark.full
def test_a_surface_is_drawn_in_three_dimensions_and_turns_with_the_theme(wide):
    page, watch = wide
    figure = page.locator("#planes")
    figure.scroll_into_view_if_needed()
    assert (
        figure.locator(".plot").first.get_attribute("aria-label").startswith("Train loss. A contour map, from 0.01 at")
    )
    figure.locator("select[data-word='view']").select_option("surface")
    figure.locator(".gl-container canvas").first.wait_for(state="attached")
    assert figure.locator(".plot").count() == 2
    assert "A surface in three dimensions" in figure.locator(".plot").first.get_attribute("aria-label")
    painted = """async () => {
      const image = await Plotly.toImage(document.querySelector("#planes .plot"), {format: "png", width: 200, height: 200});
      const picture = new Image(); picture.src = image; await picture.decode();
      const canvas = Object.assign(document.createElement("canvas"), {width: 200, height: 200});
      const pen = canvas.getContext("2d", {willReadFrequently: true}); pen.drawImage(picture, 0, 0);
      return new Set(new Uint32Array(pen.getImageData(0, 0, 200, 200).data.buffer)).size;
    }"""
    assert page.evaluate(painted) > 200  # a blank canvas has one colour
    colour = 'document.querySelector("#planes .plot").layout.scene.xaxis.gridcolor'
    before = page.evaluate(colour)
    page.locator("#theme").click()
    page.wait_for_function(f"(was) => {colour} !== was", arg=before)
    page.locator("#theme").click()
    assert page.evaluate("window.__sublevel.errors") == []
    assert [e for e in watch.errors if not any(k in e for k in SOFTWARE_GL)] == []


@pytest.fixture(scope="module")
def written(tables, tmp_path_factory):
    """A report with its print files, of few figures."""
    few = {name: tables[name] for name in ("levels", "planes", "landmarks", "verdicts")}
    return write(few, synthetic.summary(), tmp_path_factory.mktemp("written"))


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_first_screen_answers_and_its_pictures_are_seen_within_a_second(context, written, width):
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 844 if width < 500 else 900})
    times = []
    while len(times) < 3 and min(times, default=9999) >= 1000:  # a busy machine may spoil one reading
        page.goto(written.as_uri())
        times.append(page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime"))
    assert 0 < min(times) < 1000
    page.wait_for_function("() => window.__sublevel.drawn >= 2", timeout=15_000)
    ends = page.evaluate("""() => [".lead", "#findings", ".step", "#first-accuracy h3"].map(
      (s) => document.querySelector(s).getBoundingClientRect().bottom)""")
    assert ends == sorted(ends)
    assert ends[-1] < page.viewport_size["height"]
    if width == 1280:
        bottom = "(s) => document.querySelector(s).getBoundingClientRect().bottom"
        assert max(page.evaluate(bottom, f"#first-{key} .plot") for key in ("accuracy", "landscape")) < 900
    page.close()


def test_the_pictures_are_there_without_a_script(context, written):
    page = context.browser.new_page(java_script_enabled=False) if context.browser else context.new_page()
    assert written.read_text(encoding="utf-8").count('<img class="still"') == 2
    page.goto(written.as_uri())
    if not context.browser:
        page.wait_for_function("() => window.__sublevel.drawn >= 2", timeout=15_000)
        assert page.locator(".still").count() == 0  # the script has drawn in their place
    page.close()


def test_axe_is_the_real_one():
    assert AXE().startswith("/*! axe v4")
