"""Odd places and odd leases: folders that cannot be fsynced, no home, a read-only disk, two users, the future."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from faulty import failing
from small_stores import put
from sublevel import cache
from sublevel.engine.executors import local
from sublevel.engine.store import Folder, Leases, Store
from sublevel.engine.store.content import sealed
from sublevel.engine.store.garbage import collect
from sublevel.engine.store.index import look
from sublevel.engine.store.leases import LONGEST
from sublevel.errors import ConfigError, StoreError
from sublevel.files import replacing
from sublevel.processes import dead, machine, own
from sublevel.study.spec import parse

KEY = "ab" * 32
ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs to act as another user")


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EBADF])
def test_a_folder_that_cannot_be_fsynced_is_a_store(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on some network and fuse file systems. A file that cannot be is an error."""
    real = os.fsync

    def fsync(handle: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{handle}"):
            raise OSError(code, os.strerror(code))
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    store = Store(tmp_path / "store")
    assert store.read_entry(put(store, "a")) is not None
    with failing("fsync", code, for_good=True), pytest.raises(StoreError, match="cannot write"):
        put(store, "b")


# --- Leases.


def lease(files: Folder, ahead: float, **about: object) -> Path:
    said = {"run": "x", "seconds": 60.0, "machine": "another", "pid": 1, "born": ""} | about
    assert files.create(f"leases/{KEY}.0", sealed(said))
    path = files.path / "leases" / f"{KEY}.0"
    os.utime(path, (files.now() + ahead,) * 2)
    return path


@pytest.mark.parametrize("ahead", [3600, 1e9])
def test_a_lease_from_the_future_is_taken_over_if_nobody_touches_it(
    tmp_path: Path, ahead: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    files = Folder(tmp_path)
    path = lease(files, ahead)
    leases = Leases(files)
    for clock[0] in (0.0, 30.0, 59.0):
        assert not leases.claim(KEY)
    os.utime(path, (files.now() + ahead + 2,) * 2)  # the healthy neighbour: its run is alive, and its clock is ahead
    for clock[0] in (61.0, 90.0, 120.0):
        assert not leases.claim(KEY)
    clock[0] = 121.5
    assert leases.claim(KEY)


@pytest.mark.parametrize("seconds", [1e9, 1e308, 10**400, float(LONGEST) * 2])
def test_no_lease_is_believed_for_longer_than_an_hour(tmp_path: Path, seconds: float) -> None:
    files = Folder(tmp_path)
    path = files.path / "leases" / f"{KEY}.0"
    path.parent.mkdir(parents=True)
    path.write_bytes(sealed({"seconds": seconds, "machine": "another"}))
    for silent, taken in ((LONGEST - 10, False), (LONGEST + 10, True)):
        os.utime(path, (files.now() - silent,) * 2)
        assert Leases(files).claim(KEY) is taken


ODD = [None, True, -1, 0, "x", "", [], {}, [1], 2**40, 10**400, -5.5]


@pytest.mark.parametrize("name", ["seconds", "pid", "born", "machine", "run"])
def test_a_lease_of_odd_types_is_respected_for_a_while_and_then_is_stale(tmp_path: Path, name: str) -> None:
    for i, value in enumerate(ODD):
        files = Folder(tmp_path / f"{i}")
        path = lease(files, 0.0, **({"machine": machine(), "pid": os.getpid()} | {name: value}))
        if not Leases(files).claim(KEY):  # a birth that is another's makes its process a dead one
            os.utime(path, (files.now() - LONGEST - 10,) * 2)
            assert Leases(files, seconds=20).claim(KEY), value
    for other in (b"[1]", b"3", b"[" * 50_000, sealed({"seconds": 1})[:-1]):
        files = Folder(tmp_path / f"{other[:8]!r}")
        assert files.create(f"leases/{KEY}.0", other)
        assert not Leases(files, seconds=20).claim(KEY)


def test_a_process_is_known_by_its_number_and_its_birth() -> None:
    assert not dead(own())
    assert dead(own() | {"born": "1"})
    assert not dead(own() | {"born": "1", "machine": "another"})
    for pid in ODD:
        assert not dead(own() | {"pid": pid})


# --- What a killed export leaves.

HALF = """
import sys, time
from pathlib import Path
from sublevel.files import replacing
with replacing(Path(sys.argv[1])) as beside:
    beside.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path: Path) -> None:
    """What a living one is writing stays, and what only looks alike."""
    path = tmp_path / "study.tar"
    processes = [subprocess.Popen([sys.executable, "-c", HALF, path], stdout=subprocess.PIPE) for _ in range(2)]
    for each in processes:
        assert each.stdout is not None
        assert each.stdout.readline() == b"ready\n"
    for name in (".study.tar.mine", ".other.tar.00000000-1-1-00000000"):
        (tmp_path / name).write_bytes(b"x")
    processes[0].send_signal(signal.SIGKILL)
    processes[0].wait()
    try:
        with replacing(path) as beside:
            beside.write_bytes(b"whole")
        left = sorted(p.name for p in tmp_path.iterdir())
        assert len(left) == 4
        assert [name for name in left if f"-{processes[1].pid}-" in name]
        assert not [name for name in left if f"-{processes[0].pid}-" in name]
    finally:
        processes[1].kill()
        processes[1].wait()
    with replacing(path) as beside:
        beside.write_bytes(b"whole again")
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([*left[:1], ".study.tar.mine", "study.tar"])
    assert path.read_bytes() == b"whole again"


# --- Limits, homes, users.


def test_a_number_of_threads_that_no_machine_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="threads"):
        parse({"threads": 100_000})
    assert parse({"threads": 256}).threads == 256


MANY = """
import os, resource
import torch
from sublevel.errors import ConfigError
from sublevel.numerics import arithmetic
with arithmetic(1):
    pass
resource.setrlimit(resource.RLIMIT_NPROC, (40, 40))
os.setgroups([]), os.setgid(12345), os.setuid(12345)
for threads in (2, 1000):
    try:
        with arithmetic(threads):
            torch.ones(300, 300) @ torch.ones(300, 300)
            print(torch.get_num_threads())
    except ConfigError as error:
        print(error)
"""


@ROOT
def test_threads_that_cannot_be_started_are_a_sentence_not_a_crash() -> None:
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    two, many = done.stdout.splitlines()
    assert two == "2"
    assert many == "this machine does not start 1000 threads for this user (ulimit -u, or memory)"


def test_no_more_processes_is_a_sentence_and_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    real, made = subprocess.Popen, []

    def popen(*arguments: object, **named: object) -> object:
        if len(made) == 1:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        made.append(real(*arguments, **named))  # type: ignore[call-overload]
        return made[-1]

    monkeypatch.setattr(local.subprocess, "Popen", popen)
    with pytest.raises(ConfigError, match=r"starts no more processes for this user .*Resource temporarily unavailable"):
        local.Workers(2, threads=1)
    assert made[0].poll() is not None


def test_a_user_without_a_home_has_a_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "XDG_CACHE_HOME", "SUBLEVEL_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    cache._homeless.cache_clear()
    found = cache.cache_dir()
    assert found.parent == tmp_path
    assert found.stat().st_mode & 0o777 == 0o700
    store = Store(tmp_path / "store")
    key = put(store, "a")
    assert [seen.key for seen in look(store)] == [key]
    cache._homeless.cache_clear()
    found.chmod(0o777)  # another user may have put something there
    assert cache.cache_dir() != found
    cache._homeless.cache_clear()


def test_a_path_that_is_no_utf_8_has_an_index(tmp_path: Path) -> None:
    store = Store(os.fsdecode(os.fsencode(tmp_path) + b"/st\xffore"))
    key = put(store, "a")
    assert [seen.key for seen in look(store)] == [key]


def test_garbage_is_counted_where_nothing_can_be_written(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    put(store, "a")
    with failing("mkdir", errno.EROFS, for_good=True):  # its first file would make `tmp`
        (store.path / "tmp").rmdir()
        assert collect(store, [], remove=False).kept == 1
        with pytest.raises(OSError, match="Read-only"):
            collect(store, [], remove=True)


USER = """
import os, sys
from sublevel.errors import StoreError
from sublevel.engine.store import Leases, Store, roots
from sublevel.engine.store.garbage import collect
sys.path.insert(0, sys.argv[4])
from small_stores import put, root
os.setgroups([]), os.setgid(2000), os.setuid(int(sys.argv[1]))
os.umask(int(sys.argv[2], 8))
try:
    store = Store(sys.argv[3])
    store.check_writable()
    with Leases(store.files) as leases:
        for word in sys.argv[5:]:
            key = put(store, word)
            assert leases.claim(key) and store.read_entry(key)
            roots.begin(store, root(key, finished=False))
    collect(store, roots.roots(store), remove=True)
    print(len(list(store.keys())))
except StoreError as error:
    print(error)
"""


def as_user(uid: int, umask: str, store: Path, *words: str) -> str:
    tests = Path(__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", USER, str(uid), umask, store, tests, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@ROOT
def test_two_users_share_a_store_with_a_group_and_the_umask_of_the_docs() -> None:
    """chgrp, chmod g+rwxs, umask 002: each writes beside the other, and touches and collects what the other wrote."""
    with tempfile.TemporaryDirectory() as made:
        shared = Path(made)
        os.chown(shared, 0, 2000)
        shared.chmod(0o2775)
        assert as_user(1001, "002", shared / "a", "one", "two") == "2"
        assert as_user(1002, "002", shared / "a", "two", "three") == "3"
        assert as_user(1001, "002", shared / "a", "three") == "3"
        assert as_user(1001, "022", shared / "b", "one") == "1"
        assert as_user(1002, "022", shared / "b", "two").startswith("cannot write to the store in ")
        assert Store(shared / "b").damaged() == []
