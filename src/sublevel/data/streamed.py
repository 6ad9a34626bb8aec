"""Rows of files, read on demand: data larger than memory, indexed like a tensor."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from torch import Tensor

AHEAD = 2
"""Batches that are read while the program works on another one."""

BLOCK_BYTES = 2**24
"""Approximate number of bytes per read when all rows are read in order."""


class Pass:
    """Reads slices. While each begins where the one before it ended, a thread reads the next one of that length."""

    def __init__(self) -> None:
        self._end = 0
        self._next: tuple[int, slice, Future[Tensor]] | None = None

    def read(self, read: Callable[[slice], Tensor], rows: slice, length: int) -> Tensor:
        """The rows of a slice, by ``read``, or as they were read ahead; an error of the thread is raised here."""
        begin, end, step = rows.indices(length)
        rows, ahead, self._next = slice(begin, end, step), self._next, None
        ready = ahead and ahead[:2] == (os.getpid(), rows)  # a forked process has no such thread
        found = ahead[2].result() if ahead and ready else read(rows)
        if step == 1 and 0 < begin == self._end and end < length:
            coming, reader = slice(end, min(2 * end - begin, length), 1), ThreadPoolExecutor(1)
            self._next = os.getpid(), coming, reader.submit(read, coming)
            reader.shutdown(wait=False)
        self._end = end
        return found

    def __reduce__(self) -> tuple[type[Pass], tuple[()]]:
        return Pass, ()


class Streamed:
    """Rows of files, ``[N, ...]``, with the indexing and shape methods of a tensor.

    ``rows[index]`` with a slice or an int64 tensor reads rows onto ``device``. `keep` selects rows without reading.
    ``dtype`` is the type of the rows that are read (default: that of the files). While slices follow each other, as in
    a pass over all examples, a thread reads the next one.
    """

    def __init__(
        self,
        arrays: Sequence[np.ndarray],
        chosen: np.ndarray | None = None,
        device: str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> None:
        self._arrays = arrays
        self._ends = np.cumsum([len(array) for array in arrays])
        self._chosen = np.arange(self._ends[-1]) if chosen is None else chosen
        self.device = torch.device(device)
        self.dtype = dtype or torch.from_numpy(np.empty(0, arrays[0].dtype)).dtype
        self.shape = torch.Size((len(self._chosen), *arrays[0].shape[1:]))
        self.ndim = len(self.shape)
        self._pass = Pass()

    def __len__(self) -> int:
        return len(self._chosen)

    def dim(self) -> int:
        """The number of dimensions, including N."""
        return self.ndim

    def numel(self) -> int:
        """The number of values."""
        return self.shape.numel()

    def element_size(self) -> int:
        """Bytes of a value."""
        return self.dtype.itemsize

    def is_floating_point(self) -> bool:
        """Whether the values are real numbers."""
        return self.dtype.is_floating_point

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        found = self.read(rows.cpu()) if isinstance(rows, Tensor) else self._pass.read(self.read, rows, len(self))
        return self._on_device(found)

    def read(self, rows: slice | Tensor) -> Tensor:
        """The rows of an index on the host, in page-locked memory if they go to a GPU."""
        at = self._chosen[rows if isinstance(rows, slice) else rows.numpy()]
        out = np.empty((len(at), *self.shape[1:]), torch.empty(0, dtype=self.dtype).numpy().dtype)
        shard = np.searchsorted(self._ends, at, side="right")
        for s in np.unique(shard):
            here = np.flatnonzero(shard == s)
            inside = at[here] - (self._ends[s] - len(self._arrays[s]))
            order = np.argsort(inside, kind="stable")  # a disk reads forward
            out[here[order]] = self._arrays[s][inside[order]]
        found = torch.from_numpy(out)
        return found if self.device.type == "cpu" else found.pin_memory()

    def ahead(self, indices: Iterable[Tensor]) -> Iterator[Tensor]:
        """The rows of each index (int64, on the host), in turn; a thread reads the next ones meanwhile.

        An error of the reader is raised in place of its rows.
        """
        todo = iter(indices)
        with ThreadPoolExecutor(1) as reader:
            reading = deque[Future[Tensor]](reader.submit(self.read, index) for index in islice(todo, AHEAD))
            try:
                while reading:
                    found = reading.popleft().result()
                    reading += (reader.submit(self.read, index) for index in islice(todo, 1))
                    yield self._on_device(found)
            finally:
                for each in reading:
                    each.cancel()

    def _on_device(self, found: Tensor) -> Tensor:
        return found.to(self.device, non_blocking=True)

    def index_select(self, dim: int, index: Tensor) -> Tensor:
        """The rows of an index; ``dim`` is 0."""
        assert dim == 0
        return self[index]

    def keep(self, mask: Tensor) -> Streamed:
        """The rows where a bool mask ``[N]`` is true."""
        return Streamed(self._arrays, self._chosen[mask.cpu().numpy()], str(self.device), self.dtype)

    def to(self, device: torch.device | str) -> Streamed:
        """The same rows, read onto another device."""
        return Streamed(self._arrays, self._chosen, str(device), self.dtype)


Rows = Tensor | Streamed


def select_rows(rows: Rows, mask: Tensor) -> Rows:
    """The rows where a bool mask is true."""
    return rows.keep(mask) if isinstance(rows, Streamed) else rows[mask]


def blocks(rows: Rows) -> Iterator[Tensor]:
    """All rows in order: one tensor if they are in memory, otherwise blocks of about `BLOCK_BYTES`."""
    if isinstance(rows, Tensor):
        yield rows
        return
    size = max(1, BLOCK_BYTES // max(1, rows.shape[1:].numel() * rows.element_size()))
    for begin in range(0, len(rows), size):
        yield rows[begin : begin + size]
