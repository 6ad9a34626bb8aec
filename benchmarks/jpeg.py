"""Many small JPEG images at once, with NumPy alone: for machines that have no image library.

Baseline images (ITU T.81) of one size whose files share their tables, as one program writes them, are decoded
in lockstep: every step reads the next symbol of all of them. Chrominance that was halved comes back by the triangle
filter of libjpeg. Values differ from those of libjpeg by a few units at most: its cosine transform is in integers.
Where Pillow is installed, use Pillow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

CHUNK = 10_000
"""Images decoded at once."""

SEGMENTS = {0xC0: "frame", 0xC4: "huffman", 0xDB: "quantisation", 0xDA: "scan", 0xDD: "restart"}


def zigzag() -> np.ndarray:
    """Place in the 8 x 8 block of the i-th coefficient of a file."""
    order = sorted(((y, x) for y in range(8) for x in range(8)), key=lambda p: (sum(p), p[(sum(p) + 1) % 2]))
    return np.array([y * 8 + x for y, x in order])


def cosines() -> np.ndarray:
    """[64 coefficients, 64 pixels] of the inverse transform."""
    u, x = np.arange(8)[:, None], np.arange(8)[None]
    basis = np.where(u == 0, np.sqrt(0.5), 1.0) / 2 * np.cos((2 * x + 1) * u * np.pi / 16)
    return np.einsum("ua,vb->uvab", basis, basis).reshape(64, 64)


@dataclass
class Header:
    """What precedes the coded data."""

    height: int = 0
    width: int = 0
    parts: list[tuple[int, int, int]] = field(default_factory=list)
    """(horizontal, vertical, table) of Y, Cb, Cr."""
    tables: dict[int, np.ndarray] = field(default_factory=dict)
    codes: dict[int, np.ndarray] = field(default_factory=dict)
    """Class and number -> for every 16 bits, length * 256 + symbol; length 0 is no code."""
    chosen: list[tuple[int, int]] = field(default_factory=list)
    """Number of the DC and of the AC codes of every part."""


def header_of(data: bytes) -> tuple[bytes, int]:
    """The bytes before the coded data, and where that begins. ValueError for what is no such image."""
    if data[:2] != b"\xff\xd8":
        raise ValueError("not a JPEG image")
    at = 2
    while at + 4 <= len(data):
        if data[at] != 0xFF:
            raise ValueError("a damaged JPEG image")
        marker, size = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        at += 2 + size
        if marker == 0xDA:
            return data[:at], at
        if 0xC1 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            raise ValueError("only baseline JPEG images are read")
    raise ValueError("a JPEG image that ends in its header")


def parse(head: bytes) -> Header:
    """The tables of a header."""
    found, at = Header(), 2
    while at < len(head):
        marker, size = head[at + 1], int.from_bytes(head[at + 2 : at + 4], "big")
        body, at = head[at + 4 : at + 2 + size], at + 2 + size
        kind = SEGMENTS.get(marker)
        if kind == "quantisation":
            while body:
                if body[0] >> 4:
                    raise ValueError("quantisation of 16 bits is not read")
                found.tables[body[0]] = np.frombuffer(body[1:65], np.uint8).astype(np.float32)
                body = body[65:]
        elif kind == "huffman":
            while body:
                counts = body[1:17]
                symbols = body[17 : 17 + sum(counts)]
                found.codes[body[0]] = lookup(counts, symbols)
                body = body[17 + sum(counts) :]
        elif kind == "frame":
            found.height, found.width = (int.from_bytes(body[i : i + 2], "big") for i in (1, 3))
            found.parts = [(body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15, body[8 + 3 * i]) for i in range(body[5])]
        elif kind == "scan":
            found.chosen = [(body[2 + 2 * i] >> 4, body[2 + 2 * i] & 15) for i in range(body[0])]
        elif kind == "restart" and any(body):
            raise ValueError("restart intervals are not read")
    if len(found.parts) not in (1, 3) or len(found.chosen) != len(found.parts):
        raise ValueError("only images of one scan, grey or in YCbCr, are read")
    return found


def lookup(counts: Sequence[int], symbols: bytes) -> np.ndarray:
    """Length * 256 + symbol for every 16 bits that may come (T.81, annex C)."""
    table, code, used = np.zeros(2**16, np.int32), 0, 0
    for length, count in enumerate(counts, start=1):
        for _ in range(count):
            first = code << (16 - length)
            table[first : first + 2 ** (16 - length)] = length * 256 + symbols[used]
            code, used = code + 1, used + 1
        code <<= 1
    return table


class Bits:
    """Where each of n streams of bits is read."""

    def __init__(self, streams: Sequence[bytes]) -> None:
        self.rows = np.zeros((len(streams), max(map(len, streams)) + 8), np.int64)
        for row, stream in zip(self.rows, streams, strict=True):
            row[: len(stream)] = np.frombuffer(stream, np.uint8)
        self.at = np.zeros(len(streams), np.int64)
        self.ends = np.array([8 * len(s) for s in streams])

    def peek(self, who: np.ndarray) -> np.ndarray:
        """The next 16 bits of some streams."""
        at = self.at[who]
        byte, shift = np.minimum(at >> 3, self.rows.shape[1] - 3), at & 7
        wide = (self.rows[who, byte] << 16) | (self.rows[who, byte + 1] << 8) | self.rows[who, byte + 2]
        return (wide >> (8 - shift)) & 0xFFFF

    def symbols(self, who: np.ndarray, table: np.ndarray) -> np.ndarray:
        """A symbol of each."""
        found = table[self.peek(who)]
        if (found < 256).any() or (self.at[who] > self.ends[who]).any():
            raise ValueError("a damaged JPEG image: its data are no code")
        self.at[who] += found >> 8
        return found & 255

    def numbers(self, who: np.ndarray, size: np.ndarray) -> np.ndarray:
        """A signed number of so many bits of each (T.81, F.2.2.1)."""
        value = self.peek(who) >> (16 - size)
        self.at[who] += size
        return np.where(value < (1 << size) >> 1, value - (1 << size) + 1, value)


def decode(files: Sequence[bytes]) -> np.ndarray:
    """uint8 [N, height, width, 3] of N files of one size. ValueError for what is none of these images."""
    groups: dict[bytes, list[int]] = {}
    starts = []
    for i, data in enumerate(files):
        head, start = header_of(data)
        groups.setdefault(head, []).append(i)
        starts.append(start)
    out: np.ndarray | None = None
    for head, rows in groups.items():
        header = parse(head)
        out = np.empty((len(files), header.height, header.width, 3), np.uint8) if out is None else out
        if out.shape[1:3] != (header.height, header.width):
            raise ValueError("images of several sizes")
        for begin in range(0, len(rows), CHUNK):
            some = rows[begin : begin + CHUNK]
            ends = [files[i].rfind(b"\xff\xd9") for i in some]
            streams = [
                files[i][starts[i] : end].replace(b"\xff\x00", b"\xff") for i, end in zip(some, ends, strict=True)
            ]
            out[some] = _images(header, Bits(streams))
    if out is None:
        raise ValueError("no images")
    return out


def _images(header: Header, bits: Bits) -> np.ndarray:
    """uint8 [n, height, width, 3] of files with one header."""
    h, v = max(p[0] for p in header.parts), max(p[1] for p in header.parts)
    down, across = -(-header.height // (8 * v)), -(-header.width // (8 * h))
    n, order, inverse = len(bits.at), zigzag(), cosines().astype(np.float32)
    everyone, last = np.arange(n), [np.zeros(n, np.int64) for _ in header.parts]
    planes = [np.empty((n, down * 8 * p[1], across * 8 * p[0]), np.float32) for p in header.parts]
    for row in range(down):
        for column in range(across):
            for i, ((wide, high, number), (dc, ac)) in enumerate(zip(header.parts, header.chosen, strict=True)):
                for block in range(wide * high):
                    y, x = row * high + block // wide, column * wide + block % wide
                    found = _block(bits, everyone, last[i], header.codes[dc], header.codes[16 + ac])
                    natural = np.zeros((n, 64), np.float32)
                    natural[:, order] = found * header.tables[number]
                    planes[i][:, 8 * y : 8 * y + 8, 8 * x : 8 * x + 8] = (natural @ inverse).reshape(n, 8, 8)
    whole = [np.clip(np.rint(p + 128), 0, 255) for p in planes]
    full = [_upsampled(p, v // part[1], h // part[0]) for p, part in zip(whole, header.parts, strict=True)]
    return _rgb([p[:, : header.height, : header.width] for p in full])


def _block(bits: Bits, everyone: np.ndarray, last: np.ndarray, dc: np.ndarray, ac: np.ndarray) -> np.ndarray:
    """float32 [n, 64], in the order of the file; ``last`` holds the DC values so far."""
    out = np.zeros((len(everyone), 64), np.float32)
    last += bits.numbers(everyone, bits.symbols(everyone, dc))
    out[:, 0] = last
    who, at = everyone, np.zeros(len(everyone), np.int64)
    while len(who):
        symbol = bits.symbols(who, ac)
        run, size = symbol >> 4, symbol & 15
        going = (symbol != 0) & (at + run < 63)
        who, at, size, run, jump = who[going], at[going], size[going], run[going], (symbol == 0xF0)[going]
        at = at + run + 1
        value = bits.numbers(who, size)
        out[who, at] = np.where(jump, 0, value)
        left = at < 63
        who, at = who[left], at[left]
    return out


def _upsampled(plane: np.ndarray, down: int, across: int) -> np.ndarray:
    """Twice as many rows or columns, by libjpeg's triangle filter: three quarters of the near one, one of the far."""
    if (down, across) == (1, 1):
        return plane
    if (down, across) not in ((2, 2), (1, 2)):
        raise ValueError(f"chrominance that was reduced {down} x {across} is not read")
    if down == 2:
        above = np.concatenate([plane[:, :1], plane[:, :-1]], 1)
        below = np.concatenate([plane[:, 1:], plane[:, -1:]], 1)
        plane = np.stack([3 * plane + above, 3 * plane + below], 2).reshape(len(plane), -1, plane.shape[2])
    before = np.concatenate([plane[:, :, :1], plane[:, :, :-1]], 2)
    after = np.concatenate([plane[:, :, 1:], plane[:, :, -1:]], 2)
    half, shift = (8, 16) if down == 2 else (1, 4)
    pair = [(3 * plane + before + half) // shift, (3 * plane + after + half - (1 if down == 2 else -1)) // shift]
    return np.stack(pair, 3).reshape(len(plane), plane.shape[1], -1)


def _rgb(planes: list[np.ndarray]) -> np.ndarray:
    """From YCbCr as JFIF defines it."""
    if len(planes) == 1:
        return np.repeat(planes[0][..., None], 3, 3).astype(np.uint8)
    y, cb, cr = planes[0], planes[1] - 128, planes[2] - 128
    rgb = np.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 3)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)
