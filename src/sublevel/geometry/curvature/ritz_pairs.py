"""Ritz pairs with their residuals, and one product that checks them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from sublevel._types import Tensor
from sublevel.geometry.curvature.lanczos import LinearMap, Ritz


def checked(operator: LinearMap, first: Pairs, second: Pairs) -> tuple[np.ndarray, np.ndarray, float]:
    """|A v - lambda v| of two sets of pairs, including the error that one more product shows, and that error.

    The product is that of the sum of all vectors, scaled to unit norm. Its difference from the known products is an
    error of the operator itself: its rounding, or it is not a symmetric linear map. The residuals include it.
    """
    vectors, defects = torch.cat([first.vectors, second.vectors]), torch.cat([first.defects, second.defects])
    values = torch.from_numpy(np.concatenate([first.values, second.values])).to(vectors)
    known = (values @ vectors + defects.sum(dim=0)) / len(values) ** 0.5
    beyond = float((operator(vectors.sum(dim=0) / len(values) ** 0.5) - known).double().norm())
    residuals = np.hypot(defects.double().norm(dim=1).cpu().numpy(), beyond)
    of_first, of_second = np.split(residuals, [len(first.values)])
    return of_first, of_second, beyond


@dataclass(frozen=True, eq=False)
class Pairs:
    """Ritz pairs, largest value first: ``values`` [k], ``vectors`` and ``defects`` A v - lambda v [k, n]."""

    values: np.ndarray
    vectors: Tensor
    defects: Tensor

    @classmethod
    def of(cls, ritz: Ritz, which: np.ndarray, k: int) -> Pairs:
        """The k largest of the chosen pairs of a run."""
        keep = np.flatnonzero(which)[::-1][:k]
        return cls(ritz.values[keep], *ritz.pairs(keep))

    def reversed(self) -> Pairs:
        """Smallest value first."""
        return self._ordered(np.arange(len(self.values))[::-1])

    @property
    def sizes(self) -> np.ndarray:
        """|A v - lambda v|, from the products of the runs."""
        return self.defects.double().norm(dim=1).cpu().numpy()

    def first(self, k: int) -> Pairs:
        """The first k pairs."""
        return Pairs(self.values[:k], self.vectors[:k], self.defects[:k])

    def where(self, which: np.ndarray) -> Pairs:
        """The chosen pairs."""
        return self._ordered(np.flatnonzero(which))

    def apart(self, other: Pairs) -> Pairs:
        """The pairs that are nearly orthogonal to the others."""
        shared = (self.vectors @ other.vectors.T).double().square().sum(dim=1).cpu().numpy()
        return self.where(shared <= 0.1)

    def joined(self, other: Pairs) -> Pairs:
        """Both sets, largest value first."""
        values = np.concatenate([self.values, other.values])
        both = Pairs(values, torch.cat([self.vectors, other.vectors]), torch.cat([self.defects, other.defects]))
        return both._ordered(np.argsort(-values, kind="stable"))

    def _ordered(self, order: np.ndarray) -> Pairs:
        rows = torch.from_numpy(order.copy()).to(self.vectors.device)
        return Pairs(self.values[order], self.vectors[rows], self.defects[rows])


def orthonormal(rows: Tensor) -> Tensor:
    """Reorthonormalise nearly orthonormal rows: QR by the Cholesky factor of their small Gram matrix."""
    lower = torch.linalg.cholesky((rows @ rows.T).double())
    return torch.linalg.inv(lower).to(rows) @ rows
