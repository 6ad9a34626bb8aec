"""One branch that collapses hides no difference between the others, and is never left out in silence."""

from __future__ import annotations

import pandas as pd
import pytest

from sublevel.report.figures.accuracy import accuracy

ERRORS = {"imp": 0.15, "reinit": 0.2, "random-prune": 0.8}


def levels(errors: dict[str, float]) -> pd.DataFrame:
    """Two seeds at one level, and the dense network."""
    return pd.DataFrame(
        {"branch": branch, "level": level, "seed": seed, "density": 0.1**level, "train_loss": error}
        | {f"{split}_error": error for split in ("test", "validation", "train")}
        for branch, level, error in [("dense", 0, 0.13), *((b, 1, e) for b, e in errors.items())]
        for seed in (0, 1)
    )


def test_a_collapse_leaves_the_near_view_and_stands_in_the_other():
    near, every = accuracy({"levels": levels(ERRORS)}).views
    panel = near.panels[0]
    assert near.choice == {"scale": "near the dense network"}
    low, high = panel.y.limits or (0.0, 0.0)
    assert low < 13
    assert high == pytest.approx(2 * (15 + 20) / 2)
    assert {s.label: s.y[-1] for s in panel.series if s.legend}["random-prune"] == pytest.approx(80)
    assert every.panels[0].y.limits is None
    (mark,) = [s for s in panel.series if not s.legend]
    assert (mark.label, mark.style.marker, mark.x) == ("random-prune", "triangle-up", [pytest.approx(0.1)])
    assert mark.y[0] == pytest.approx(high, rel=0.05)
    assert mark.y[0] < high
    assert mark.hover == ["above the frame, at 80"]
    assert [s for s in every.panels[0].series if not s.legend] == []


def test_without_a_collapse_there_is_one_view():
    figure = accuracy({"levels": levels({"imp": 0.15, "reinit": 0.2})})
    assert [v.choice for v in figure.views] == [{}]
    assert not [note for note in figure.notes if "frame" in note]
