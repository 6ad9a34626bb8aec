"""Token shards: windows with the next token as label, read from memory-mapped files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sublevel import data
from sublevel.errors import ConfigError, DataError

TRAIN, TEST = np.arange(23) % 11, np.arange(9) % 7


def folder(path: Path, suffix: str = ".bin", kind: type = np.uint16) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    for name, tokens in (("train", TRAIN), ("val", TEST)):
        if suffix == ".npy":
            np.save(path / f"{name}.npy", tokens.astype(kind))
        else:
            tokens.astype(kind).tofile(path / f"{name}.bin")
    return path


@pytest.mark.parametrize(("suffix", "kind"), [(".bin", np.uint16), (".npy", np.uint16), (".npy", np.uint32)])
def test_windows_are_the_tokens_and_the_next_ones(tmp_path: Path, suffix: str, kind: type):
    found = data.load("tokens", root=folder(tmp_path, suffix, kind), length=4)
    stream = torch.from_numpy(TRAIN).long()
    assert found.train_x.shape == (5, 4)
    assert found.train_x.dtype == found.train_x[:].dtype == torch.int64
    assert torch.equal(found.train_x[:], stream[:20].view(5, 4))
    assert torch.equal(found.train_y, stream[1:21].view(5, 4))
    assert len(found.classes) == 11
    assert len(data.load("tokens", root=tmp_path, length=4, vocabulary=50_257).classes) == 50_257


def test_shards_headers_and_a_choice_of_windows(tmp_path: Path):
    for i in range(3):
        header = np.zeros(256, np.int32)
        header[0] = 20240520
        with (tmp_path / f"train_{i}.bin").open("wb") as file:
            file.write(header.tobytes() + (TRAIN + i).astype(np.uint16).tobytes())
    folder(tmp_path / "b")
    (tmp_path / "b" / "val.bin").rename(tmp_path / "test.bin")
    every = data.load("tokens", root=tmp_path, length=4)
    assert every.train_x.shape == (15, 4)
    assert every.train_x[:][5].tolist() == (TRAIN[:4] + 1).tolist()
    few = data.load("tokens", root=tmp_path, length=4, windows=3)
    assert torch.equal(few.train_x[:], every.train_x[:][[0, 7, 14]])
    assert torch.equal(few.train_y, every.train_y[[0, 7, 14]])
    assert len(data.split(few, validation=0, train_size=2).train.x[torch.tensor([1, 0])]) == 2


def test_files_are_not_read_whole(tmp_path: Path):
    """A sparse file of 4 GB: reading it would take minutes and the memory."""
    folder(tmp_path)
    with (tmp_path / "train.bin").open("r+b") as file:
        file.truncate(2**32)
    found = data.load("tokens", root=tmp_path, length=8, windows=16, vocabulary=11)
    assert len(found.train_x) == 16
    assert found.train_y.shape == (16, 8)


def test_what_is_no_token_file_is_refused(tmp_path: Path):
    with pytest.raises(DataError, match=r"has no train\*.bin, train\*.npy"):
        data.load("tokens", root=tmp_path)
    folder(tmp_path)
    with pytest.raises(DataError, match="has 23 tokens; a window of 256 needs 257"):
        data.load("tokens", root=tmp_path)
    with pytest.raises(DataError, match=r"holds the token 10; allowed: 0..4 \(data.options.vocabulary\)"):
        data.load("tokens", root=tmp_path, length=4, vocabulary=5)
    with pytest.raises(ConfigError, match=r"data.options.dtype is 'int8'; allowed: uint16, uint32"):
        data.load("tokens", root=tmp_path, length=4, dtype="int8")
    (tmp_path / "train.bin").write_bytes(b"abc")
    with pytest.raises(DataError, match="its 3 bytes are no whole number of uint16 tokens"):
        data.load("tokens", root=tmp_path, length=4)
    np.save(tmp_path / "train.npy", np.zeros((2, 2)))
    (tmp_path / "train.bin").unlink()
    with pytest.raises(DataError, match=r"it holds float64 \[2, 2\]"):
        data.load("tokens", root=tmp_path, length=4)
