"""Downloads: whole and checked, or an error that says what to do. No network: file:// and a closed port."""

import hashlib

import pytest

from sublevel.data import idx, load
from sublevel.data.download import Remote, download, obtain
from sublevel.errors import DataError

CLOSED = "http://127.0.0.1:9/"


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "home" / "a.bin"
    path.parent.mkdir()
    path.write_bytes(b"content")
    return Remote("a.bin", (CLOSED + "a.bin", path.as_uri()), hashlib.md5(b"content").hexdigest())


def test_the_second_address_serves_when_the_first_does_not(published, tmp_path):
    path = download(published, tmp_path / "new" / "root", timeout=2)
    assert path.read_bytes() == b"content"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]


def test_a_file_that_is_there_is_not_downloaded(published, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"mine")
    assert obtain(published, "mine", tmp_path) == tmp_path / "a.bin"


def test_no_root_means_the_cache(published, monkeypatch, tmp_path):
    monkeypatch.setenv("SUBLEVEL_CACHE", str(tmp_path / "cache"))
    assert obtain(published, "mine", None, timeout=2) == tmp_path / "cache" / "mine" / "a.bin"
    assert obtain(published, "mine", tmp_path / "elsewhere") == tmp_path / "cache" / "mine" / "a.bin"


def test_wrong_bytes_are_not_kept(published, tmp_path):
    wrong = Remote("a.bin", published.urls[1:], "0" * 32)
    with pytest.raises(DataError, match=f"its md5 is {published.md5}, expected {'0' * 32}"):
        download(wrong, tmp_path / "root")
    assert list((tmp_path / "root").iterdir()) == []


def test_failure_says_what_to_put_where(monkeypatch, tmp_path):
    monkeypatch.setattr(idx, "_MNIST_URLS", (CLOSED,))
    with pytest.raises(DataError) as caught:
        load("mnist", root=tmp_path)
    for part in (
        f"train-images-idx3-ubyte.gz is not in {tmp_path}",
        f"{CLOSED}train-images-idx3-ubyte.gz",
        "md5 f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "into the folder that data.root names",
    ):
        assert part in str(caught.value)


def test_a_folder_that_cannot_be_made_is_named(published, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError, match=r"a.bin is not in .*file/root"):
        download(published, tmp_path / "file" / "root", timeout=2)
