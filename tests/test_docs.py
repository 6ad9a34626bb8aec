"""The pages of docs: their code runs and prints what stands there, their commands and studies can be meant."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import sublevel.data
import sublevel.models
import sublevel.report
import sublevel.study.tables
from sublevel.cli import app
from sublevel.study.documents import override, preset_names, read
from sublevel.study.spec import parse
from sublevel.tables import TABLES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = {"README.md": ROOT / "README.md", **{str(p.relative_to(DOCS)): p for p in sorted(DOCS.rglob("*.md"))}}
TEXTS = {name: path.read_text(encoding="utf-8") for name, path in PAGES.items()}
FENCE = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.DOTALL | re.MULTILINE)
LANGUAGES = {"python", "text", "toml", "sh"}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``title`` is the file that it stands for."""

    language: str
    title: str
    text: str


def blocks(page: str) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(TEXTS[page])]


def with_blocks(*languages: str) -> list[str]:
    return [page for page in TEXTS if any(b.language in languages for b in blocks(page))]


def snippets(page: str) -> Iterator[tuple[Block, str]]:
    """The Python of a page, each with what is said to be printed (empty where nothing is)."""
    found = [*blocks(page), Block("", "", "")]
    for block, after in pairwise(found):
        if block.language == "python":
            yield block, after.text if after.language == "text" else ""


GIVEN = """
import torch
from torch import nn

def line(input_shape, classes):
    return nn.Linear(input_shape[0], classes)

def build_net(input_shape, classes):
    return nn.Sequential(nn.Linear(input_shape[0], 8), nn.ReLU(), nn.Linear(8, classes))

x, tx = torch.randn(200, 4, generator=torch.Generator().manual_seed(0)).split([160, 40])
y, ty = torch.arange(200).remainder(2).split([160, 40])
"""
"""What a page may take as given: the reader's own network and data."""


REGISTRIES = (
    "study.builder", "prune.registry", "models.registry", "data.sources", "study.cells", "study.measurements.base",
    "geometry.volume.estimators", "report.figures.registry", "claims", "tables",
)  # fmt: skip
"""Modules with a registry that a page adds to."""


@contextlib.contextmanager
def registries_kept() -> Iterator[None]:
    """Whatever is registered inside is forgotten afterwards."""
    for name in ("geometry.volume", "study.assemble", "report.figures"):
        importlib.import_module(f"sublevel.{name}")
    sublevel.data.names()  # registers every source
    modules = [importlib.import_module(f"sublevel.{name}") for name in REGISTRIES]
    found = [v for m in modules for n, v in vars(m).items() if type(v) in (dict, list, set) and n.strip("_").isupper()]
    before = [registry.copy() for registry in found]
    try:
        yield
    finally:
        for registry, kept in zip(found, before, strict=True):
            registry.clear()
            (registry.extend if isinstance(registry, list) else registry.update)(kept)


def no_report(
    tables: object, summary: object, out: Path, *, page: str, figures: bool = True, views: str = "first"
) -> Path:
    """The report has tests of its own; the pages say nothing about its bytes."""
    (out / page).touch()
    return out / page


def furnish(folder: Path) -> None:
    """Put a reader's images and networks into a folder."""
    from PIL import Image

    for n, split in enumerate(("train", "train", "train", "train", "train", "train", "train", "train", "test")):
        for name in ("cat", "dog"):
            where = folder / "my-images" / split / name
            where.mkdir(parents=True, exist_ok=True)
            pixels = np.random.default_rng(n).integers(0, 256, (12, 12, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(where / f"{n}.png")
    (folder / "my_nets.py").write_text(GIVEN)


@pytest.fixture
def desk(tmp_path, monkeypatch) -> Iterator[Path]:
    """A reader's folder with images in it; afterwards nothing is registered or imported that was not before."""
    furnish(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SUBLEVEL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0}, raising=False)  # one job: no worker processes
    monkeypatch.setattr(sublevel.report, "write", no_report)
    with registries_kept():
        yield tmp_path
    sys.modules.pop("my_nets", None)


def run(page: str, desk: Path) -> Iterator[tuple[str, str, str]]:
    """The code of a page from top to bottom: (code, what it printed, what the page says)."""
    names: dict[str, object] = {"__name__": "page"}
    exec("from my_nets import build_net, tx, ty, x, y" if page == "README.md" else "", names)
    for number, (block, expected) in enumerate(snippets(page), start=1):
        if block.title and "/" not in block.title:  # a file of the reader's
            (desk / block.title).write_text(block.text)
            continue
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(block.text, f"snippet {number} of {page}", "exec"), names)
        yield block.text, out.getvalue(), expected


@pytest.mark.parametrize("page", with_blocks("python"))
def test_snippets_run_in_order_and_print_what_the_page_says(page, desk):
    """Rounded as printed: a last digit that the next processor rounds otherwise would be a poor example."""
    for code, printed, expected in run(page, desk):
        assert printed.rstrip() == expected.rstrip(), code


