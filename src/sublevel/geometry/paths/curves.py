"""Curves given by control points: Bezier curves and polygonal chains between two fixed ends."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import comb

import numpy as np
import torch

from sublevel._types import Float, Tensor
from sublevel.errors import unknown
from sublevel.field import PointLike
from sublevel.space import Point, as_point, lerp

KINDS = ("bezier", "chain")


@dataclass(frozen=True, eq=False)
class Curve:
    """A curve phi(t) = sum_j w_j(t) p_j from ``start`` over its control points to ``end``, t in [0, 1].

    ``kind`` is ``bezier`` (w_j are Bernstein polynomials) or ``chain`` (hat functions: straight from one point to the
    next); ``bends`` [inner, D] are the inner control points, none for the segment. Buffers are lerped in t between the
    ends (``averaged``); a field that recomputes them ignores them.
    """

    kind: str
    start: Point
    end: Point
    bends: Float[Tensor, "inner D"]

    @classmethod
    def straight(cls, a: PointLike, b: PointLike, *, kind: str = "bezier", bends: int = 1) -> Curve:
        """The segment from a to b as a curve with ``bends`` inner control points, evenly spaced.

        Raises ConfigError for an unknown kind, ValueError for a negative number of bends or ends of two dimensions.

        >>> curve = Curve.straight(torch.tensor([0.0, 0.0]), torch.tensor([2.0, 4.0]))
        >>> curve.bends.tolist(), curve(0.25).theta.tolist()
        ([[1.0, 2.0]], [0.5, 1.0])
        """
        start, end = as_point(a), as_point(b)
        if kind not in KINDS:
            raise unknown("kind of curve", kind, KINDS)
        if bends < 0:
            raise ValueError(f"a curve has 0 bends or more, got {bends}")
        if len(start.theta) != len(end.theta):
            raise ValueError(f"no curve joins points of dimension {len(start.theta)} and {len(end.theta)}")
        inner = [torch.lerp(start.theta, end.theta, j / (bends + 1)) for j in range(1, bends + 1)]
        return cls(kind, start, end, torch.stack(inner) if inner else start.theta.new_empty((0, len(start.theta))))

    def __call__(self, t: float) -> Point:
        """phi(t); t = 0 and 1 return the end points themselves."""
        base = lerp(self.start, self.end, t)
        if t in (0.0, 1.0) or not len(self.bends):
            return base
        w = self.weights(t)
        inner = torch.from_numpy(w[1:-1]).to(self.bends) @ self.bends
        return Point(float(w[0]) * self.start.theta + float(w[-1]) * self.end.theta + inner, base.buffers)

    def weights(self, t: float) -> np.ndarray:
        """w_0(t), ..., w_{inner + 1}(t): non-negative, with sum 1."""
        last = len(self.bends) + 1
        if self.kind == "bezier":
            return np.array([comb(last, j) * t**j * (1 - t) ** (last - j) for j in range(last + 1)])
        return np.clip(1 - np.abs(t * last - np.arange(last + 1)), 0, 1)

    def at_length(self, alpha: float) -> Point:
        """The point at the share ``alpha`` of the curve's length; profiles are taken along this path."""
        if alpha in (0.0, 1.0) or not len(self.bends) or not self.length:
            return self(alpha)
        ts, lengths = self._table
        return self(float(np.interp(alpha, lengths / lengths[-1], ts)))

    @property
    def length(self) -> float:
        """The length; for a Bezier curve that of a polygon with 400 sides per control point."""
        return float(self._table[1][-1])

    @cached_property
    def _table(self) -> tuple[np.ndarray, np.ndarray]:
        """A grid of t that includes every corner, and the length up to each t, from the control points' Gram matrix."""
        last = len(self.bends) + 1
        ts = np.linspace(0, 1, 400 * last + 1)
        steps = np.diff([self.weights(t) for t in ts], axis=0)
        rows = torch.cat([self.start.theta[None], self.bends, self.end.theta[None]]).double()
        rows = rows - rows[0]  # differences, so that nothing cancels in the Gram matrix
        gram = (rows @ rows.T).cpu().numpy()
        squares = np.einsum("ij,jk,ik->i", steps, gram, steps)
        return ts, np.concatenate([[0.0], np.cumsum(np.sqrt(np.maximum(squares, 0)))])
