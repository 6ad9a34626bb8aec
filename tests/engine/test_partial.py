"""A cell under way is kept whole or not at all, for its own key alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from sublevel.engine.partial import Partial
from sublevel.engine.store import Folder
from sublevel.errors import ConfigError
from sublevel.foreign import LARGEST

KEY, OTHER = "ab" * 32, "cd" * 32
ABOUT, DATA = {"step": 5, "total": 0.1 + 0.2}, b"line\nand more\0"


def test_what_is_kept_is_read_back(tmp_path: Path) -> None:
    partial = Partial(Folder(tmp_path), KEY)
    assert partial.read() is None
    partial.write(ABOUT, DATA)
    assert Partial(Folder(tmp_path), KEY).read() == (ABOUT, DATA)
    assert Partial(Folder(tmp_path), OTHER).read() is None
    partial.drop()
    partial.drop()
    assert partial.read() is None


def test_nothing_that_is_damaged_or_of_another_cell_is_read(tmp_path: Path) -> None:
    partial = Partial(Folder(tmp_path), KEY)
    partial.write(ABOUT, DATA)
    path = tmp_path / "partial" / KEY
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        assert partial.read() is None, at
        path.write_bytes(data[:at])
        assert partial.read() is None, at
    (tmp_path / "partial" / OTHER).write_bytes(data)
    assert Partial(Folder(tmp_path), OTHER).read() is None


def test_a_state_larger_than_any_document_is_not_taken_apart(tmp_path: Path) -> None:
    """Eight million empty lists once took half a gigabyte; the healthy neighbour is below the bound."""
    partial = Partial(Folder(tmp_path), KEY)
    for text, bound in (("x" * (LARGEST - 200), True), ("x" * LARGEST, False)):
        partial.write({"text": text}, DATA)
        assert (partial.read() == ({"text": text}, DATA)) == bound


def test_it_is_time_after_so_many_seconds_and_not_again_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBLEVEL_KEEP", "60")
    clock = [1000.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    partial, other = Partial(Folder(tmp_path), KEY), Partial(Folder(tmp_path), OTHER, keeps=False)
    due = []
    for _ in range(4):
        clock[0] += 25
        due.append(partial.due())
        assert not other.due()
        if due[-1]:
            partial.write(ABOUT, DATA)
    assert due == [False, False, True, False]
    monkeypatch.setenv("SUBLEVEL_KEEP", "soon")
    with pytest.raises(ConfigError, match="SUBLEVEL_KEEP is a number of seconds, 0 or more; got 'soon'"):
        Partial(Folder(tmp_path), KEY)
