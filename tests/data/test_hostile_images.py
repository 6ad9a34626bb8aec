"""Image folders and archives of somebody else: no program is run, no folder is read twice, no bomb goes off."""

import gzip
import io
import os
import re
import subprocess
import sys
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_sources import digits, image_tree, png, write_tar, write_tree

from sublevel import foreign
from sublevel.data import bounds, images, load, trees
from sublevel.data.images import FORMATS, decode
from sublevel.errors import DataError

EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    b"1 0 0 setrgbcolor 0 0 8 8 rectfill\nshowpage\n%%EOF\n"
)
PLAIN = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


@pytest.fixture
def no_programs(monkeypatch):
    """Fails if anything starts a process, as Pillow does to read EPS."""

    def started(*_, **__):
        pytest.fail("a program was started")

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(os, "system", started)
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    monkeypatch.setattr(EpsImagePlugin, "has_ghostscript", lambda: True)


def saved(kind, **options):
    out = io.BytesIO()
    Image.fromarray(PLAIN).save(out, kind, **options)
    return out.getvalue()


def header_of_png(width, height, body=b"", colours=b""):
    """A PNG whose header says ``width x height``, of one bit a pixel: grey, or one of two colours."""

    def chunk(kind, data):
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([1, 3 if colours else 0, 0, 0, 0])
    palette = chunk(b"PLTE", colours) if colours else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + palette
        + chunk(b"IDAT", zlib.compress(body))
        + chunk(b"IEND", b"")
    )


def packed(root, tree, kind):
    if kind == "folder":
        return write_tree(root / "tree", tree)
    if kind == "tar":
        return write_tar(root / "t.tar", tree)
    with zipfile.ZipFile(root / "t.zip", "w") as archive:
        for name, content in tree.items():
            archive.writestr(name, content)
    return root / "t.zip"


@pytest.mark.parametrize("kind", ["folder", "tar", "zip"])
@pytest.mark.parametrize("name", ["0.png", "0.eps", "0.jpg", "0.PNG"])
def test_a_program_is_refused_under_any_name(tmp_path, no_programs, kind, name):
    root = packed(tmp_path, image_tree() | {f"train/red/{name}": EPS}, kind)
    with pytest.raises(DataError, match=f"image train/red/{name} cannot be read: its content is none of PNG, JPEG"):
        load("folder", root=root, size=4)


DOS = b"\xc5\xd0\xd3\xc6" + (32).to_bytes(4, "little") + len(EPS).to_bytes(4, "little") + bytes(20) + EPS


@pytest.mark.parametrize("content", [DOS, b"%PDF-1.4\n" + EPS, b"\x01\x00\x09\x00" + bytes(40), b"  " + EPS])
def test_other_programs_are_refused(no_programs, content):
    with pytest.raises(DataError, match="is none of"):
        decode(content, "0.png", None, None)


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_of_the_list_is_read_by_its_content(no_programs, kind):
    if kind not in Image.SAVE and kind not in Image.registered_extensions().values():
        pytest.skip(f"this Pillow has no {kind}")
    exact = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}, "AVIF": {"quality": 95}}.get(kind, {})
    for name in ("0.png", "0.gif", "0"):
        pixels = decode(saved(kind, **exact), name, 3, None)
        assert pixels.shape == (4, 4, 3)
        assert np.abs(pixels.astype(int) - PLAIN).mean() < 30, kind


def link(path, target):
    path.symlink_to(target, target_is_directory=True)


@pytest.mark.parametrize(
    "links",
    [
        {"train/red/x": "."},
        {"train/red/x": ".", "train/red/y": "."},
        {"train/red/x": "../.."},
        {"train/red/x": "../blue"},
        {"train/red/x": "/"},
        {"train/green": "red"},
    ],
    ids=str,
)
def test_a_folder_is_not_read_twice(tmp_path, links):
    root = write_tree(tmp_path / "tree", image_tree())
    for name, target in links.items():
        link(root / name, target)
    with pytest.raises(DataError, match=r"'train/\w+(/\w)?' in .* is a link to .*remove the link"):
        load("folder", root=root)


def test_links_that_lead_elsewhere_are_followed(tmp_path):
    tree = image_tree()
    write_tree(tmp_path / "store", tree)
    (tmp_path / "view" / "train").mkdir(parents=True)
    link(tmp_path / "view" / "train" / "red", tmp_path / "store" / "train" / "red")
    link(tmp_path / "view" / "train" / "blue", "../../store/train/blue")
    link(tmp_path / "view" / "test", tmp_path / "store" / "test")
    link(tmp_path / "view" / ".cache", ".")  # hidden, so never entered
    link(tmp_path / "again", "view")
    dataset = load("folder", root=tmp_path / "again")
    assert (len(dataset.train_y), len(dataset.test_y)) == (6, len(load("folder", root=tmp_path / "store").test_y))


