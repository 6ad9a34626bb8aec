"""The pages of docs: their Python runs and prints what stands there, their figures are what their script draws."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re
import tomllib
from pathlib import Path
from types import ModuleType

import matplotlib as mpl
import pytest

from sublevel.study.spec import override, parse, read
from sublevel.tables import COLUMNS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGE = (DOCS / "geometry.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```\n(?:```text\n(.*?)^```$)?", PAGE, re.DOTALL | re.MULTILINE)
NAMED = re.findall(r"!\[.*?\]\(figures/([\w-]+)\.svg\)", PAGE)
CHEAPEST = "dimensions"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures_of_geometry", DOCS / "figures" / "geometry.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_snippets_run_in_order_and_print_what_the_page_says(tmp_path, monkeypatch):
    """Rounded as printed: a last digit that the next processor rounds otherwise would be a poor example."""
    monkeypatch.chdir(tmp_path)
    assert len(SNIPPETS) >= 12
    names: dict[str, object] = {}
    for number, (code, expected) in enumerate(SNIPPETS, start=1):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, f"snippet {number} of geometry.md", "exec"), names)
        assert out.getvalue() == expected, f"snippet {number} prints\n{out.getvalue()}"
    assert list(tmp_path.iterdir()) == []


def test_the_figures_of_the_page_are_those_of_the_script_and_small():
    assert sorted(NAMED) == sorted(script().FIGURES)
    files = {path.stem: path for path in (DOCS / "figures").glob("*.svg")}
    assert sorted(files) == sorted(NAMED)
    sizes = [path.stat().st_size for path in files.values()]
    assert max(sizes) < 200_000
    assert sum(sizes) < 1_000_000


def test_the_script_draws_the_same_bytes_twice_and_those_that_are_kept(tmp_path):
    """Another matplotlib draws other bytes: then the two drawings still agree, but not with the file."""
    figures = script()
    (tmp_path / "again").mkdir()
    one, two = figures.save(CHEAPEST, tmp_path), figures.save(CHEAPEST, tmp_path / "again")
    drawn, kept = one.read_bytes(), (DOCS / "figures" / f"{CHEAPEST}.svg").read_bytes()
    assert drawn == two.read_bytes()
    assert b"<dc:date>" not in drawn
    if f"Matplotlib v{mpl.__version__}," not in kept.decode():
        pytest.skip(f"the figures were drawn by another matplotlib than {mpl.__version__}")
    assert drawn == kept


def test_the_study_of_the_page_is_one():
    (study,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    document = tomllib.loads(study)
    keys = document["geometry"]
    assert set(keys) | {"legs"} == set(type(parse(read("demo")).geometry).model_fields), "a block is missing"
    parsed = parse({**read("demo"), **{k: v for k, v in document.items() if k != "extends"}})
    assert all(getattr(parsed.geometry, name) is not None for name in keys)


def test_the_overrides_of_the_page_are_keys_of_a_study():
    document = read("geometry-demo")
    found = re.findall(r"--set '?(geometry[^'`\s]*(?: [^'`\s]+\])?)", PAGE)
    assert len(found) >= 4
    for assignment in found:
        document = override(document, assignment)
    assert parse(document).geometry.connect is not None


def test_every_column_that_the_page_names_exists():
    named = set(re.findall(r"`(\w+)\.(\w+)`", PAGE))
    columns = {(table, column) for table, column in named if table in COLUMNS}
    assert len(columns) >= 15
    assert not [f"{table}.{column}" for table, column in columns if column not in COLUMNS[table]]


def test_every_block_names_tables_that_exist():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (`\w+`(?:, `\w+`)*) \|$", PAGE, re.MULTILINE)
    blocks = {block: re.findall(r"`(\w+)`", tables) for block, tables in rows}
    assert set(blocks) == set(type(parse(read("demo")).geometry).model_fields)
    assert not [table for tables in blocks.values() for table in tables if table not in COLUMNS]


def test_every_test_that_the_page_names_exists():
    """``::name`` alone means the file that was named last."""
    file, missing, seen = "", [], 0
    for where, name in re.findall(r"`((?:tests/)?(?:\w+/)?(?:test_\w+\.py)?)::(\w+)`", PAGE):
        file = where or file
        path = ROOT / file if file.startswith("tests/") else ROOT / "tests" / "geometry" / file
        seen += 1
        if not path.is_file() or f"def {name}(" not in path.read_text(encoding="utf-8"):
            missing.append(f"{file}::{name}")
    assert seen >= 20
    assert missing == []


def test_the_page_fits_a_hundred_and_twenty_columns():
    long = [number for number, line in enumerate(PAGE.splitlines(), start=1) if len(line) > 120]
    assert long == []
