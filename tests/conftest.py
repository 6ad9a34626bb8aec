"""What all tests share: fixtures, and the modules whose shapes are checked (see shapes.py)."""

from __future__ import annotations

import gc
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import gpus
import shapes

gpus.hide()

SHAPED = ("field", "geometry", "prune", "risk", "rng", "space", "train")
shapes.install([f"sublevel.{name}" for name in SHAPED])

import torch  # noqa: E402
from hypothesis import settings  # noqa: E402

import tiny_runs  # noqa: E402

torch.set_num_threads(1)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores Ctrl-C
settings.register_profile("sublevel", deadline=None, derandomize=True, max_examples=60)
settings.load_profile("sublevel")


@pytest.fixture(autouse=True)
def _own_seed():
    """No test sees what another drew."""
    torch.manual_seed(0)
    shapes.begin()


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests cache is not left in the user's folder, nor taken from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBLEVEL_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


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


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that share what a module, or a folder below this one, makes once run in one process."""
    for item in items:
        found = getattr(item, "_fixtureinfo", None)
        fixtures = [each[-1] for each in found.name2fixturedefs.values()] if found else []
        made = [f.baseid for f in fixtures if f.scope == "session" and f.baseid.count("/")]
        made += [item.nodeid.partition("::")[0] for f in fixtures if f.scope == "module"]
        if made and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(min(made, key=len)))


def pytest_collection_finish() -> None:
    """Garbage is no longer looked for among the modules and the tests themselves: 0.3 s each time that it is."""
    gc.collect()
    gc.freeze()
