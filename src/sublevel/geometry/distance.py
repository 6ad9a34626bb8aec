"""The displacement of two solutions, distance, angle and signs, and the overlap of their masks."""

from __future__ import annotations

from dataclasses import dataclass

from sublevel._types import Bool, Float, Tensor


@dataclass(frozen=True)
class Displacement:
    """From a to b: Euclidean distance, cosine of the angle at the origin, share of equal signs, and the two norms.

    ``sign_agreement`` counts only coordinates that are non-zero at both ends (nan if there are none).
    """

    distance: float
    cosine: float
    sign_agreement: float
    norm_start: float
    norm_end: float


def displacement(a: Float[Tensor, "D"], b: Float[Tensor, "D"]) -> Displacement:
    """The displacement from a to b, computed in float64.

    >>> import torch
    >>> d = displacement(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0]))
    >>> d.distance, d.cosine, d.sign_agreement
    (4.0, 0.6, 1.0)
    """
    a, b = a.double(), b.double()
    na, nb = float(a.norm()), float(b.norm())
    both = (a != 0) & (b != 0)
    count = int(both.sum())
    return Displacement(
        distance=float((b - a).norm()),
        cosine=min(max(float((a / na) @ (b / nb)), -1.0), 1.0) if na and nb else float("nan"),
        sign_agreement=float(((a.sign() == b.sign()) & both).sum()) / count if count else float("nan"),
        norm_start=na,
        norm_end=nb,
    )


@dataclass(frozen=True)
class Overlap:
    """The ``share`` of a's weights that b keeps too, and the share expected by ``chance`` at b's density."""

    share: float
    chance: float


def mask_overlap(a: Bool[Tensor, "D"], b: Bool[Tensor, "D"], among: Bool[Tensor, "D"]) -> Overlap:
    """The overlap of two masks among the prunable coordinates.

    >>> import torch
    >>> t = torch.tensor
    >>> mask_overlap(t([True, True, False]), t([True, False, False]), torch.ones(3, dtype=torch.bool))
    Overlap(share=0.5, chance=0.3333333333333333)
    """
    a, b = a & among, b & among
    left = int(a.sum())
    share = int((a & b).sum()) / left if left else float("nan")
    return Overlap(share, int(b.sum()) / int(among.sum()) if bool(among.any()) else float("nan"))
