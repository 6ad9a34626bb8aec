from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import tiny_runs


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workshop in which the tiny study was run once, by one job. To look at, not to change."""
    return tiny_runs.finished(tmp_path_factory)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished workshop, to damage."""
    return Path(shutil.copytree(finished, tmp_path / "copied"))


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    """A workshop where nothing has run yet."""
    return tiny_runs.furnish(tmp_path / "workshop")
