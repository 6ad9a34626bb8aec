"""Image folders and archives of them: the same tensors from each, and every refusal in words."""

import io
import lzma
import re
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_sources import image_tree, png, write_tar, write_tree

from sublevel.data import folder as folder_module
from sublevel.data import load, split
from sublevel.errors import ConfigError, DataError


def same(a, b):
    fields = ("train_x", "train_y", "test_x", "test_y")
    return a.classes == b.classes and all(torch.equal(getattr(a, f), getattr(b, f)) for f in fields)


def zipped(path, tree):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return path


def test_known_pixels(tmp_path):
    dataset = load("folder", root=write_tree(tmp_path, image_tree()))
    assert dataset.classes == ("blue", "red")
    assert dataset.train_x.shape == (6, 3, 6, 4)
    assert dataset.train_y.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.train_x[:, :, 0, 0].tolist() == [[0, i, 200] for i in range(3)] + [[200, i, 0] for i in range(3)]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_any_tar_with_leading_folders_agrees_with_the_folder(tmp_path, mode):
    tree = image_tree()
    shuffled = {f"./data/v1/{name}": tree[name] for name in sorted(tree, reverse=True)}
    plain = load("folder", root=write_tree(tmp_path / "tree", tree))
    assert same(plain, load("folder", root=write_tar(tmp_path / "images", shuffled, mode)))


def test_a_zip_agrees_with_the_folder(tmp_path):
    extra = {"__MACOSX/train/red/._0.png": b"x", "top/.DS_Store": b"x", "top/README.txt": b"x"}
    tree = {f"top/{name}": content for name, content in image_tree().items()}
    plain = load("folder", root=write_tree(tmp_path / "tree", image_tree()))
    assert same(plain, load("folder", root=zipped(tmp_path / "i.zip", tree | extra)))


def test_one_level_is_held_out_by_class(tmp_path):
    root = write_tree(tmp_path, image_tree(splits=("",), per_class=10))
    dataset = load("folder", root=root)
    assert torch.bincount(dataset.train_y).tolist() == [8, 8]
    assert torch.bincount(dataset.test_y).tolist() == [2, 2]
    assert same(dataset, load("folder", root=root))
    assert len(load("folder", root=root, test_fraction=0.5).test_y) == 10


def test_links_and_paths_that_leave_are_passed_over(tmp_path):
    path = tmp_path / "i.tar"
    with tarfile.open(path, "w") as archive:
        for name, content in {**image_tree(), "/etc/a.png": b"x", "train/../../b.png": b"x"}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("train/red/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert len(load("folder", root=path).train_y) == 6
    assert not (tmp_path.parent / "b.png").exists()


def test_grey_and_colour(tmp_path):
    tree = {f"{name}/{i}.png": png(10 + i, mode="L") for name in "ab" for i in range(4)}
    root = write_tree(tmp_path, tree)
    grey = load("folder", root=root, test_fraction=0.5)
    assert grey.train_x.shape[1] == 1
    assert load("folder", root=root, channels=3, test_fraction=0.5).train_x.shape[1] == 3
    write_tree(tmp_path, {"a/9.png": png((9, 8, 7))})
    mixed = load("folder", root=root, test_fraction=0.5)
    assert mixed.train_x.shape[1] == 3
    assert load("folder", root=root, channels=1, test_fraction=0.5).train_x.shape[1] == 1


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    for name in "ab":
        for i in range(2):
            path = tmp_path / name / f"{i}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((3, 3), 0x1234, np.uint16)).save(path)
    assert load("folder", root=tmp_path, test_fraction=0.5).train_x.unique().tolist() == [0x12]


def test_unequal_sizes_name_two_files_and_the_way_out(tmp_path):
    root = write_tree(tmp_path, image_tree() | {"train/red/big.png": png(size=(8, 8))})
    message = "test/blue/0.png is 6 x 4, train/red/big.png is 8 x 8; data.options.size=32"
    with pytest.raises(DataError, match=re.escape(message)):
        load("folder", root=root)
    assert load("folder", root=root, size=5).train_x.shape == (7, 3, 5, 5)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"notes.txt": b"x"}, "has no image that Pillow can read"),
        ({"red/0.png": png(), "red/1.png": png()}, "there is one class only, 'red'"),
        (image_tree() | {"train/red/bad.png": b"\x89PNG no"}, "image train/red/bad.png cannot be read"),
        (image_tree() | {"test/green/0.png": png()}, "classes in test but not in train: green; both must"),
        (image_tree(splits=("train",)), "the top folders are train; allowed: train and test, or the classes"),
        (image_tree(splits=("",)) | {"0.png": png()}, "image 0.png is in no class folder"),
        ({f"{c}/0.png": png() for c in "ab"}, "too few images to hold out 0.2 of each class"),
    ],
)
def test_refusals(tmp_path, tree, message):
    with pytest.raises(DataError, match=re.escape(message)):
        load("folder", root=write_tree(tmp_path, tree))


@pytest.mark.parametrize("options", [{"channels": 2}, {"size": 0}, {"size": 1.5}, {"test_fraction": 1.0}])
def test_impossible_options(tmp_path, options):
    with pytest.raises(ConfigError, match=f"data.options.{next(iter(options))} is .*; allowed: "):
        load("folder", root=tmp_path, **options)


def test_a_missing_root_is_named(tmp_path):
    with pytest.raises(DataError, match="nowhere, which does not exist"):
        load("folder", root=tmp_path / "nowhere")


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.xz", "zip"])
def test_a_cut_archive_is_refused(tmp_path, suffix):
    tree = image_tree(per_class=40)
    path = tmp_path / f"i.{suffix}"
    if suffix == "zip":
        zipped(path, tree)
    else:
        write_tar(path, tree, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[suffix])
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 5 // 512 * 512 + 600])
    with pytest.raises(DataError, match=f"i.{suffix} cannot be read as a tar or zip archive"):
        load("folder", root=path)


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "x.tar.xz"
    path.write_bytes(lzma.compress(b"not a tar" * 200))
    with pytest.raises(DataError, match="cannot be read as a tar or zip archive"):
        load("folder", root=path)


def test_decoded_once(tmp_path, monkeypatch):
    root = write_tree(tmp_path, image_tree())
    first = load("folder", root=root)
    with monkeypatch.context() as patch:
        patch.setattr(folder_module, "_decode_all", lambda *_: pytest.fail("decoded again"))
        second = load("folder", root=root)
    assert split(first).digest == split(second).digest
    write_tree(tmp_path, {"train/red/9.png": png()})
    assert len(load("folder", root=root).train_y) == 7


def test_a_damaged_cache_is_decoded_again(tmp_path):
    root = write_tree(tmp_path, image_tree())
    first = load("folder", root=root)
    (file,) = (folder_module.cache_dir() / "folder").iterdir()
    raw = bytearray(file.read_bytes())
    for damaged in (raw[:-20], raw.replace(b"\xc8", b"\xc9", 3), b""):
        file.write_bytes(damaged)
        assert same(first, load("folder", root=root))
        assert file.read_bytes() == raw


def test_an_unwritable_cache_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SUBLEVEL_CACHE", str(tmp_path / "file" / "cache"))
    assert len(load("folder", root=write_tree(tmp_path / "tree", image_tree())).train_y) == 6