def test_pages_have_snippets_and_only_languages_that_are_tried():
    """A fence without a language, or in another one, would be code that nobody runs."""
    fences = {page: re.findall(r"^```(.+)?$", text, re.MULTILINE)[::2] for page, text in TEXTS.items()}
    odd = {page: [f for f in found if f.split(" ")[0] not in LANGUAGES] for page, found in fences.items()}
    assert {page: found for page, found in odd.items() if found} == {}
    assert sum(len(blocks(page)) == len(found) > 0 for page, found in fences.items()) >= 12
    assert sum(b.language == "python" for page in TEXTS for b in blocks(page)) >= 40


@pytest.mark.parametrize("page", with_blocks("toml"))
def test_studies_of_the_pages_are_studies(page, tmp_path):
    for number, block in enumerate(b for b in blocks(page) if b.language == "toml"):
        path = tmp_path / (block.title or f"study-{number}.toml")
        path.write_text(block.text)
        assert parse(read(str(path))).levels >= 1


@pytest.mark.parametrize("page", with_blocks("sh"))
def test_commands_of_the_pages_can_be_meant(page, tmp_path, monkeypatch):
    """Each is parsed with its options; the study that `run` and `plan` name is read with its overrides."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text('extends = "demo"')
    for block in blocks(page):
        if block.title and "/" not in block.title:
            (tmp_path / block.title).write_text(block.text)
    lines = [line for b in blocks(page) if b.language == "sh" for line in b.text.splitlines() if line.strip()]
    for line in lines:
        check_command(line)


def check_command(line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    if program == "torchrun":
        at = arguments.index("sublevel.cli")
        program, arguments = "sublevel", arguments[at + 1 :]
    if program == "sublevel":
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        if command.__name__ in ("run", "plan"):
            for name in bound.arguments.get("diff") or [bound.arguments["study"]]:
                parse(override(read(name), *bound.arguments.get("overrides", ())))
        for assignment in bound.arguments.get("overrides", ()):
            parse(override(read("geometry-demo"), assignment))
    elif program == "make":
        targets = re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert set(arguments) <= set(targets), line
    elif program == "python":
        assert (ROOT / arguments[0]).is_file(), line
    elif program in ("mkdir", "chgrp", "chmod", "umask"):  # of the system: an administrator's, not to be tried
        assert arguments, line
    else:
        assert line.startswith("pip install "), f"nothing tries {line!r}"


def test_the_networks_that_the_pages_promise_are_those_of_the_demo():
    from sublevel.study.study import Study

    trained = sum(node.kind == "train" for node in Study("demo").cells[0].nodes.values())
    for page in ("README.md", "index.md"):
        assert re.findall(r"trains (\d+) perceptrons", TEXTS[page]) == [str(trained)]


def test_the_names_of_studies_are_presets():
    assert {"demo", "geometry-demo", "mini", "paper", "paper-vgg16"} <= set(preset_names())


def test_every_column_that_a_page_names_exists():
    named = {found for text in TEXTS.values() for found in re.findall(r"`(\w+)\.(\w+)`", text)}
    columns = {(table, column) for table, column in named if table in TABLES}
    assert len(columns) >= 15
    blocks_of = set(type(parse(read("demo")).geometry).model_fields)
    assert not [f"{t}.{c}" for t, c in columns if c not in TABLES[t].columns and t not in blocks_of]


def test_every_block_of_the_table_of_studies_names_tables_that_exist():
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (`\w+`(?:, `\w+`)*) \|$", TEXTS["studies.md"], re.MULTILINE)
    found = {block: re.findall(r"`(\w+)`", tables) for block, tables in rows}
    assert len(found) >= 12
    assert set(found) <= set(type(parse(read("demo")).geometry).model_fields)
    assert not [table for tables in found.values() for table in tables if table not in TABLES]


@pytest.mark.parametrize("page", [page for page, text in TEXTS.items() if "::test_" in text])
def test_every_test_that_a_page_names_exists(page):
    """``::name`` alone means the file that was named last."""
    file, missing = "", []
    for where, name in re.findall(r"`((?:tests/)?(?:\w+/)?(?:test_\w+\.py)?)::(\w+)`", TEXTS[page]):
        file = where or file
        path = ROOT / file if file.startswith("tests/") else ROOT / "tests" / "geometry" / file
        if not path.is_file() or f"def {name}(" not in path.read_text(encoding="utf-8"):
            missing.append(f"{file}::{name}")
    assert missing == []


def test_the_branches_of_the_protocol_are_registered():
    from sublevel.study.assemble import BRANCHES

    rows = re.findall(r"^\| `([\w-]+)` \|", TEXTS["science/protocol.md"].partition("## Branches")[2], re.MULTILINE)
    assert len(rows) >= 9
    assert set(rows) <= set(BRANCHES)


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_links_only_to_what_is_there_and_fits(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", TEXTS[page])
    missing = [link for link in links if "://" not in link and not (PAGES[page].parent / link).exists()]
    assert missing == []
    wide = [line for line in TEXTS[page].splitlines() if len(line) > 128 and not line.startswith(("|", "sublevel"))]
    assert wide == []
