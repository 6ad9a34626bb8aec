"""A tiny source of each registered kind, built in a folder: name -> function (folder) -> (root, options)."""

from __future__ import annotations

import gzip
import io
import tarfile

import numpy as np
import torch
from PIL import Image

from sublevel.data.cifar import CIFAR10, CIFAR100
from sublevel.data.idx import format_idx

COLOURS = {"blue": (0, 0, 200), "red": (200, 0, 0)}


def digits(folder):
    rng = np.random.default_rng(0)
    for part, n in (("train", 20), ("t10k", 10)):
        x = torch.from_numpy(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        y = torch.arange(n, dtype=torch.uint8) % 10
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(gzip.compress(format_idx(x)))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(format_idx(y))
    return folder, {}


def cifar_files(layout, per_file=4):
    """File name -> bytes. Record r of file f has label (r + f) % 10 and starts with pixels r, f."""
    rng = np.random.default_rng(0)
    files = {}
    for f, name in enumerate((*layout.train, *layout.test)):
        rows = rng.integers(0, 256, (per_file, layout.label_bytes + 3072), dtype=np.uint8)
        rows[:, layout.label_bytes - 1] = (np.arange(per_file) + f) % 10
        rows[:, layout.label_bytes] = np.arange(per_file)
        rows[:, layout.label_bytes + 1] = f
        files[name] = rows.tobytes()
    files[layout.meta] = "\n".join(f"class-{i}" for i in range(10)).encode() + b"\n"
    return files


def cifar_folder(layout):
    def build(folder):
        inside = folder / layout.folder
        inside.mkdir()
        for name, content in cifar_files(layout).items():
            (inside / name).write_bytes(content)
        return folder, {}

    return build


def png(colour=(200, 0, 0), size=(4, 6), mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, "PNG")
    return file.getvalue()


def image_tree(splits=("train", "test"), per_class=3):
    """Relative path -> bytes; image i of a class has the colour of its class with green = i."""
    return {
        "/".join(filter(None, (part, name, f"{i}.png"))): png((r, i, b))
        for part in splits
        for name, (r, _, b) in COLOURS.items()
        for i in range(per_class)
    }


def write_tree(folder, tree):
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def write_tar(path, tree, mode="w:gz"):
    with tarfile.open(path, mode) as archive:
        for name, content in tree.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def images(folder):
    return write_tree(folder, image_tree()), {"channels": 3}


def npz(folder):
    rng = np.random.default_rng(0)
    path = folder / "mine.npz"
    x = rng.integers(0, 256, (12, 8, 8), dtype=np.uint8)
    np.savez(path, train_x=x[:8], train_y=np.arange(8) % 3, test_x=x[8:], test_y=np.arange(4) % 3)
    return path, {"classes": ["a", "b", "c"]}


def sharded(folder, data, shards=3):
    """The arrays in so many files each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in data.items():
        x = array[:, None] if name.endswith("_x") and array.dtype == np.uint8 and array.ndim == 3 else array
        for i, part in enumerate(np.array_split(x, shards)):
            np.save(folder / f"{name}-{i:03}.npy", part)
    return folder


def shards(folder):
    path, options = npz(folder)
    with np.load(path) as data:
        return sharded(folder / "shards", data), options


def tokens(folder):
    folder.mkdir(exist_ok=True)
    for name in ("train", "val"):
        (np.arange(50) % 7).astype(np.uint16).tofile(folder / f"{name}.bin")
    return folder, {"length": 6}


BUILD = {
    "arrays": npz,
    "cifar10": cifar_folder(CIFAR10),
    "cifar100": cifar_folder(CIFAR100),
    "fashion-mnist": digits,
    "fashion-mnist-small": lambda folder: (None, {}),
    "folder": images,
    "mnist": digits,
    "shards": shards,
    "tokens": tokens,
}
