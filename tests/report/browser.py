"""A real headless Chromium with the network off, for tests of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-gl=angle", "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]  # fmt: skip


def executable() -> str:
    """The path of a Chromium, or skip; on a machine of continuous integration its absence is a failure."""
    named = os.environ.get("SUBLEVEL_CHROMIUM")
    found = [
        named,
        *map(shutil.which, ("chromium", "chromium-browser", "google-chrome")),
        "/usr/bin/chromium",
    ]
    for path in found:
        if path and Path(path).exists():
            return path
    reason = "no Chromium found: name one in SUBLEVEL_CHROMIUM, or install chromium"
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


# ruff: noqa: E501
OVERLAPS = """() => {
  const box = (n) => n.getBoundingClientRect();
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1.5
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 1.5;
  const found = [];
  const apart = (nodes, what) => nodes.forEach((a, i) => nodes.slice(i + 1).forEach((b) => {
    if (meet(box(a), box(b))) found.push(`${what}: ${a.textContent.slice(0, 30)} | ${b.textContent.slice(0, 30)}`);
  }));
  const seen = (n) => box(n).width > 0 && box(n).height > 0;
  apart([...document.querySelectorAll("header, .findings > div, .step, figure, .cards, #failures, #next, #protocol, #setup, footer")].filter(seen), "sections");
  apart([...document.querySelectorAll(".card")], "cards");
  for (const card of document.querySelectorAll(".card")) {
    const parts = [...card.querySelectorAll(".verdict, .name, .statement, .interval, .effect, .sentence, .why, .facts div, .link")];
    apart(parts, "a card");
    for (const n of parts) if (box(n).right > box(card).right + 1 || n.scrollWidth > n.clientWidth + 1 && n.clientWidth) found.push(`out of its card: ${n.textContent.slice(0, 40)}`);
  }
  apart([...document.querySelectorAll(".controls button")].filter(seen), "the bar");
  const width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) found.push(`page scrolls sideways: ${document.documentElement.scrollWidth}`);
  for (const figure of document.querySelectorAll("figure")) {
    const key = figure.dataset.key;
    const parts = [".head", ".legend", "figcaption"].map((s) => figure.querySelector(s)).filter((n) => n && !n.hidden);
    apart([...parts, ...figure.querySelectorAll(".panel")], key);
    apart([...figure.querySelectorAll(".legend button")], `${key} legend`);
    for (const panel of figure.querySelectorAll(".panel")) {
      const plot = panel.querySelector(".plot");
      if (!plot.querySelector(".main-svg .trace, .main-svg .hm, .main-svg .contour, .gl-container canvas")) found.push(`${key}: nothing drawn`);
      const texts = [...plot.querySelectorAll(".xtick text, .ytick text, .xtitle, .ytitle")];
      apart([panel.querySelector("h4"), ...texts], `${key} labels`);
      const frame = box(plot);
      for (const t of texts) {
        const b = box(t);
        if (b.left < frame.left - 1 || b.right > frame.right + 1 || b.bottom > frame.bottom + 1)
          found.push(`${key}: clipped ${t.textContent}`);
      }
    }
  }
  for (const n of document.querySelectorAll("h1, h2, h3, p, li, dd, button, select, summary")) {
    const b = box(n);
    if (b.width && !n.closest(".scroll") && b.right > width + 1) found.push(`cut at the right: ${n.textContent.slice(0, 40)}`);
  }
  return found;
}"""
"""Places where text lies on text, is cut, or makes the page scroll sideways."""


class Watch:
    """Everything that a page says or asks for."""

    def __init__(self, page: Any) -> None:
        self.errors: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda m: self.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda e: self.errors.append(str(e)))
        page.on("request", lambda r: self.requests.append(r.url))

    @property
    def abroad(self) -> list[str]:
        """Requests that would leave the machine."""
        return [u for u in self.requests if not u.startswith(("file:", "data:", "blob:", "about:"))]


@contextmanager
def chromium(profile: Path, width: int = 1280, height: int = 900, scheme: str = "light") -> Iterator[Any]:
    """A browser context, offline."""
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as play:
        context = play.chromium.launch_persistent_context(
            str(profile), executable_path=executable(), headless=True, args=FLAGS, offline=True,
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce",
        )  # fmt: skip
        try:
            yield context
        finally:
            context.close()


def opened(context: Any, path: Path, width: int, scheme: str = "light") -> tuple[Any, Watch]:
    """A new page of some width and theme, and all that it says."""
    page = context.new_page()
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    watch = Watch(page)
    page.goto(path.as_uri())
    return page, watch


def AXE() -> str:
    """The source of axe-core, which the package axe-playwright-python carries; its absence is a failure in CI."""
    try:
        return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    except ModuleNotFoundError:
        if os.environ.get("CI"):
            pytest.fail("axe-playwright-python is not installed: pip install -e .[dev]")
        pytest.skip("axe-playwright-python is not installed")


def axe(page: Any, *, whole: bool = False, rules: str = "") -> list[str]:
    """Serious and critical faults of accessibility: rule, impact, and the first place.

    Without ``whole`` only the first figure of each section is looked into, and no drawing: thousands of nodes. Of all
    rules, or of one.
    """
    if not page.evaluate("window.axe !== undefined"):
        page.evaluate(AXE())
    where = "document" if whole else "{exclude: ['.main-svg', 'figure ~ figure .panels']}"
    only = f", runOnly: ['{rules}']" if rules else ""
    found = page.evaluate(f"axe.run({where}, {{resultTypes: ['violations']{only}}})")["violations"]
    return [
        f"{v['id']} ({v['impact']}): {v['nodes'][0]['html'][:120]} {v['nodes'][0].get('failureSummary', '')[:200]}"
        for v in found
        if v["impact"] in ("serious", "critical")
    ]


def draw_all(page: Any) -> None:
    """Bring every figure into the window, as a reader would, until all are drawn."""
    count = page.evaluate("document.querySelectorAll('figure').length")
    for index in range(count):
        page.evaluate("i => document.querySelectorAll('figure')[i].scrollIntoView()", index)
        page.wait_for_function("(i) => window.__sublevel.drawn > i", arg=index, timeout=15_000)
    page.wait_for_function("() => window.__sublevel.drawn === window.__sublevel.expected", timeout=15_000)
