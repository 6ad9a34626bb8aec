"""Splits in the cache: the same splits, one copy of them in memory, and no trust in what a file says of itself."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sublevel import cache
from sublevel.cache import cache_dir
from sublevel.data import Dataset, Splits, share, shared, split
from sublevel.data.own import dataset
from sublevel.data.splits import Part
from sublevel.data.streamed import Streamed


def images_of(n: int, shape: tuple[int, ...] = (3, 5, 7), classes: tuple[str, ...] = ("cat", "dog")) -> Dataset:
    draw = torch.Generator().manual_seed(1)
    x = torch.randint(0, 256, (n + 20, *shape), dtype=torch.uint8, generator=draw)
    y = torch.arange(n + 20) % 2
    return Dataset("made", x[:n], y[:n], x[n:], y[n:], classes, "made here")


def images(n: int = 60, **kinds: Any) -> Splits:
    return split(images_of(n, **kinds), validation=10)


def several(names: tuple[str, ...]) -> Splits:
    x = torch.randn(30, 3), torch.arange(60).view(30, 2)
    given = dict(zip(names, x, strict=True)) if names else x
    return split(dataset((given, torch.arange(30) % 3), (given, torch.arange(30) % 3)), validation=0)


def targets() -> Splits:
    x, y = torch.randn(30, 4), torch.randn(30, 2)
    return split(dataset((x, y), (x, y)), validation=0.2)


def views() -> Splits:
    """Targets that are the samples, tests that are the training examples, samples that are part of something."""
    x = torch.randn(40, 4)
    return split(dataset((x[:30], x[:30]), (x[:30], x[10:])), validation=0)


def written(splits: Splits) -> tuple[str, Splits]:
    found = share(splits)
    assert found is not None
    return found


MADE = {
    "views": views,
    "images": images,
    "one after another": lambda: several(()),
    "by name": lambda: several(("left", "right")),
    "targets": targets,
    "no validation": lambda: split(images_of(60), validation=0),
}


@pytest.mark.parametrize("kind", MADE)
def test_what_is_read_is_what_was_written(kind: str) -> None:
    before = MADE[kind]()
    name, after = written(before)
    again = shared(name)
    assert again is not None
    assert again.digest == after.digest == before.digest
    for field in ("mean", "std", "classes", "origin", "layout", "input_shape"):
        assert getattr(after, field) == getattr(before, field)
        assert type(getattr(after, field)) is type(getattr(before, field))
    for part in ("train", "validation", "test"):
        a, b = getattr(after, part), getattr(before, part)
        assert torch.equal(a.x, b.x)
        assert torch.equal(a.y, b.y)
    assert written(after)[0] == name


def test_other_names_of_the_classes_are_other_splits() -> None:
    one, two = images(), images(classes=("dog", "cat"))
    assert one.digest == two.digest
    (first, cats), (second, dogs) = written(one), written(two)
    assert first != second
    assert [cats.classes, dogs.classes] == [one.classes, two.classes]


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "gone"])
def test_a_damaged_file_is_not_believed_and_is_written_anew(damage: str) -> None:
    splits = images()
    name, _ = written(splits)
    (path,) = (cache_dir() / "splits").iterdir()
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.unlink()  # its pages may be mapped here
        path.write_bytes({"bit": content[:-1] + bytes([content[-1] ^ 1]), "cut": content[:-9], "empty": b""}[damage])
    assert shared(name) is None
    again, mapped = written(splits)
    assert again == name
    assert mapped.digest == splits.digest


def test_rows_of_files_are_shared_already() -> None:
    splits = images()
    rows = Streamed([splits.train.x.numpy()])
    assert share(replace(splits, train=Part(rows, splits.train.y))) is None
    assert not (cache_dir() / "splits").exists()


def test_a_cache_that_cannot_be_written_costs_memory_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SUBLEVEL_CACHE", str(tmp_path / "file" / "cache"))
    assert share(images()) is None


def test_a_file_of_a_disk_that_is_read_only_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise OSError(30, "Read-only file system")

    name, splits = written(images())
    monkeypatch.setattr(os, "utime", refuse)
    found = shared(name)
    assert found is not None
    assert found.digest == splits.digest


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The system's folder for temporary files, of a user without a home."""

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    for name in ("SUBLEVEL_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    cache._homeless.cache_clear()
    yield tmp_path / "temporary"
    cache._homeless.cache_clear()


def test_a_user_without_a_home_shares_by_a_folder_of_their_own(temporary: Path) -> None:
    temporary.mkdir()
    name, splits = written(images())
    found = shared(name)
    assert found is not None
    assert found.digest == splits.digest
    assert cache_dir() == temporary / f"sublevel-{os.getuid()}"
    assert stat.S_IMODE(cache_dir().stat().st_mode) == 0o700


def test_a_home_that_is_none_costs_memory_only(temporary: Path) -> None:
    """Where there is no folder for temporary files either."""
    temporary.touch()
    assert share(images()) is None
    assert shared("0" * 64) is None


def aged(name: str, days: float) -> None:
    os.utime(cache_dir() / "splits" / f"{name}.safetensors", (time.time() - days * 86400,) * 2)


def test_files_that_nobody_used_for_two_weeks_go() -> None:
    old, used, young = (written(images(n))[0] for n in (40, 41, 42))
    for name, days in ((old, 15), (used, 15), (young, 13)):
        aged(name, days)
    assert shared(used) is not None
    new, _ = written(images(60))
    assert {path.stem for path in (cache_dir() / "splits").iterdir()} == {used, young, new}


def test_of_many_files_the_last_are_kept_and_those_of_today() -> None:
    names = [written(images(40 + i))[0] for i in range(12)]
    for age, name in enumerate(names):
        aged(name, 0.5 if age > 9 else 2 + age / 10)
    left = cache_dir() / "splits" / f".{names[0]}.safetensors.5c1f"  # by a writer that was killed
    left.touch()
    os.utime(left, (time.time() - 2 * 86400,) * 2)
    new, _ = written(images(60))
    assert {path.stem for path in (cache_dir() / "splits").iterdir()} == {new, *names[10:], *names[:6]}


LOOK = """
import json, sys
from sublevel.data import shared
splits = shared(sys.argv[1])
total = int(splits.train.x.sum())
own, here = {}, False
for line in open("/proc/self/smaps"):
    if "-" in line.split()[0] and ":" not in line.split()[0]:
        here = sys.argv[1] in line
    elif here and line.split()[0] in ("Rss:", "Private_Dirty:"):
        own[line.split()[0]] = own.get(line.split()[0], 0) + int(line.split()[1])
print(json.dumps([total, own]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_process_has_a_copy_of_its_own() -> None:
    splits = images(4096, shape=(1, 32, 32))
    name, _ = written(splits)
    found = subprocess.run([sys.executable, "-c", LOOK, name], capture_output=True, text=True, check=True)
    total, kib = json.loads(found.stdout)
    assert total == int(splits.train.x.sum())
    assert kib["Rss:"] >= 4086, "all of it was looked at"
    assert kib["Private_Dirty:"] == 0
