"""A store in object storage keeps every promise of one in a folder: a real server that speaks S3, and fsspec's own."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
import pytest

from object_server import moto_server, use_server
from small_stores import put, root
from sublevel import Study
from sublevel import open as open_run
from sublevel.engine.store import Leases, Store, digest, garbage, names, object_name, opened, remote
from sublevel.engine.store.address import absolute, relative, resolved
from sublevel.engine.store.archive import Archive, write_archive
from sublevel.engine.store.backend import Backend
from sublevel.engine.store.garbage import collect
from sublevel.engine.store.merge import merge
from sublevel.engine.store.remote import Bucket
from sublevel.errors import ConfigError, DamagedEntry, StoreError
from tiny_runs import Running, cli, furnish, inside, tables

pytestmark = pytest.mark.xdist_group("object storage")  # one server, also for those who ask for it by name

KEY = "ab" * 32
KINDS = ("folder", "memory", "local", "s3")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """moto's server on a free port, with a bucket: what it holds is kept by its process, not by the server."""
    with moto_server() as address, pytest.MonkeyPatch.context() as patch:
        import s3fs

        use_server(patch, address)
        bucket = f"bucket-{uuid.uuid4().hex}"
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir(bucket)
        yield f"s3://{bucket}"


@pytest.fixture
def url(server: str, request: pytest.FixtureRequest) -> str:
    """A folder of the bucket for this test alone."""
    return f"{server}/{digest(request.node.name.encode())[:8]}"


