"""A test of symmetry by the probes of an estimator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from sublevel._types import Tensor
from sublevel.geometry.curvature.operators import Operator, finite, unsymmetric


class Symmetry:
    """Compares u^T A v with v^T A u over the probes of an estimator, u the first of them.

    After a single probe it draws another one; ``further`` counts its product.
    """

    def __init__(self, of: Operator, seed: int) -> None:
        self._of, self._seed = of, seed
        self._first: tuple[Tensor, Tensor] | None = None
        self._off: list[float] = []
        self.further = 0

    def watch(self, products: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the same probes and products, and compare them."""
        for v, av in products:
            if self._first is None:
                self._first = v, av
            else:
                self._off.append(self._compare(*self._first, v, av))
            yield v, av

    def _compare(self, u: Tensor, au: Tensor, v: Tensor, av: Tensor) -> float:
        """|u^T A v - v^T A u| in units of |A|, estimated by random vectors, without under- or overflow."""
        largest = max(float(w.abs().max()) for w in (au, av)) or 1.0
        u, v, au, av = u.double(), v.double(), au.double() / largest, av.double() / largest
        size = float(max(av.norm() * u.norm(), au.norm() * v.norm()))
        return abs(float(u @ av - v @ au)) * len(u) ** 0.5 / size if size else 0.0

    @property
    def reason(self) -> str:
        """Why the operator is not symmetric; empty if it is."""
        if self._first is not None and not self._off and self._of.dimension > 1:
            self.further = 1
            again = self._of.draw(self._seed, 0, stream="probe:symmetry", signs=True)
            list(self.watch([(again, finite(self._of(again)))]))
        return self.reason_so_far

    @property
    def reason_so_far(self) -> str:
        """`reason` from the probes seen so far, without another product."""
        found = (sum(off**2 for off in self._off) / len(self._off)) ** 0.5 if self._off else 0.0
        return unsymmetric(found, self._of.like.dtype)
