"""Files are put in place whole, and what an earlier report left is taken away, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import synthetic

from sublevel.report import write


def test_figures_of_an_earlier_report_are_removed_and_others_stay(tables, tmp_path):
    layers = tables["layers"]
    write({"layers": layers[layers["branch"] == "imp"]}, {}, tmp_path)
    folder = tmp_path / "figures"
    (folder / "mine.svg").write_text("<svg>drawn by hand</svg>")
    (folder / "mine.pdf").write_bytes(b"%PDF-1.4 by hand")
    assert (folder / "layers.svg").exists()
    assert (folder / "layers.pdf").exists()
    write({"persistence": tables["persistence"]}, {}, tmp_path)
    left = sorted(p.stem for p in folder.iterdir())
    assert left[:2] == ["mine", "mine"]
    assert len(left) == 4
    assert all(stem.startswith("persistence") for stem in left[2:])


def test_two_writers_do_not_share_a_temporary_file(monkeypatch, tmp_path):
    seen: list[str] = []
    replace = os.replace
    monkeypatch.setattr("os.replace", lambda a, b: (seen.append(Path(a).name), replace(a, b)))
    for _ in range(2):
        write({}, {}, tmp_path, figures=False)
    assert len(set(seen)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_a_page_that_cannot_be_put_in_place_leaves_nothing_behind(monkeypatch, tmp_path):
    def full(a: object, b: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="no space left"):
        write(synthetic.empty(), {}, tmp_path, figures=False)
    assert list(tmp_path.iterdir()) == []
