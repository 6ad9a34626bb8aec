"""What the site says from the code itself, and that it is built without a warning and without the network."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import sublevel
from sublevel.cli import app
from sublevel.study.spec import GeometrySpec, StudySpec
from sublevel.tables import PATH, SOLUTION, SPECTRUM, TABLES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", DOCS / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_marker_of_a_page_is_written_and_every_text_has_a_marker(generate):
    marked = [name for page in DOCS.rglob("*.md") for name in generate.MARKER.findall(page.read_text())]
    assert sorted(marked) == sorted(generate.GENERATED)
    assert generate.on_page_markdown("a\n\n<!-- generated: scores -->\n\nb").startswith("a\n\n| criterion")
    with pytest.raises(KeyError):
        generate.on_page_markdown("<!-- generated: nothing -->")


def test_the_tables_are_all_there_with_all_their_columns(generate):
    text = generate.tables()
    sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE))
    assert list(sections) == sorted(TABLES)
    for name, table in TABLES.items():
        assert [c for c in table.columns if f"`{c}`" not in sections[name]] == []
        assert len(sections[name].split("\n")[1]) > 20, f"nothing is said of {name}"


def test_what_is_declared_of_a_column_is_said_beside_it(generate):
    text = generate.tables()
    assert TABLES["levels"].columns["density"] == "remaining / prunable"
    assert "| `density` | remaining / prunable |" in text
    assert "Weights left per layer." in text
    assert sum(bool(meaning) for table in TABLES.values() for meaning in table.columns.values()) > 20


def test_what_identifies_a_row_is_told_from_the_rest(generate):
    text = generate.tables()
    assert f"Of a [path](#identifying-columns): {', '.join(f'`{c}`' for c in PATH)}." in text
    assert "Of a [spectrum]" in text
    assert "Of a [solution]" in text
    assert len(SPECTRUM) > len(SOLUTION)
    assert "branch `dense`, level 0" in generate.identity()


def test_every_command_and_every_key_is_there(generate):
    commands, keys, blocks = generate.commands(), generate.keys(), generate.blocks()
    names = [name for name in app if not name.startswith("-")]
    assert len(names) >= 7
    assert [name for name in names if f"## sublevel {name}\n" not in commands] == []
    assert [key for key in StudySpec.model_fields if f"| `{key}` |" not in keys] == []
    assert "| `fraction` | `0.2` |" in keys
    assert [block for block in GeometrySpec.model_fields if f"### `geometry.{block}`" not in blocks] == []


def test_every_public_name_is_in_the_reference():
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "reference").glob("*.md"))
    documented = set(re.findall(r"^::: ([\w.]+)", text, re.MULTILINE))
    homes = {name: sublevel._NAMES[name].rstrip(":").replace(":", ".") for name in sublevel.__all__}
    assert [n for n, home in homes.items() if not {home, home.rpartition(".")[0]} & documented] == []


def test_the_notebooks_are_pages_with_their_pictures(generate):
    for page in (generate.notebook_own_network(), generate.notebook_checkpoints()):
        assert page.startswith("# ")
        assert page.count("data:image/png;base64,") >= 4
        assert "```python" in page


def test_words_that_markdown_would_misread_are_escaped(generate):
    assert generate.prose("a < b  and ``c``\n  d") == "a &lt; b and `c` d"
    assert generate.rows(["x"], [["a|b"]]) == "| x |\n| --- |\n| a\\|b |"


@pytest.mark.full
def test_the_site_is_built_without_a_warning_and_asks_no_other_host(tmp_path):
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) >= 15
    fetched = [
        found
        for page in pages
        for found in re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page.read_text("utf-8"))
    ]
    assert fetched == []
    assert "generated:" not in (tmp_path / "site" / "reference" / "tables.html").read_text("utf-8")
