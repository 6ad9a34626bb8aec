"""A real headless Chromium with the network off, for tests of the page."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
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


def draw_all(page: Any) -> None:
    """Bring every figure into the window, as a reader would, until all are drawn."""
    count = page.evaluate("document.querySelectorAll('figure').length")
    for index in range(count):
        page.evaluate("i => document.querySelectorAll('figure')[i].scrollIntoView()", index)
        page.wait_for_function("(i) => window.__sublevel.drawn > i", arg=index, timeout=15_000)
    page.wait_for_function("() => window.__sublevel.drawn === window.__sublevel.expected", timeout=15_000)
