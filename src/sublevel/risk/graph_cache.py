"""A cache of gradients with their graphs for Hessian products at one point, up to a number of bytes.

At one point every Hessian product differentiates the same gradient. With its graph in the cache, a product costs only
the second backward pass. The bytes of a graph are those of all tensors that it keeps alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from sublevel._types import Float, Tensor
from sublevel.space import Point


class GraphCache:
    """The gradients of one field's batches at the last point, with their graphs.

    ``limit`` is in bytes; 0 keeps nothing. The graph of the current batch is not counted.
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"keep_bytes must be at least 0 (no cache), got {limit}")
        self.limit, self.bytes = limit, 0
        self._gradients: dict[int, Tensor] = {}
        self._counted: dict[int, int] = {}
        self._refused: set[int] = set()
        self._held: tuple[list[Tensor], list[int]] = [], []
        self._leaf: Tensor | None = None

    def __len__(self) -> int:
        return len(self._gradients)

    def leaf(self, point: Point, constants: Iterable[Tensor]) -> Float[Tensor, "D"]:
        """The leaf theta for differentiation; drops all graphs at a new point, or one that was written in place.

        ``constants`` are tensors that live anyway (examples, frozen parameters) and are not counted.
        """
        if not self.limit:
            return point.theta.detach().requires_grad_()
        tensors = [point.theta, *point.buffers.values()]
        versions = [t._version for t in tensors]
        held, held_versions = self._held
        same = len(held) == len(tensors) and all(a is b for a, b in zip(held, tensors, strict=True))
        if self._leaf is None or not same or versions != held_versions:
            self.release()
            self._held = (tensors, versions)
            self._leaf = point.theta.detach().requires_grad_()
            self._counted = {_address(t): 0 for t in (*tensors, *constants)}
        return self._leaf

    def gradient(self, batch: int, build: Callable[[], Tensor]) -> tuple[Float[Tensor, "D"], bool]:
        """The gradient of a batch with its graph, and whether the product must keep the graph."""
        if batch in self._gradients:
            return self._gradients[batch], True
        gradient = build()
        return gradient, bool(self.limit) and batch not in self._refused and self._keep(batch, gradient)

    def release(self) -> None:
        """Drop all graphs."""
        self.bytes, self._leaf, self._held = 0, None, ([], [])
        self._gradients, self._counted, self._refused = {}, {}, set()

    def _keep(self, batch: int, gradient: Tensor) -> bool:
        new = {address: size for address, size in storages(gradient).items() if address not in self._counted}
        if self.bytes + sum(new.values()) > self.limit:
            self._refused.add(batch)
            return False
        self._gradients[batch] = gradient
        self._counted |= new
        self.bytes += sum(new.values())
        return True


def storages(tensor: Tensor) -> dict[int, int]:
    """Address and bytes of every storage that ``tensor`` and its graph keep alive."""
    found = {_address(tensor): tensor.untyped_storage().nbytes()}
    seen, todo = set(), [tensor.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        saved = list(_saved(node))
        found |= {_address(t): t.untyped_storage().nbytes() for t in saved}
        todo += [before for before, _ in node.next_functions] + [t.grad_fn for t in saved]
    return found


def _saved(node: object) -> Iterator[Tensor]:
    """The tensors that a node of the graph saved: attributes of built-in nodes, a tuple for a user's function."""
    for name in dir(node):
        if name.startswith("_saved_") or name in ("saved_tensors", "variable"):
            value = getattr(node, name)
            for item in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(item, Tensor):
                    yield item


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