@pytest.fixture(params=KINDS)
def files(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backend:
    if request.param == "s3":
        return opened(request.getfixturevalue("url"))
    if request.param == "local":
        monkeypatch.setitem(fsspec.config.conf, "local", {"auto_mkdir": True})
        return Bucket(f"local://{tmp_path}/store")
    return opened(tmp_path / "store" if request.param == "folder" else f"memory://{tmp_path.name}/store")


def test_every_place_does_the_same(files: Backend) -> None:
    assert not files.occupied()
    files.write("cells/ab/one", b"first")
    files.write("cells/ab/one", b"second")
    assert files.read("cells/ab/one") == b"second"
    assert files.create("leases/a.0", b"mine")
    assert not files.create("leases/a.0", b"another's")
    assert files.read("leases/a.0") == b"mine"
    assert files.occupied()
    files.write("cells/ac/two", b"")
    found = list(files.files("cells/"))
    assert [(file.name, file.size) for file in found] == [("cells/ab/one", 6), ("cells/ac/two", 0)]
    assert found == [files.look(file.name) for file in found], "a listing and a look say the same"
    assert [file.name for file in files.files("cells/ab")] == ["cells/ab/one"]
    assert abs(files.now() - found[0].modified) <= 2
    before = files.now()
    files.touch("cells/ab/one")
    looked = files.look("cells/ab/one")
    assert looked
    assert looked.modified >= before - 0.1
    files.move("cells/ab/one", "damaged/one")
    assert files.look("cells/ab/one") is None
    assert files.read("damaged/one") == b"second"
    files.remove("damaged/one")
    files.remove("damaged/one")
    for missing in (files.read, files.touch, lambda name: files.move(name, "b")):
        with pytest.raises(FileNotFoundError):
            missing("damaged/one")
    assert files.look("cells") is None, "a folder is no file"
    assert list(files.files("nothing/")) == []
    assert [file.name for file in files.files("tmp/")] == [], "the clock leaves nothing behind"


def test_documents_have_a_largest_size(files: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (names, remote):
        monkeypatch.setattr(module, "LARGEST", 100)
    for name in ("format.json", f"studies/{KEY}.json", f"cells/ab/{KEY}.json", f"leases/{KEY}.0"):
        for size in (0, 1, 100):
            files.write(name, bytes(size))
            assert files.read(name) == bytes(size)
        for size in (101, 5000):
            files.write(name, bytes(size))
            with pytest.raises(OSError, match=f"it has {size:,} bytes; allowed: 100"):
                files.read(name)
    for name in (object_name(KEY), f"partial/{KEY}", f"damaged/{KEY}.0", f"tmp/{KEY}"):
        files.write(name, bytes(5000))
        assert len(files.read(name)) == 5000


def test_of_many_that_make_a_file_one_does(files: Backend) -> None:
    if files.where.startswith(("memory", "local")):
        pytest.skip("fsspec's own look before they write: they are for one process")
    start = threading.Barrier(8)

    def attempt(n: int) -> bool:
        start.wait()
        return files.create("leases/key.0", str(n).encode())

    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(attempt, range(8)))
    assert made.count(True) == 1
    assert files.read("leases/key.0") == str(made.index(True)).encode()


def test_a_store_keeps_what_it_promises(files: Backend, tmp_path: Path) -> None:
    store = Store(files)
    store.check_writable()
    name = store.put(b"tensors")
    body = {"key": KEY, "objects": {"end": name}, "values": {"loss": 0.5}}
    store.write_entry(KEY, body)
    assert Store(files).read_entry(KEY) == body
    assert store.put(b"tensors") == name, "what is there is touched"
    files.write(object_name(name), b"tensorz")
    with pytest.raises(DamagedEntry, match=name[:12]):
        store.get(name)
    assert store.read_entry(KEY) is None
    assert len(store.damaged()) == 1
    store.put(b"tensors")
    assert store.read_entry(KEY) == body
    elsewhere = Store(tmp_path / "elsewhere")
    assert merge(elsewhere, files).added == 1
    assert elsewhere.read_entry(KEY) == body


def test_leases_and_garbage(files: Backend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(files)
    with Leases(files) as one, Leases(files) as two:
        assert one.claim(KEY)
        assert not two.claim(KEY)
        one.release(KEY)
        assert two.claim(KEY)
    assert list(files.files("leases/")) == []
    wanted, other = put(store, "a"), put(store, "b")
    kept = root(wanted)
    assert collect(store, [kept], remove=True).entries.total() == 0, "all of it is young"
    monkeypatch.setattr(garbage, "HOUR", -5.0)
    assert collect(store, [kept], remove=True).entries.total() == 1
    assert set(store.keys()) == {wanted} != {other}
    assert write_archive(store, kept, tmp_path / "a.tar") == 1
    assert merge(Store(tmp_path / "again"), Archive(tmp_path / "a.tar")).added == 1


def test_a_lease_that_is_given_back_is_not_made_again(url: str) -> None:
    """A touch writes, and must not come after the removal."""
    files = opened(url)
    with Leases(files, seconds=0.6) as leases:
        for n in range(12):
            key = f"{n:064x}"
            assert leases.claim(key)
            leases.release(key)
        assert list(files.files("leases/")) == []


def test_storage_without_conditions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(f"memory://{tmp_path.name}/careless")
    files = store.files._fs  # type: ignore[attr-defined]
    careless = type(files).pipe_file
    monkeypatch.setattr(type(files), "pipe_file", lambda self, path, value, mode="", **_: careless(self, path, value))
    with pytest.raises(StoreError, match="creates an existing file again"):
        store.check_writable()


def test_addresses(tmp_path: Path) -> None:
    assert absolute("s3://bucket/a/") == "s3://bucket/a"
    assert absolute(f"file://{tmp_path}") == absolute(f"local://{tmp_path}") == str(tmp_path.resolve())
    for where in (tmp_path / "store", "s3://bucket/a"):
        said = relative(where, tmp_path / "runs" / "one")
        assert resolved(said, tmp_path / "runs" / "one") == absolute(where)
    assert relative(tmp_path / "store", tmp_path / "runs") == os.path.join("..", "store")
    with pytest.raises(ConfigError, match="chain"):
        absolute("simplecache::s3://bucket/a")
    with pytest.raises(ConfigError, match="nowhere"):
        opened("nowhere://bucket")


@pytest.fixture
def workshop(tmp_path: Path) -> Path:
    return furnish(tmp_path / "workshop")


@pytest.mark.slow
def test_a_study_is_the_same_there(workshop: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(workshop)
    monkeypatch.syspath_prepend(workshop)
    true = Study("small.toml", out="a").run(jobs=1, report=False)
    there = Study("small.toml", out="b", store=url).run(jobs=1, report=False)
    here = Study("small.toml", out="c", store=f"memory://{workshop}").run(jobs=1, report=False)
    for name in ("levels", "layers"):
        assert there.tables[name].equals(true.tables[name])
        assert here.tables[name].equals(true.tables[name])
    assert open_run("b/small").store.where == url
    again = Study("small.toml", out="d", store=url).run(jobs=1, report=False)
    assert again.document["last_run"]["computed"] == 0


@pytest.mark.full
def test_two_runs_at_once_and_every_command(workshop: Path, url: str) -> None:
    assert cli("run", "small.toml", cwd=workshop).returncode == 0
    true = tables(workshop / "sublevel-runs" / "small")
    two = [Running("run", "small.toml", "--out", f"out{n}", "--store", url, cwd=workshop) for n in (1, 2)]
    for running in two:
        code, out, err = running.end()
        assert code == 0, out + err
    for n in (1, 2):
        assert tables(workshop / f"out{n}" / "small") == true
    again = cli("run", "small.toml", "--out", "out3", "--store", url, "--jobs", 1, cwd=workshop)
    assert "nothing to compute" in again.stdout, again.stdout + again.stderr
    checked = cli("verify", "--store", url, cwd=workshop)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "0 not whole" in checked.stdout
    listed = cli("ls", "--stored", "--store", url, "kind=train", cwd=workshop)
    assert listed.stdout.splitlines()[-1] == "5 entries", listed.stdout + listed.stderr
    exported = cli("export", "small", "small.tar", "--out", "out1", cwd=workshop)
    assert exported.returncode == 0, exported.stderr
    taken = cli("import", url, "--store", "mine", cwd=workshop)
    assert taken.returncode == 0, taken.stderr
    assert len(list(Store(workshop / "mine").keys())) == len(list(Store(url).keys()))
    assert cli("gc", "--store", url, "--out", "out1", "--dry-run", cwd=workshop).returncode == 0


def test_a_place_that_is_not_there_is_one_sentence(workshop: Path, server: str) -> None:
    for where, word in (("s3://no-such-bucket/a", "bucket"), ("nowhere://a", "nowhere")):
        done = inside("run", "small.toml", "--store", where, cwd=workshop)
        assert done.returncode == 2, done.stdout + done.stderr
        assert word in done.stderr
        assert "Traceback" not in done.stderr
        assert not (workshop / "sublevel-runs").exists()
