"""CIFAR binaries: records, archives, and archives that are not the original."""

import hashlib

import pytest
import torch
from tiny_sources import cifar_files, cifar_folder, write_tar

from sublevel.data import load
from sublevel.data.cifar import CIFAR10, CIFAR100, read_archive, read_folder
from sublevel.errors import DataError


def pack(tmp_path, layout, files):
    path = write_tar(tmp_path / layout.remote.file, {f"{layout.folder}/{name}": raw for name, raw in files.items()})
    return path, hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("layout", [CIFAR10, CIFAR100], ids=lambda layout: layout.name)
def test_records_are_read_in_order(tmp_path, layout):
    path, md5 = pack(tmp_path, layout, cifar_files(layout))
    dataset = read_archive(layout, path, md5)
    files = len(layout.train)
    assert dataset.train_x.shape == (4 * files, 3, 32, 32)
    assert dataset.train_x[:, 0, 0, 0].tolist() == [0, 1, 2, 3] * files
    assert dataset.train_x[:, 0, 0, 1].tolist() == [f for f in range(files) for _ in range(4)]
    assert dataset.train_y.tolist() == [(r + f) % 10 for f in range(files) for r in range(4)]
    assert dataset.test_y.tolist() == [(r + files) % 10 for r in range(4)]
    assert dataset.classes[0] == "class-0"
    assert md5 in dataset.origin


def test_archive_and_folder_agree(tmp_path):
    path, md5 = pack(tmp_path, CIFAR10, cifar_files(CIFAR10))
    cifar_folder(CIFAR10)(tmp_path)
    packed, plain = read_archive(CIFAR10, path, md5), load("cifar10", root=tmp_path)
    assert torch.equal(packed.train_x, plain.train_x)
    assert torch.equal(packed.test_y, plain.test_y)
    inside = load("cifar10", root=tmp_path / CIFAR10.folder)
    assert torch.equal(inside.train_x, plain.train_x)


@pytest.mark.parametrize("direct", [True, False])
def test_another_archive_is_refused_with_both_hashes(tmp_path, direct):
    path, md5 = pack(tmp_path, CIFAR10, cifar_files(CIFAR10))
    with pytest.raises(DataError, match=f"expected md5 {CIFAR10.remote.md5}, got {md5}"):
        load("cifar10", root=path if direct else tmp_path)


def test_a_cut_archive_is_refused(tmp_path):
    path, _ = pack(tmp_path, CIFAR10, cifar_files(CIFAR10))
    path.write_bytes(path.read_bytes()[:-5000])
    md5 = hashlib.md5(path.read_bytes()).hexdigest()
    with pytest.raises(DataError, match=r"cannot be read as a gzip-compressed tar|has no"):
        read_archive(CIFAR10, path, md5)


def test_a_missing_and_a_cut_file_are_named(tmp_path):
    folder = tmp_path / CIFAR10.folder
    cifar_folder(CIFAR10)(tmp_path)
    (folder / "data_batch_3.bin").write_bytes(bytes(3073 + 1))
    with pytest.raises(DataError, match=r"data_batch_3.bin in .* has 3,074 bytes; expected a multiple of 3,073"):
        read_folder(CIFAR10, folder)
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"has no data_batch_3.bin; cifar10 needs data_batch_1.bin"):
        read_folder(CIFAR10, folder)
