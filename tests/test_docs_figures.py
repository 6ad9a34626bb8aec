"""The figures of docs: their scripts draw the bytes that are kept, and the pages show every one of them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import pytest

DOCS = Path(__file__).parent.parent / "docs"
CHEAPEST = "dimensions"
BY_HAND = {"architecture"}
"""Figures that show no number."""
NAMED = [
    n for page in DOCS.rglob("*.md") for n in re.findall(r"!\[.*?\]\(\S*figures/([\w-]+)\.svg\)", page.read_text())
]


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures_of_geometry", DOCS / "figures" / "geometry.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_figures_of_the_pages_are_those_of_the_script_and_small():
    assert sorted(NAMED) == sorted({*script().FIGURES, *BY_HAND})
    files = {path.stem: path for path in (DOCS / "figures").glob("*.svg")}
    assert sorted(files) == sorted(NAMED)
    sizes = [path.stat().st_size for path in files.values()]
    assert max(sizes) < 200_000
    assert sum(sizes) < 1_000_000


@pytest.mark.parametrize(
    "name", [CHEAPEST, *(pytest.param(n, marks=pytest.mark.full) for n in sorted(set(NAMED) - {CHEAPEST} - BY_HAND))]
)
def test_the_script_draws_the_same_bytes_twice_and_those_that_are_kept(name, tmp_path):
    """Another matplotlib draws other bytes: then the two drawings still agree, but not with the file."""
    figures = script()
    (tmp_path / "again").mkdir()
    one, two = figures.save(name, tmp_path), figures.save(name, tmp_path / "again")
    drawn, kept = one.read_bytes(), (DOCS / "figures" / f"{name}.svg").read_bytes()
    assert drawn == two.read_bytes()
    assert b"<dc:date>" not in drawn
    if f"Matplotlib v{mpl.__version__}," not in kept.decode():
        pytest.skip(f"the figures were drawn by another matplotlib than {mpl.__version__}")
    assert drawn == kept
