"""Draw docs/report.png: the first screen of the report of results/demo, in a headless Chromium.

python docs/figures/report.py       needs playwright, and Chromium at SUBLEVEL_CHROMIUM or /usr/bin/chromium
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from sublevel.report.writer import read, write

ROOT = Path(__file__).resolve().parents[2]
SIZE = {"width": 1280, "height": 800}


def main() -> None:
    """Write the page to a temporary folder, and its first screen to docs/report.png."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        page_file = write(*read(ROOT / "results" / "demo"), Path(folder), figures=False)
        browser = play.chromium.launch(
            executable_path=os.environ.get("SUBLEVEL_CHROMIUM", "/usr/bin/chromium"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport=SIZE, color_scheme="light")  # pyright: ignore[reportArgumentType]
        page.goto(page_file.as_uri())
        page.wait_for_function("() => window.__sublevel.drawn >= 2")
        shot = Image.open(io.BytesIO(page.screenshot()))
        browser.close()
    shot.convert("RGB").quantize(128).save(ROOT / "docs" / "report.png", optimize=True)


if __name__ == "__main__":
    main()
