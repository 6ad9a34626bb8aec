"""A store's entry is whole or absent; what is damaged is never read as good; nothing is pickled."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sublevel
from sublevel.engine.store import Store, canonical, cell_name, digest, object_name
from sublevel.engine.store.entries import FORMAT
from sublevel.errors import DamagedEntry, StoreError
from tiny_runs import entries, objects

KEY = "ab" * 32


def entry(store: Store, key: str = KEY, data: bytes = b"some tensors") -> dict[str, object]:
    body = {"key": key, "objects": {"end": store.put(data)}, "values": {"loss": 0.1}}
    store.write_entry(key, body)
    return body


def test_what_is_written_is_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    body = entry(store)
    again = Store(tmp_path / "store")
    assert again.read_entry(KEY) == body
    assert again.get(digest(b"some tensors")) == b"some tensors"
    assert list(again.keys()) == [KEY]
    assert again.read_entry("cd" * 32) is None
    assert again.damaged() == []


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [lambda p: flip(p, 0), lambda p: flip(p, -1), truncate, empty])
def test_a_damaged_object_is_never_read(tmp_path: Path, damage) -> None:
    store = Store(tmp_path / "store")
    body = entry(store)
    path = objects(store.path)[0]
    damage(path)
    with pytest.raises(DamagedEntry, match=path.name[:12]) as caught:
        store.get(path.name)
    assert caught.value.digest == path.name
    assert store.read_entry(KEY) is None
    assert not path.exists()
    assert [name.partition(".")[0] for name in store.damaged()] == [path.name]
    assert store.put(b"some tensors") == path.name
    assert store.read_entry(KEY) == body


def test_every_flipped_bit_of_an_entry_is_seen(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    body = entry(store)
    path = store.path / cell_name(KEY)
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole)
        flip(path, at)
        found = store.read_entry(KEY)
        assert found in (None, body), (at, found)  # a flip that changes no meaning may pass, another value may not
    path.write_bytes(whole)
    assert store.read_entry(KEY) == body


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"3", b'{"body": null, "checksum": ""}', b"\xff\xfe", b'{"body": {}, "checksum": "x"}'],
)
def test_an_entry_that_is_none_is_set_aside(tmp_path: Path, content: bytes) -> None:
    store = Store(tmp_path / "store")
    entry(store)
    (store.path / cell_name(KEY)).write_bytes(content)
    assert store.read_entry(KEY) is None
    assert not (store.path / cell_name(KEY)).exists()
    assert len(store.damaged()) == 1


def test_an_entry_under_another_key_is_not_read(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    entry(store)
    other = store.path / cell_name("cd" * 32)
    other.parent.mkdir()
    other.write_bytes((store.path / cell_name(KEY)).read_bytes())
    assert store.read_entry("cd" * 32) is None


def test_a_missing_object_makes_its_entry_absent(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    entry(store)
    objects(store.path)[0].unlink()
    assert store.read_entry(KEY) is None
    with pytest.raises(DamagedEntry, match="missing"):
        store.get(digest(b"some tensors"))


def test_putting_an_object_heals_a_damaged_one(tmp_path: Path) -> None:
    """Data of one's own are put at the start of every run and read only by the workers."""
    store = Store(tmp_path / "store")
    name = store.put(b"data of one's own")
    flip(store.path / object_name(name), 3)
    assert store.put(b"data of one's own") == name
    assert store.get(name) == b"data of one's own"
    assert len(store.damaged()) == 1


def test_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "format.json").write_text(json.dumps({"format": FORMAT + 1}))
    with pytest.raises(StoreError, match=rf"format {FORMAT + 1}.*reads format {FORMAT}"):
        Store(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", "not json"])
def test_a_damaged_marker_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "format.json").write_text(content)
    with pytest.raises(StoreError, match=r"format.json"):
        Store(tmp_path)


