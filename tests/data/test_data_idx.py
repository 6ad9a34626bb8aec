"""The idx format, and what is said of a file that is not one."""

import gzip

import pytest
import torch
from tiny_sources import digits

from sublevel.data import load
from sublevel.data.idx import format_idx, parse_idx, read_idx
from sublevel.errors import DataError


def test_known_bytes():
    raw = bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 5, 6, 7])
    array, end = parse_idx(raw, 2)
    assert array.tolist() == [[5, 6, 7]]
    assert end == 15
    assert format_idx(array) == raw


def test_compressed_or_not_in_the_usual_folders(tmp_path):
    inside = tmp_path / "MNIST" / "raw"
    inside.mkdir(parents=True)
    digits(inside)
    dataset = load("mnist", root=tmp_path)
    assert dataset.train_x.shape == (20, 1, 28, 28)
    assert dataset.test_y.tolist() == list(range(10))
    assert "train-images-idx3-ubyte.gz" in dataset.origin


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (format_idx(torch.zeros(4, dtype=torch.uint8))[:-1], r"expected 12 bytes for shape \[4\], got 11"),
        (format_idx(torch.zeros(4, dtype=torch.uint8)) + b"x", "expected 12 bytes, got 13"),
        (b"<html>", "expected it to start with 0x00000801, got 0x3c68746d"),
        (gzip.compress(b"abc", mtime=0)[:-2], "Compressed file ended"),
        (b"", "got 0x;"),
    ],
    ids=["short", "long", "page", "cut", "empty"],
)
def test_a_broken_file_is_named_with_both_hashes(tmp_path, raw, message):
    path = tmp_path / "labels"
    path.write_bytes(raw)
    with pytest.raises(DataError, match=f"labels is not a whole idx file.*{message}.*md5 is .*published file's feed"):
        read_idx(path, 1, published="feed")
