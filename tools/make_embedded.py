"""Make the embedded data set from the four idx.gz files of Fashion-MNIST.

    python tools/make_embedded.py FOLDER [OUTPUT]

FOLDER holds train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz, t10k-images-idx3-ubyte.gz and
t10k-labels-idx1-ubyte.gz. The first 1,000 training and the first 200 test images of every class are kept, in
file order. The four arrays are written as idx, one after the other, through gzip with no time stamp. The
sha256 that `sublevel.data.builtin` checks is of the uncompressed bytes, so it does not depend on the
compressor's version; this script prints it.
"""

from __future__ import annotations

import gzip
import hashlib
import sys
from pathlib import Path

import torch
from torch import Tensor

from sublevel.data.builtin import FILE, SHA256
from sublevel.data.idx import format_idx, read_idx

OUTPUT = Path(__file__).parents[1] / "src" / "sublevel" / "data" / "embedded" / FILE


def first_of_each(y: Tensor, count: int) -> Tensor:
    """Indices of the first ``count`` samples of every class in ``y``, ascending."""
    return torch.cat([(y == label).nonzero()[:count, 0] for label in y.unique()]).sort().values


def subset(folder: Path, part: str, count: int) -> bytes:
    """Images, then labels, of ``count`` samples per class of ``part``, as idx."""
    x = read_idx(folder / f"{part}-images-idx3-ubyte.gz", 3)
    y = read_idx(folder / f"{part}-labels-idx1-ubyte.gz", 1)
    keep = first_of_each(y, count)
    return format_idx(x[keep]) + format_idx(y[keep])


def main(folder: str, output: str | Path = OUTPUT) -> None:
    """Write the file and print what was written."""
    raw = subset(Path(folder), "train", 1_000) + subset(Path(folder), "t10k", 200)
    packed = gzip.compress(raw, 9, mtime=0)
    Path(output).write_bytes(packed)
    sha256 = hashlib.sha256(raw).hexdigest()
    print(f"{output}: {len(packed):,} bytes, {len(raw):,} uncompressed, sha256 {sha256}")
    print("as expected by the loader" if sha256 == SHA256 else f"the loader expects {SHA256}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
