"""The capture and the replay of CUDA graphs, on the memory of the tensors."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from tensor import Machine
from torch.utils._pytree import tree_flatten


class Graph:
    """The operations of a capture, which `replay` runs again on the memory that they had."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def replay(self) -> None:
        for func, args, kwargs, before in self.operations:
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(before), _tensors(again), strict=True):
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)


def _tensors(found: Any) -> list[torch.Tensor]:
    return [t for t in tree_flatten(found)[0] if isinstance(t, torch.Tensor)]


class Recorder:
    """A capture under way, of the work of one card.

    CUDA computes nothing that it captures: what the operations write here is put back at the end. A fault ends the
    capture, and its end then raises, as cudaStreamEndCapture does.
    """

    def __init__(self, graph: Graph, card: int) -> None:
        self.graph, self.card, self.failed = graph, card, False
        self._before: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._made: set[int] = set()

    def fault(self, text: str) -> Exception:
        self.failed = True
        return RuntimeError(f"CUDA error: {text}")

    def before(self, func: Any, args: Any, kwargs: Any) -> None:
        """Keep what is about to be written."""
        for argument, value in zip(func._schema.arguments, args, strict=False):
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in _tensors(value):
                    whole = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage())
                    if whole.data_ptr() not in self._made:
                        self._before.setdefault(whole.data_ptr(), (whole, whole.clone()))

    def after(self, where: torch.device, func: Any, args: Any, kwargs: Any, out: Any) -> None:
        """Keep the operation, if it is of the card that is captured."""
        if where.index != self.card:
            return
        self.graph.operations.append((func, args, kwargs, out))
        self._made |= {t.untyped_storage().data_ptr() for t in _tensors(out)} - self._before.keys()

    def end(self) -> None:
        """Put back what was written."""
        for whole, before in self._before.values():
            whole.copy_(before)


class Stream:
    """A stream of a card; the pretend device does one thing after the other."""

    def __init__(self, device: Any = None, **_: Any) -> None:
        self.device = None if device is None else torch.device(device)

    def wait_stream(self, other: Stream) -> None:
        pass

    def synchronize(self) -> None:
        pass


class Capturing:
    """`torch.cuda.graph`: it captures the card of its stream; without a stream, the current card.

    Where something failed inside, its end raises before the stream is put back, as in PyTorch: nothing random can be
    drawn on the device afterwards.
    """

    machine: Machine

    def __init__(self, graph: Graph, pool: Any = None, stream: Stream | None = None, **_: Any) -> None:
        index = None if stream is None or stream.device is None else stream.device.index
        self._recorder = Recorder(graph, self.machine.current if index is None else index)

    def __enter__(self) -> None:
        assert self.machine.recorder is None, "two captures at once"
        self.machine.recorder = self._recorder

    def __exit__(self, *fault: object) -> None:
        self.machine.recorder = None
        with suppress(KeyError):
            self._recorder.end()
        if self._recorder.failed:
            self.machine.caught = True
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")
