"""Files are put in place whole, and what an earlier report left is taken away, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic

from sublevel.report import write
from sublevel.report.prepare import clean
from sublevel.report.writer import read
from sublevel.tables import schemas


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


ALONE = """
import sys, json
from pathlib import Path
from sublevel.report.writer import read, write
from sublevel.report.figures import figures
from sublevel.report.prepare import clean
folder = Path(sys.argv[1])
tables, summary = read(folder)
drawn = figures(clean(tables, summary["tables"]))
write(tables, summary, folder, figures=False)
panels = [p for f in drawn.all if f.key == "volumes" for v in f.views for p in v.panels]
doubtful = [s.label for p in panels for s in p.series if any(s.hollow)]
why = sorted({m.why for m in drawn.missing})
print(json.dumps([[f.key for f in drawn.all], why, doubtful, "torch" in sys.modules]))
"""


def test_some_tables_are_drawn_where_no_measurement_is_imported(tables, tmp_path):
    """An empty column of text is text there too: a volume without a reason is not in doubt."""
    (tmp_path / "tables").mkdir()
    for name in ("volumes", "planes", "membership"):
        table = tables[name].assign(reason="", stationary=True) if name == "volumes" else tables[name]
        table.to_csv(tmp_path / "tables" / f"{name}.csv", index=False)
    (tmp_path / "summary.json").write_text(json.dumps({"name": "some", "tables": schemas()}))
    found = subprocess.run([sys.executable, "-c", ALONE, str(tmp_path)], capture_output=True, text=True, check=True)
    keys, why, doubtful, torch = json.loads(found.stdout)
    assert not torch
    assert doubtful == []
    assert set(why) <= {"not measured in this study", "measured, but no usable values"}
    assert {"volumes", "planes", "membership"} <= set(keys)
    assert (tmp_path / "report.html").stat().st_size > 4_000_000


def test_clean_tables_say_themselves_what_their_columns_hold(tables):
    once = clean(tables)
    again = clean(once, {"volumes": {"text": "reason", "number": "log_volume"}})
    for name, table in once.items():
        assert dict(table.dtypes) == dict(again[name].dtypes), name


def test_what_is_read_from_a_folder_is_what_was_written(tables, tmp_path):
    (tmp_path / "tables").mkdir()
    named = tables["levels"].assign(branch=tables["levels"]["branch"].replace("reinit", "NA"))
    named.to_csv(tmp_path / "tables" / "levels.csv", index=False)
    (tmp_path / "summary.json").write_text(json.dumps({"tables": schemas()}))
    found, summary = read(tmp_path)
    assert list(summary) == ["tables"]
    assert set(found["levels"]["branch"]) == set(named["branch"])