@pytest.mark.parametrize("content", ["holiday.jpg", "tmp/holiday.jpg"])
def test_a_folder_of_something_else_is_refused_and_left_alone(tmp_path: Path, content: str) -> None:
    folder = tmp_path / "photos"
    (folder / content).parent.mkdir(parents=True)
    (folder / content).write_bytes(b"x")
    (folder / "notes").mkdir()
    with pytest.raises(StoreError, match="not a store"):
        Store(folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted({content.partition("/")[0], "notes"})


def test_an_empty_folder_and_an_interrupted_creation_are_fine(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b" / "tmp").mkdir(parents=True)
    (tmp_path / "b" / "tmp" / "half").write_bytes(b"{")
    for name in "ab":
        entry(Store(tmp_path / name))


def test_no_store_is_made_where_one_must_be(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store"):
        Store(tmp_path / "absent", create=False)
    assert not (tmp_path / "absent").exists()


@pytest.mark.parametrize("place", ["file", "file/store", "file/a/b/c"])
def test_a_file_in_the_way_is_one_sentence(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StoreError) as caught:
        Store(tmp_path / place).check_writable()
    assert str(tmp_path / place) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_place_where_nothing_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot write"):
        Store("/proc/sublevel-store").check_writable()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("mounting is not permitted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_one_sentence_and_no_half_object(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    entry(store)
    with pytest.raises(StoreError, match=r"cannot write to the store in .*No space left"):
        store.put(os.urandom(400_000))
    assert [digest(p.read_bytes()) for p in objects(store.path)] == [p.name for p in objects(store.path)]
    assert list((store.path / "tmp").iterdir()) == [], "what did not fit is still in the way"
    store.check_writable()
    assert store.read_entry(KEY) is not None


def test_a_full_disk_is_seen_before_anything_is_trained(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    with pytest.raises(OSError, match="No space"):
        (small_disk / "filling").write_bytes(os.urandom(400_000))
    with pytest.raises(StoreError, match="No space left"):
        store.check_writable()


def test_a_read_only_disk(small_disk: Path) -> None:
    store = Store(small_disk / "store")
    entry(store)
    flip(objects(store.path)[0], 0)
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    store = Store(small_disk / "store")
    for act in (store.check_writable, lambda: store.put(b"new"), lambda: store.read_entry(KEY)):
        with pytest.raises(StoreError, match=r"Read-only file system") as caught:
            act()
        assert "\n" not in str(caught.value)


LIMITED = """
import resource, signal, sys
from sublevel.errors import StoreError
from sublevel.engine.store import Store
store = Store(sys.argv[1])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.put(bytes(100_000))
except StoreError as error:
    print(error)
"""


def test_a_write_that_stops_half_way(tmp_path: Path) -> None:
    out = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path / "store"], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"cannot write to the store in .*File too large\n", out.stdout)
    assert objects(tmp_path / "store") == []
    assert list((tmp_path / "store" / "tmp").iterdir()) == []


WRITING = """
import os, sys
from sublevel.engine.store import Store, digest
store = Store(sys.argv[1])
n = 0
while True:
    key = digest(f"{n % 50}".encode())
    name = store.put(b"%d" % (n % 50) * 200_000)
    store.write_entry(key, {"key": key, "objects": {"a": name}, "values": {"n": n % 50}})
    n += 1
    if n == 5:
        print("ready", flush=True)
"""


def writer(store: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", WRITING, store], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def stop(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def all_whole(path: Path) -> int:
    store = Store(path)
    found = [store.read_entry(key) for key in list(store.keys())]
    assert None not in found
    assert [p.name for p in objects(path) if digest(p.read_bytes()) != p.name] == []
    assert store.damaged() == []
    return len(found)


def test_after_kill_9_everything_visible_is_whole(tmp_path: Path) -> None:
    """Fifteen kills at moments that differ, into one store."""
    for i in range(15):
        process = writer(tmp_path / "store")
        time.sleep(0.011 * i)
        stop(process)
        assert all_whole(tmp_path / "store") >= 5


def test_two_processes_write_the_same_keys(tmp_path: Path) -> None:
    both = [writer(tmp_path / "store") for _ in range(2)]
    try:
        for _ in range(20):
            time.sleep(0.05)
            assert all(p.poll() is None for p in both)
            all_whole(tmp_path / "store")
    finally:
        for process in both:
            stop(process)
    assert 5 <= all_whole(tmp_path / "store") <= 50


def test_two_processes_create_one_store(tmp_path: Path) -> None:
    code = "import sys; from sublevel.engine.store import Store; Store(sys.argv[1]).put(sys.argv[2].encode())"
    for i in range(4):
        place = tmp_path / f"store-{i}"
        both = [subprocess.Popen([sys.executable, "-c", code, place, str(n)]) for n in range(3)]
        assert [p.wait() for p in both] == [0, 0, 0]
        assert len(objects(place)) == 3


def test_tensors_do_not_depend_on_the_order_of_names(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    a, b = torch.arange(6).reshape(2, 3), torch.rand(4, dtype=torch.float64)
    one = store.put_tensors({"a": a, "b": b, "buffer:x": torch.tensor(True)})
    two = store.put_tensors({"buffer:x": torch.tensor(True), "b": b, "a": a.t().contiguous().t()})
    assert one == two
    back = store.get_tensors(one)
    assert torch.equal(back["a"], a)
    assert torch.equal(back["b"], b)
    assert back["b"].dtype == torch.float64


def test_equal_documents_are_equal_bytes() -> None:
    assert canonical({"b": [1, {"y": 2, "x": 1}], "a": "é"}) == canonical({"a": "é", "b": [1, {"x": 1, "y": 2}]})
    with pytest.raises(ValueError):
        canonical({"a": float("nan")})


def test_a_store_holds_json_and_safetensors_and_nothing_else(finished: Path) -> None:
    from safetensors.torch import load

    store = finished / "sublevel-runs" / ".store"
    assert len(entries(store)) > 50
    for path in store.rglob("*"):
        if path.is_dir():
            continue
        data = path.read_bytes()
        if path.suffix == ".json":
            json.loads(data)
        else:
            assert path.parent.parent.name == "objects"
            assert load(data)
        assert not data.startswith((b"\x80", b"PK"))
    assert list((store / "tmp").iterdir()) == []


def test_the_sources_pickle_nothing() -> None:
    for path in Path(sublevel.__file__).parent.rglob("*.py"):
        assert pickling(path.read_text()) == [], path.name


def test_what_pickles_is_found_among_code_and_not_among_words() -> None:
    for line in (
        "import pickle",
        "def f():\n    from joblib import dump",
        "import os, marshal as m",
        "import dill.source",
        "torch.save(x, 'a')",
        "from torch import save",
        "torch.load(p)",
        "torch.load(p, weights_only=False)",
        "torch.load(p, weights_only=w)",
        "np.load(p, allow_pickle=True)",
        "eval('1')",
        "exec('1')",
    ):
        assert pickling(line), line
    for line in ("'torch.save(x)'", "net.eval()", "torch.load(p,\n    weights_only=True)", "f(allow_pickle=False)"):
        assert pickling(line) == [], line


def pickling(source: str) -> list[str]:
    """The imports and calls in a source by which objects are pickled, or text is run as code."""
    modules = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                bad = any(name.name.partition(".")[0] in modules for name in names)
            case ast.ImportFrom(module=module, names=names):
                of_torch = module in ("torch", "torch.serialization") and {n.name for n in names} & {"save", "load"}
                bad = (module or "").partition(".")[0] in modules or bool(of_torch)
            case ast.Call(func=called, keywords=keywords):
                given = {word.arg: ast.unparse(word.value) for word in keywords}
                name = ast.unparse(called)
                bad = name in ("torch.save", "eval", "exec") or given.get("allow_pickle", "False") != "False"
                bad |= name == "torch.load" and given.get("weights_only") != "True"
            case _:
                bad = False
        if bad:
            found.append(ast.unparse(node))
    return found
