"""Every call of a store's back end fails once with every error: no whole entry moves, is lost or is called damaged.

A real study runs in this process, on a real folder or a real server that speaks S3; one call of the operating system,
or one request, fails. What was whole before is in its place afterwards, byte for byte, and a rerun ends with the tables
of a run that nothing disturbed.
"""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sublevel as sl
from faulty import ANSWERS, CALLS, ERRORS, REQUESTS, Between, failing
from object_server import moto_server, use_server
from small_stores import put, root
from sublevel.engine.store import Leases, Store, backend, cell_name, digest, object_name, roots
from sublevel.engine.store.garbage import collect
from sublevel.engine.store.merge import merge
from sublevel.errors import StoreError, SublevelError
from sublevel.study.result import to_csv
from sublevel.study.tables import build
from tiny_runs import furnish

pytestmark = pytest.mark.xdist_group("store faults")

FEW: dict[str, Any] = {"levels": 1, "branches": ["imp"], "train": {"length": "2it", "batch_size": 50}}
KEY = "ab" * 32

TRIED: Counter[str] = Counter()
"""How many faults were injected, each in a place of its own, by kind of store."""


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "PAUSES", (0.0, 0.0, 0.0))


class Shop:
    """A workshop where one study was run without a fault: its tables and what its store holds."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, folder / "true" / ".store"
        with failing("nothing", 0) as counted:
            self.tables = self.run("true")
        self.calls = dict(counted.calls)
        with failing("nothing", 0) as counted:
            assert self.run("true") == self.tables
        self.calls_again = dict(counted.calls)

    def run(self, out: str, store: str | None = None, **more: Any) -> dict[str, str]:
        """The study's tables."""
        result = sl.Study(str(self.folder / "small.toml"), out=self.folder / out, store=store, **FEW, **more).run(
            jobs=1, report=False
        )
        return {name: to_csv(table) for name, table in build(result.document, result.store).items()}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = furnish(tmp_path_factory.mktemp("shop"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(folder)
        yield Shop(folder)
    sys.modules.pop("tiny_net", None)


def whole(store: Path) -> dict[str, bytes]:
    """Every entry and object, by name."""
    return {
        str(p.relative_to(store)): p.read_bytes() for kind in ("cells", "objects") for p in store.glob(f"{kind}/??/*")
    }


def check(shop: Shop, out: str, call: str, code: int, at: int, **how: bool) -> None:
    """A run with one fault, then one without."""
    store = shop.folder / out / ".store"
    before = whole(store)
    with failing(call, code, at, **how) as fault:
        try:
            assert shop.run(out) == shop.tables
        except (SublevelError, OSError) as error:
            ended = error
        else:
            ended = None
    what = f"{call} {errno.errorcode[code]} at {at} {how}: {ended}"
    TRIED["folder"] += 1
    assert fault.fired, what
    assert isinstance(ended, SublevelError | None), what
    after = whole(store)
    assert {name: after.get(name) for name in before} == before, what
    for name, data in after.items():
        if name.startswith("objects/"):
            assert digest(data) == name.rpartition("/")[2], what
    assert not list(store.glob("damaged/*")), what
    assert shop.run(out) == shop.tables, what
    assert not list(store.glob("damaged/*")), what
    assert whole(store).keys() == whole(shop.store).keys(), what


def places(count: int, n: int) -> list[int]:
    """So many of the calls, the first and the last among them."""
    return sorted({round(i * (count - 1) / max(n - 1, 1)) for i in range(n)})


@pytest.mark.parametrize(("call", "code"), [(call, ERRORS[i % len(ERRORS)]) for i, call in enumerate(CALLS)])
def test_one_fault_in_a_run(shop: Shop, tmp_path: Path, call: str, code: int) -> None:
    """A sample: every call once, in the middle of a first run, or of a second one where only that makes it."""
    if call in shop.calls:
        check(shop, str(tmp_path / "run"), call, code, shop.calls[call] // 2)
    else:
        check(shop, "true", call, code, shop.calls_again[call] // 2)


@pytest.mark.parametrize(("call", "code"), [(c, e) for c in ("open", "read") for e in ERRORS])
def test_one_fault_while_results_are_read(shop: Shop, call: str, code: int) -> None:
    """A sample: every error in a run that finds all its results, at a call whose fault once moved an entry."""
    check(shop, "true", call, code, shop.calls_again[call] // 2)


@pytest.mark.full
@pytest.mark.parametrize("late", [False, True], ids=["", "late"])
@pytest.mark.parametrize("code", ERRORS, ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("call", CALLS)
def test_every_fault(shop: Shop, tmp_path: Path, call: str, code: int, late: bool) -> None:
    """Five places in a first run, and five in a run that finds everything."""
    for at in places(shop.calls[call], 5) if call in shop.calls else ():
        check(shop, str(tmp_path / f"run-{at}"), call, code, at, late=late)
        shutil.rmtree(tmp_path / f"run-{at}")
    shutil.copytree(shop.folder / "true", tmp_path / "again")
    for at in places(shop.calls_again[call], 5) if call in shop.calls_again else ():
        check(shop, str(tmp_path / "again"), call, code, at, late=late)


@pytest.mark.parametrize("code", ERRORS, ids=lambda code: errno.errorcode[code])
@pytest.mark.parametrize("call", ["open", "read", "fstat"])
def test_a_fault_that_stays_ends_all_in_a_sentence(tmp_path: Path, call: str, code: int) -> None:
    """No read succeeds any more: whatever is asked, nothing moves, and nothing is taken for absent."""
    store = Store(tmp_path / "store")
    key = put(store, "a")
    roots.finish(store, root(key))
    for path in store.path.rglob("*.*"):
        os.utime(path, (1e9, 1e9))
    before = {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()}
    with failing(call, code, for_good=True):
        for act in (
            lambda: store.read_entry(key),
            lambda: store.get(digest(b"a")),
            lambda: store.put(b"a"),
            lambda: roots.roots(store),
            lambda: roots.begin(store, root(key, finished=False)),
            lambda: Store(store.path),
        ):
            with pytest.raises(StoreError, match=r"cannot (read|write)") as caught:
                act()
            assert os.strerror(code) in str(caught.value)
        for work in (lambda: collect(store, [], remove=True), lambda: merge(Store(tmp_path / "b"), store.files)):
            with pytest.raises((OSError, StoreError)):
                work()
    assert {p: p.read_bytes() for p in store.path.rglob("*") if p.is_file()} == before


def test_a_real_lack_of_descriptors(tmp_path: Path) -> None:
    """25 of 25 entries were set aside by it."""
    store = Store(tmp_path / "store")
    keys = [put(store, f"{i}") for i in range(25)]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = [os.open("/dev/null", os.O_RDONLY)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken[0] + 1, hard))
    try:
        for key in keys:
            with pytest.raises(StoreError, match="Too many open files"):
                store.read_entry(key)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(taken[0])
    assert store.damaged() == []
    assert all(store.read_entry(key) for key in keys)


ANOTHER = """
import os, sys
from sublevel.errors import StoreError
from sublevel.engine.store import Store
os.setgid(65534), os.setuid(65534)
store = Store(sys.argv[1])
for key in sys.argv[2:]:
    try:
        print(bool(store.read_entry(key)))
    except StoreError as error:
        print(error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can enter; those of pytest are closed to others."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.mark.skipif(os.getuid() != 0, reason="needs to act as another user")
@pytest.mark.parametrize("what", ["entry", "object", "folder"])
def test_another_users_file_that_cannot_be_read(open_folder: Path, what: str) -> None:
    store = Store(open_folder / "store")
    a, b = put(store, "a"), put(store, "b")
    at = store.path / (cell_name(a) if what == "entry" else object_name(digest(b"a")))
    for path in (store.path, *store.path.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o666)
    (at.parent if what == "folder" else at).chmod(0o600)
    done = subprocess.run([sys.executable, "-c", ANOTHER, store.path, a, b], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("cannot read the store in ")
    assert "Permission denied" in first
    assert second == "True"
    assert store.damaged() == []
    assert store.read_entry(a) is not None


class Flaky:
    """A folder that gives other bytes than it holds: the first time, or at every reading."""

    def __init__(self, store: Store, wrong: list[bytes]) -> None:
        self._real, self._wrong = store.files.read, wrong

    def __call__(self, name: str) -> bytes:
        data = self._real(name)
        return self._wrong.pop(0) if self._wrong and name.startswith(("cells/", "objects/")) else data


@pytest.mark.parametrize("wrong", [[b""], [b"{"], [b"", b"x"], [b"", b""], [b"x" * 9] * 2])
def test_bytes_that_differ_each_time_are_no_damage(store: Store, wrong: list[bytes]) -> None:
    """One cut body, two, or an empty answer twice while the file has its length."""
    key = put(store, "a")
    store.files.read = Flaky(store, list(wrong))  # type: ignore[method-assign]
    if len(wrong) == 1:
        assert store.read_entry(key) is not None
    else:
        with pytest.raises(StoreError, match="it reads differently each time"):
            store.read_entry(key)
    assert store.damaged() == []
    assert store.read_entry(key) is not None


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_wrong_on_the_disk_is_damage(store: Store) -> None:
    """The healthy neighbour: it is set aside, kept for an hour from now, and computed again."""
    key = put(store, "a")
    path = store.path / object_name(digest(b"a"))
    path.write_bytes(b"b")
    os.utime(path, (1e9, 1e9))
    assert store.read_entry(key) is None
    assert len(store.damaged()) == 1
    collect(store, [root(key)], remove=True)
    assert len(store.damaged()) == 1


def test_what_another_run_has_mended_is_put_back(store: Store) -> None:
    """A run that was stopped between its look and its move finds a whole file in the damaged one's place."""
    key = put(store, "a")
    store.set_aside(object_name(digest(b"a")), lambda data: data if digest(data) == digest(b"a") else None)
    assert store.damaged() == []
    assert store.read_entry(key) is not None


def test_a_lease_that_was_made_by_a_call_that_failed_is_held(store: Store) -> None:
    """The file is there, and its content says by whom."""
    with failing("write", errno.EIO, late=True), Leases(store.files) as leases:
        assert leases.claim(KEY)
        assert not Leases(store.files).claim(KEY)
    assert list(store.files.files("leases/")) == []


@pytest.mark.parametrize(("call", "at"), [("scandir", 0), ("scandir", 1), ("unlink", 0)])
def test_no_lease_is_left_where_a_claim_or_a_release_failed(store: Store, call: str, at: int) -> None:
    """It was left to a process that lives, so that the next run in it waited for 90 seconds."""

    def claimed_and_released() -> None:
        assert leases.claim(KEY)
        leases.release(KEY)

    with failing(call, errno.EACCES, at) as fault, Leases(store.files) as leases, pytest.raises(StoreError):
        claimed_and_released()
    assert fault.fired
    assert list(store.files.files("leases/")) == []


# --- Object storage.


@pytest.fixture(scope="module")
def between() -> Iterator[Between]:
    with moto_server() as address, pytest.MonkeyPatch.context() as patch:
        import s3fs

        made = Between(address)
        use_server(patch, made.url, MAX_ATTEMPTS="1")
        patch.setattr(s3fs.S3FileSystem, "retries", 1)  # the store's own attempts are on trial
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("faults")
        yield made
        s3fs.S3FileSystem.clear_instance_cache()
        made.close()


def kept(store: Store) -> dict[str, bytes]:
    """Every entry and object in object storage."""
    return {f.name: store.files.read(f.name) for kind in ("cells/", "objects/") for f in store.files.files(kind)}


SEVERAL = {"a": b"first" * 1000, "b": b"second" * 1000}


def work(store: Store) -> dict[str, Any]:
    """What runs do with a store, without a network: claim, keep, read, note, list. The values of its entries."""
    found = {}
    store.check_writable()
    with Leases(store.files) as leases:
        for word, data in SEVERAL.items():
            key = digest(word.encode())
            assert leases.claim(key)
            if store.read_entry(key) is None:
                body = {"key": key, "objects": {"end": store.put(data)}, "values": {"n": len(data)}, "labels": {}}
                store.write_entry(key, body)
            found[key] = (store.read_entry(key) or {})["values"]
            leases.release(key)
    roots.begin(store, root(*found))
    collect(store, roots.roots(store), remove=True)
    assert set(store.keys()) == set(found)
    return found


def check_bucket(between: Between, url: str, request: str, answer: int | str, at: int) -> None:
    """Some work with one request that fails, then without one."""
    between.fail("", 0)
    before = kept(Store(url))
    between.fail(request, answer, at)
    try:
        work(Store(url))
    except (SublevelError, OSError) as error:
        ended = error
    else:
        ended = None
    what = f"{request} {answer} at {at}: {ended}"
    if between.fired:
        TRIED["object storage"] += 1
    else:  # a run may ask once or twice less than the one that was counted
        assert 0 < between.counts[request] <= at, what
    assert isinstance(ended, SublevelError | OSError | None), what
    assert answer == 403 or ended is None, f"a passing fault ends nothing: {what}"
    between.fail("", 0)
    after = kept(Store(url))
    assert {name: after.get(name) for name in before} == before, what
    assert Store(url).damaged() == [], what
    assert {v["n"] for v in work(Store(url)).values()} == {len(data) for data in SEVERAL.values()}, what
    assert Store(url).damaged() == [], what


def counted(between: Between, url: str) -> dict[str, int]:
    between.fail("", 0)
    work(Store(url))
    return dict(between.counts)


def test_one_request_fails_while_results_are_read(between: Between) -> None:
    """A sample: each answer to a GET, where all results are there."""
    url = "s3://faults/read"
    counted(between, url)
    again = counted(between, url)
    for i, answer in enumerate(ANSWERS):
        check_bucket(between, url, "GET", answer, again["GET"] * i // len(ANSWERS))


@pytest.mark.full
@pytest.mark.parametrize("answer", ANSWERS)
@pytest.mark.parametrize("request_", REQUESTS)
def test_every_request_fails(between: Between, request_: str, answer: int | str) -> None:
    """Three places where nothing is there yet, and three where everything is."""
    base = f"s3://faults/{request_}-{answer}"
    first, again = counted(between, f"{base}-count"), counted(between, f"{base}-count")
    assert first.get(request_) or request_ == "COPY", "only what is damaged is copied"
    for at in places(first[request_], 3) if request_ in first else ():
        check_bucket(between, f"{base}-{at}", request_, answer, at)
    for at in places(again[request_], 3) if request_ in again else ():
        check_bucket(between, f"{base}-count", request_, answer, at)


@pytest.mark.full
def test_a_study_on_storage_that_fails_now_and_then(shop: Shop, between: Between) -> None:
    """One request of each kind, in first runs and in runs that find everything: the tables are those of a folder."""
    plans = zip(("GET", "HEAD", "PUT", "LIST", "CREATE", "DELETE"), (503, 500, 429, "cut", 503, 500), strict=True)
    for n, (request, answer) in enumerate(plans):
        url = f"s3://faults/study-{n}"
        for at in (3, 0):
            between.fail(request, answer, at)
            assert shop.run(f"out-{n}", url) == shop.tables, (request, answer)
            assert between.fired, (request, answer)
            assert Store(url).damaged() == []


@pytest.mark.parametrize("answer", ANSWERS)
def test_storage_that_stays_away_is_one_sentence(between: Between, answer: int | str) -> None:
    between.fail("", 0)
    store = Store(f"s3://faults/away-{answer}")
    key = put(store, "a")
    acts = {
        "GET": lambda: store.read_entry(key),
        "LIST": lambda: list(store.keys()),
        "PUT": lambda: store.write("tmp/x", b"x"),
    }
    for request, act in acts.items():
        if (request, answer) == ("PUT", "cut"):
            continue  # an answer without a body
        between.fail(request, answer, times=10**6)
        with pytest.raises(StoreError, match=r"cannot (read|write)"):
            act()
        assert between.fired
    between.fail("", 0)
    assert store.damaged() == []
    assert store.read_entry(key) is not None