def test_a_folder_that_cannot_be_read_is_no_empty_class(tmp_path, monkeypatch):
    root = write_tree(tmp_path, image_tree())
    real = os.scandir

    def refusing(path):
        if str(path).endswith("red"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(DataError, match="red cannot be read: Permission denied"):
        load("folder", root=root)


def test_a_name_that_is_no_text_is_refused(tmp_path):
    root = write_tree(tmp_path / "tree", image_tree())
    os.mkdir(os.fsencode(root) + b"/train/a\xff")
    Path(os.fsdecode(os.fsencode(root) + b"/train/a\xff/0.png")).write_bytes(png())
    with pytest.raises(DataError, match=r"'train/a\\udcff/0.png' in .* is not UTF-8: rename it"):
        load("folder", root=root)
    with tarfile.open(tmp_path / "t.tar", "w", encoding="utf-8", errors="surrogateescape") as archive:
        archive.add(root, arcname=".")
    with pytest.raises(DataError, match="is not UTF-8"):
        load("folder", root=tmp_path / "t.tar")
    assert load("folder", root=write_tree(tmp_path / "é", {f"{c}/{i}.png": png() for c in "äб" for i in range(5)}))


BOMB = """
import re, resource, sys, time
from pathlib import Path
from sublevel.data import load
from sublevel.errors import DataError
for said in sys.argv[1:]:
    source, root = said.split("=", 1)
    began = time.process_time()
    try:
        load(source.removesuffix(" 4"), root=root, **({"size": 4} if source.endswith(" 4") else {}))
        said = "read"
    except DataError as error:
        said = str(error)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "linux":  # ru_maxrss also counts the process that this one was forked from
        memory = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
    print(memory, time.process_time() - began, repr(said))
"""


def bombs(root):
    """Small files that become large, by name."""
    zeros = bytes(2**20)
    with (
        zipfile.ZipFile(root / "one.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("a/0.png", "w", force_zip64=True) as file,
    ):
        for _ in range(300):
            file.write(zeros)
    with zipfile.ZipFile(root / "lies.zip", "w", zipfile.ZIP_BZIP2, compresslevel=1) as archive:
        for i in range(270):
            archive.writestr(f"a/{i}.png", bytes(2**20))
    with tarfile.open(root / "far.tar.xz", "w:xz", preset=0) as archive:
        member = tarfile.TarInfo("notes.txt")
        member.size = 300 * 2**20
        archive.addfile(member, _Zeros(member.size))
    with tarfile.open(root / "head.tar.gz", "w:gz", compresslevel=1) as archive:
        member = tarfile.TarInfo("header")
        member.type, member.size = tarfile.GNUTYPE_LONGNAME, 200 * 2**20
        archive.addfile(member, _Zeros(member.size))
    (root / "one-png" / "a").mkdir(parents=True)
    (root / "one-png" / "a" / "0.png").write_bytes(header_of_png(20_000, 20_000, bytes(2_501 * 20_000)))
    return sorted(root.iterdir())


def test_members_that_are_no_images_are_counted(tmp_path, monkeypatch):
    """Two million of them in 4.5 MB took a minute of the processor."""
    monkeypatch.setattr(trees, "_OTHERS", 20)
    tree = image_tree()
    some = {f"notes/{i}.txt": b"" for i in range(20)}
    write_tar(tmp_path / "some.tar", some | tree)
    assert len(dict(trees.read_files(tmp_path / "some.tar"))) == len(tree)
    write_tar(tmp_path / "many.tar", some | {"notes/20.txt": b""} | tree)
    with tarfile.open(tmp_path / "attributes.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        about = tarfile.TarInfo("notes.txt")
        about.pax_headers = {f"a{i}": "b" for i in range(400)}
        archive.addfile(about)
    for name in ("many", "attributes"):
        with pytest.raises(DataError, match="more than 20 members and headers that are no images"):
            list(trees.read_files(tmp_path / f"{name}.tar"))


def test_the_listing_of_a_zip_is_bounded(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for i in range(1000):
            archive.writestr(f"{i}.txt", b"")
    assert list(trees.read_files(tmp_path / "many.zip")) == []
    monkeypatch.setattr(foreign, "LONGEST_LISTING", 50_000)
    with pytest.raises(DataError, match=r"the listing of its members has 52,890 bytes; allowed: 50,000"):
        list(trees.read_files(tmp_path / "many.zip"))
    with pytest.raises(ValueError, match="the listing of its members"):
        foreign.check_zip(tmp_path / "many.zip")


class _Zeros(io.RawIOBase):
    def __init__(self, n):
        self.n = n

    def read(self, size=-1):
        size = min(self.n if size < 0 else size, self.n)
        self.n -= size
        return bytes(size)


@pytest.mark.slow
def test_bombs_are_refused_in_little_memory(tmp_path):
    (tmp_path / "images").mkdir()
    roots = [f"folder 4={path}" for path in bombs(tmp_path / "images")] + wide_bombs(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(512 * path.stat().st_blocks < 2**21 for path in files)
    done = subprocess.run([sys.executable, "-c", BOMB, *roots], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(roots)
    for root, line in zip(roots, lines, strict=True):
        memory, seconds, said = line.split(" ", 2)
        assert re.search("cannot be read|labels|not a whole idx", said), (root, said)
        assert float(memory) < 2**30, (root, said)
        assert float(seconds) < 10, root


def wide_bombs(root):
    """Small files of many values, which become wider in memory: kept colours, labels and tokens."""
    image = header_of_png(5_000, 5_000, bytes(626 * 5_000), bytes(6))
    tree = {f"{c}/{i}.png": image for c in "ab" for i in range(5)}
    write_tree(root / "kept", tree)
    write_tar(root / "kept.tar", tree)
    (root / "digits").mkdir()
    digits(root / "digits")
    many = 250 * 2**20
    with gzip.open(root / "digits" / "train-labels-idx1-ubyte.gz", "wb", compresslevel=1) as file:
        file.write(bytes([0, 0, 8, 1]) + many.to_bytes(4, "big"))
        for _ in range(250):
            file.write(bytes(2**20))
    with zipfile.ZipFile(root / "tokens.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, shape in {"train_x": (many // 4, 4), "train_y": (4,), "test_x": (1, 4), "test_y": (1,)}.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array_header_1_0(file, {"descr": "|i1", "fortran_order": False, "shape": shape})
                for begin in range(0, np.prod(shape), 2**20):
                    file.write(bytes(min(2**20, int(np.prod(shape)) - begin)))
    (root / "shards").mkdir()
    for name, shape in {
        "train_x": (2**38, 1, 1, 1),
        "train_y": (2**38,),
        "test_x": (1, 1, 1, 1),
        "test_y": (1,),
    }.items():
        with (root / "shards" / f"{name}-0.npy").open("wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
            file.truncate(file.tell() + int(np.prod(shape)))
    return [
        f"folder={root / 'kept'}", f"folder={root / 'kept.tar'}", f"mnist={root / 'digits'}",
        f"arrays={root / 'tokens.npz'}", f"shards={root / 'shards'}",
    ]  # fmt: skip


def test_images_that_are_kept_have_to_fit_into_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(bounds, "free", lambda: 1_000)
    monkeypatch.setattr(images, "FREE", 0)
    root = write_tree(tmp_path, {f"{c}/{i}.png": png() for c in "ab" for i in range(5)})
    assert len(load("folder", root=root, size=5).train_y) == 8
    with pytest.raises(
        DataError, match=r"a/1.png cannot be read: it takes 1,176 bytes, and 1,000 bytes of memory are fr"
    ):
        load("folder", root=root, size=14)


def test_a_tree_of_many_plain_images_is_a_bomb(tmp_path):
    big = header_of_png(5_000, 5_000, bytes(626 * 5_000))
    assert len(big) < 10_000
    root = write_tree(tmp_path, {f"{c}/{i}.png": big for c in "ab" for i in range(10)})
    with pytest.raises(DataError, match="bytes become more than 268,435,456: this is a compression bomb"):
        load("folder", root=root, size=2)


def test_plain_images_are_no_bomb(tmp_path):
    """A white page of 6 million pixels, and an archive of flat pictures that shrinks fifty times."""
    out = io.BytesIO()
    Image.new("RGB", (3_000, 2_000), "white").save(out, "PNG")
    assert decode(out.getvalue(), "0.png", None, 4).shape == (4, 4, 3)
    flat = io.BytesIO()
    Image.new("L", (64, 64)).save(flat, "BMP")
    tree = {f"{c}/{i}.bmp": flat.getvalue() for c in "ab" for i in range(200)}
    assert len(load("folder", root=write_tar(tmp_path / "t.tar.xz", tree, "w:xz")).train_y) == 320


def test_sparse_and_giant_members_are_refused(tmp_path):
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        member = tarfile.TarInfo("a/0.png")
        member.size = 10
        archive.addfile(member, io.BytesIO(b"0123456789"))
    data = bytearray((tmp_path / "t.tar").read_bytes())
    data[124:136] = b"\x80" + (2**50).to_bytes(11, "big")  # the size, in base 256
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    (tmp_path / "t.tar").write_bytes(data)
    with pytest.raises(DataError, match=r"cannot be read as a tar or zip archive: a/0.png has 1,125,899,906,842,624"):
        load("folder", root=tmp_path / "t.tar")
