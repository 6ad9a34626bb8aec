"""The notebooks of examples/ run from top to bottom, as a new user runs them, and hold what they draw."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def read(name: str):
    nbformat = pytest.importorskip("nbformat")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nbformat.read(FOLDER / name, as_version=4)


def pictures(notebook) -> int:
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", ())]
    assert not [o for o in outputs if o.output_type == "error"]
    return sum("image/png" in o.get("data", {}) for o in outputs)


def test_there_are_two_notebooks():
    assert NOTEBOOKS == ["checkpoints.ipynb", "own_network.ipynb"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_stored_with_its_pictures_and_without_paths_of_a_machine(name):
    notebook = read(name)
    assert pictures(notebook) >= 4
    text = (FOLDER / name).read_text(encoding="utf-8")
    here = f"/{FOLDER.resolve().parts[1]}/"
    assert not [word for word in ("/home/", "/root/", "/tmp/", here) if word in text]


def test_your_own_network_takes_25_lines():
    code = [cell.source for cell in read("own_network.ipynb").cells if cell.cell_type == "code"]
    assert sum(bool(line.strip()) for source in code for line in source.splitlines()) <= 25


@pytest.mark.full
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(FOLDER.parent / "src"), os.environ.get("PYTHONPATH", "")]))
    notebook = read(name)
    stored = pictures(notebook)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert pictures(notebook) == stored
