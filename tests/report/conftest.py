from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import synthetic
from browser import chromium
from hostile import evil

from sublevel.report.figures import Drawn, figures
from sublevel.report.page import render

Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="session")
def tables() -> Tables:
    """A small study: 3 seeds, 5 levels, 3 branches, a sweep of the fraction, one failure."""
    return synthetic.make(3, 5, ("imp", "oneshot", "reinit")) | {"failures": synthetic.failures()}


@pytest.fixture(scope="session")
def drawn(tables: Tables) -> Drawn:
    """Its figures: describing them all takes seconds, so every test that changes no table shares them."""
    return figures(tables)


@pytest.fixture(scope="session")
def html(tables: Tables, drawn: Drawn) -> str:
    """Its page."""
    return render(tables, synthetic.summary(), drawn)


@pytest.fixture(scope="session")
def tiny() -> Tables:
    """The smallest study that has every table."""
    return synthetic.make(2, 2, ("imp", "oneshot"), curves=3)


@pytest.fixture(scope="session")
def given() -> Tables:
    """Three checkpoints that were trained elsewhere, with every table that is measured of such."""
    return synthetic.given()


@pytest.fixture(scope="session")
def measured(given: Tables) -> Drawn:
    """Their figures."""
    return figures(given)


@pytest.fixture(scope="session")
def smallest() -> Tables:
    """Every table with as few rows as it can have."""
    return synthetic.make(1, 1, ("imp",), curves=2)


@pytest.fixture(scope="session")
def hostile(smallest: Tables) -> tuple[Drawn, str]:
    """The figures and the page of a study whose names are markup."""
    changed, summary = evil(smallest | {"failures": synthetic.failures()}, "imp")
    found = figures(changed)
    return found, render(changed, summary, found)


@pytest.fixture(scope="session")
def page_file(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def short(tables: Tables) -> str:
    """The page of a few figures, for what would take long on all."""
    return render(
        {k: tables[k] for k in ("levels", "layers", "volume_pairs", "verdicts", "planes")}, synthetic.summary()
    )


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One Chromium for all tests."""
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
