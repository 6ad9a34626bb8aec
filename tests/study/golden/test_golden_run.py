"""What version 0.1.0 wrote is read: a run with its store, its log, a lease, a cell under way, an archive, a ticket."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pandas as pd
import pytest

import sublevel as sl
from sublevel.engine.log import read_log
from sublevel.engine.partial import Partial
from sublevel.engine.store import Folder, Leases, Store
from sublevel.engine.store.verify import Verified, verify
from sublevel.study.compute import CellCheckpointer
from sublevel.study.result import to_csv
from sublevel.study.store_admin import take_in

RUN, STORE = Path("sublevel-runs") / "small", Path("sublevel-runs") / ".store"


@pytest.fixture
def old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the run's user, as the working folder."""
    with tarfile.open(Path(__file__).with_name("run-0.1.tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_an_old_run_is_read_and_not_computed_again(old: None) -> None:
    result = sl.open(RUN)
    for name in ("levels", "layers", "history", "correct"):
        text = (RUN / "tables" / f"{name}.csv").read_text()
        columns = list(pd.read_csv(io.StringIO(text)))
        assert to_csv(result.tables[name][columns]) == text
    assert len(result.point("imp", 1).theta) == result.document["about"]["model"]["parameters"]
    study = sl.Study("small.toml")
    if study.numerics != result.document["numerics"]:
        pytest.skip("its numerics class is another one than this machine's, so its keys are others")
    assert study.run(jobs=1, report=False).document["last_run"]["computed"] == 0


def test_an_old_log_is_read(old: None) -> None:
    run = read_log(RUN / "events.jsonl")
    assert (run.cells, run.cached, run.done, run.failed, run.why) == (6, 0, 6, 0, "done")


def test_an_old_store_archive_and_ticket_are_whole(old: None) -> None:
    assert verify(Store(STORE, create=False)) == Verified(6, [], {}, {})
    assert take_in("archive.tar", "other").added == 6
    ticket = sl.load_ticket("ticket.safetensors")
    assert ticket.space.remaining(ticket.mask) == 137


def test_an_old_cell_under_way_and_an_old_lease_are_respected(old: None) -> None:
    kept = CellCheckpointer(Partial(Folder(STORE), "ab" * 32)).load()
    assert kept is not None
    assert (kept.step, kept.total, kept.seen, kept.history) == (5, 0.1 + 0.2, 7, [{"step": 4, "train_loss": 1 / 3}])
    assert kept.state["theta"].tolist() == [0.0, 1.0, 2.0, 3.0]
    (lease,) = (STORE / "leases").iterdir()
    os.utime(lease)
    assert not Leases(Folder(STORE)).claim("cd" * 32), "it was touched just now, on another machine"
    os.utime(lease, (1e9, 1e9))
    assert Leases(Folder(STORE)).claim("cd" * 32)
