"""Figures as images: what a reader sees stays what it was, within a tolerance for fonts and rounding.

``python tests/plot/test_images.py`` draws the references again; look at them before they are committed.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from matplotlib.testing.compare import compare_images

import sublevel.study.tables  # noqa: F401 - declares the tables of all measurements
from sublevel.report.figures import figures
from sublevel.report.render_mpl import shown

sys.path.insert(0, str(Path(__file__).parents[1] / "report"))

import synthetic
import synthetic_geometry

REFERENCES = Path(__file__).parent / "references"
TOLERANCE = 8.0
"""Root mean square of the differences of 256 grey levels: fonts differ by 3 between versions, a lost line by more."""
VIEWS = {"accuracy": 0, "landscape": 0, "planes": 1, "densities": 0, "disconnectivity": 0, "layers": 0}


def drawn() -> dict[str, object]:
    tables = synthetic.make(3, 4, ("imp", "reinit"), curves=2)
    levels = tables["levels"]
    levels["train_loss"] = [  # of solutions on the bowl of the synthetic planes
        synthetic_geometry.bowl(0.3 * (level > 0) + 0.1 * level, 0.1 * level) + 0.05 + 0.01 * seed
        for level, seed in zip(levels["level"], levels["seed"], strict=True)
    ]
    found = {f.key: f for f in figures(tables).all}
    return {
        key: shown(found[key].views[i], found[key].titled(found[key].views[i]), found[key].columns)
        for key, i in VIEWS.items()
    }


def write(key: str, canvas, folder: Path) -> Path:
    canvas.savefig(folder / f"{key}.png", dpi=50)
    return folder / f"{key}.png"


@pytest.fixture(scope="module")
def canvases():
    return drawn()


@pytest.mark.parametrize("key", VIEWS)
def test_a_figure_looks_as_its_reference(key, canvases, tmp_path):
    made = write(key, canvases[key], tmp_path)
    assert compare_images(str(REFERENCES / f"{key}.png"), str(made), tol=TOLERANCE) is None


def test_a_figure_that_lost_a_panel_would_be_seen(canvases, tmp_path):
    canvas = drawn()["landscape"]
    canvas.axes[0].lines[0].set_visible(False)
    canvas.axes[0].collections[0].set_visible(False)
    made = write("landscape", canvas, tmp_path)
    assert "RMS" in str(compare_images(str(REFERENCES / "landscape.png"), str(made), tol=TOLERANCE))


if __name__ == "__main__":
    REFERENCES.mkdir(exist_ok=True)
    for key, canvas in drawn().items():
        print(write(key, canvas, REFERENCES))
