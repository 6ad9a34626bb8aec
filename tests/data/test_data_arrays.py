"""Arrays of one's own."""

import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sublevel.data import load
from sublevel.errors import DataError


def good(**change):
    x = np.arange(4 * 5 * 5, dtype=np.uint8).reshape(4, 5, 5)
    return {
        "train_x": x,
        "train_y": np.array([0, 1, 2, 1]),
        "test_x": x,
        "test_y": np.array([0, 1, 1, 0]),
    } | change


def npz(path, **arrays):
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def test_images_get_a_channel_and_labels_their_own_names(tmp_path):
    dataset = load("arrays", root=npz(tmp_path / "a.npz", **good()))
    assert dataset.train_x.shape == (4, 1, 5, 5)
    assert dataset.train_x[0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert dataset.train_y.dtype == torch.int64
    assert dataset.classes == ("0", "1", "2")
    assert dataset.origin == "arrays of the file a.npz"


def test_safetensors_agree_and_floats_become_float32(tmp_path):
    arrays = good(train_x=np.eye(4), test_x=np.eye(4), train_y=np.ones(4), test_y=np.ones(4))
    save_file({name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / "a.safetensors")
    one, two = (load("arrays", root=p) for p in (tmp_path / "a.safetensors", npz(tmp_path / "a.npz", **arrays)))
    assert one.train_x.dtype == torch.float32
    assert one.train_y.dtype == torch.float64  # targets are kept as they are
    assert one.classes == ()
    assert torch.equal(one.train_x, two.train_x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_y": None}, "has no test_y; found: test_x, train_x, train_y; expected: train_x"),
        (
            {"train_x": np.array([{}, 1, 2, 3], dtype=object)},
            "cannot be read as .npz or .safetensors: Object arrays",
        ),
        ({"train_x": np.zeros((4, 5, 5), np.int64)}, "is torch.int64 [4, 5, 5]; allowed: uint8 [N, C, H, W]"),
        (
            {"train_x": np.zeros((4, 9, 9, 3), np.uint8)},
            "has shape [4, 9, 9, 3], channels last; expected [N, C",
        ),
        ({"train_y": np.array([True, False, True, True])}, "is torch.bool; allowed: integer labels"),
        ({"train_y": np.array([0, 1, -2, 1])}, "train: label -2 at index 2; allowed: 0..1"),
        ({"train_y": np.array(["a", "b", "c", "d"])}, "cannot be read as .npz or .safetensors"),
    ],
)
def test_refusals(tmp_path, change, message):
    with pytest.raises(DataError, match=re.escape(message)):
        load("arrays", root=npz(tmp_path / "a.npz", **good(**change)))


@pytest.mark.parametrize("name", ["a.npz", "a.safetensors", "a.csv"])
def test_a_file_of_another_kind(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the sort")
    with pytest.raises(DataError, match=f"{name} cannot be read as .npz or .safetensors"):
        load("arrays", root=tmp_path / name)


def test_no_root():
    with pytest.raises(DataError, match=r"data.root must be an .npz or .safetensors file, got None"):
        load("arrays")
