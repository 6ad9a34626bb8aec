"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import sublevel

SKIPPED = ("sublevel.cli", "sublevel.__main__")
MODULES = [
    "sublevel",
    *sorted(
        found.name
        for found in pkgutil.walk_packages(sublevel.__path__, "sublevel.")
        if not found.name.startswith(SKIPPED)
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name, tmp_path, monkeypatch):
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = sum(bool(t.examples) for name in MODULES for t in finder.find(importlib.import_module(name)))
    assert found >= 20
