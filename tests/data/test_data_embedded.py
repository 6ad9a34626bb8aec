"""The embedded data set: balanced, known, and never read when damaged."""

import gzip

import pytest
import torch

from sublevel.data import builtin, load
from sublevel.errors import DataError


def test_known_content():
    dataset = load("fashion-mnist-small")
    assert dataset.train_x.shape == (10_000, 1, 28, 28)
    assert dataset.test_x.shape == (2_000, 1, 28, 28)
    assert torch.bincount(dataset.train_y).tolist() == [1000] * 10
    assert torch.bincount(dataset.test_y).tolist() == [200] * 10
    assert dataset.train_y[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]  # as the published file starts
    assert dataset.classes[9] == "Ankle boot"
    assert "MIT" in dataset.origin


def test_the_licence_is_beside_it():
    text = (builtin.files("sublevel.data") / "embedded" / "LICENSE.fashion-mnist.txt").read_text()
    assert "Zalando" in text
    assert "MIT License" in text


@pytest.mark.parametrize("damage", ["flip", "cut", "other"])
def test_a_damaged_file_is_refused(damage):
    packed = gzip.compress(bytes(1000))
    good = builtin.hashlib.sha256(bytes(1000)).hexdigest()
    assert builtin.unpack(packed, "x.gz", good) == bytes(1000)
    bad = {"flip": packed[:-9] + b"\xff" + packed[-8:], "cut": packed[:-4], "other": gzip.compress(b"no")}[damage]
    with pytest.raises(DataError, match=f"embedded file x.gz is damaged: expected sha256 {good}, got "):
        builtin.unpack(bad, "x.gz", good)
