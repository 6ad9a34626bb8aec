"""Sets of coordinates and directions: layers, matched sets, filter norms, and the overlap of eigenspaces."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from sublevel._types import Bool, Float, Int, Tensor
from sublevel.field import PointLike
from sublevel.rng import generator
from sublevel.space import Space, as_point


def filter_norms(space: Space, theta: PointLike) -> Float[Tensor, "D"]:
    """The scale of every coordinate for the adaptive curvature D_s A D_s (``scale`` of the estimators).

    The scale of a weight in a prunable layer is the norm of its filter, the weights into one output channel or unit (Li
    et al. 1712.09913, section 4). The scale of any other coordinate, a bias or an affine of a norm, is |theta_i|, as in
    ASAM (Kwon et al. 2102.11600, equation 3). The adaptive curvature is invariant to rescaling a filter before a
    normalisation, and to rescaling the layers of a ReLU network against each other.

    >>> space = Space.of(torch.nn.Linear(2, 1))
    >>> filter_norms(space, torch.tensor([3.0, 4.0, -2.0])).tolist()
    [5.0, 5.0, 2.0]
    """
    point = as_point(theta)
    _fits(space, "theta", point.theta)
    out = point.theta.detach().abs()
    for layer in space.prunable_layers:
        norms = layer.by_filter(point.theta[layer.coordinates].detach()).double().norm(dim=1, keepdim=True).to(out)
        out[layer.coordinates] = layer.from_filters(norms.expand(-1, layer.fan_in))
    return out


def layer_masks(space: Space, mask: Bool[Tensor, "D"] | None = None) -> dict[str, Bool[Tensor, "D"]]:
    """The mask of every layer, for curvature layer by layer; inside ``mask`` if given.

    Layers without a coordinate in the mask are omitted.

    >>> {name: int(own.sum()) for name, own in layer_masks(Space.of(torch.nn.Linear(2, 3))).items()}
    {'weight': 6, 'bias': 3}
    """
    whole = space.full_mask() if mask is None else mask
    _fits(space, "the mask", whole)
    out = {}
    for layer in space.layers:
        own = torch.zeros_like(whole)
        own[layer.coordinates] = whole[layer.coordinates]
        if bool(own.any()):
            out[layer.name] = own
    return out


def matched_sets(
    space: Space, before: Bool[Tensor, "D"], after: Bool[Tensor, "D"], *, seed: int = 0
) -> dict[str, Int[Tensor, "c"]]:
    """The coordinates that a pruning step removed, and sets to compare them with: ``pruned``, ``kept``, ``random``.

    The three sets have equally many coordinates in every prunable layer: the smaller of the numbers pruned and kept
    there, drawn at random from the larger set. ``random`` is drawn from all coordinates before the step. So neither the
    number of coordinates nor their layers can make a difference. Ascending, on the CPU.

    Raises ValueError for a mask of another length, ``after`` not nested in ``before``, or no layer with both kinds.
    """
    _fits(space, "the mask before", before)
    _fits(space, "the mask after", after)
    before, after = before.cpu(), after.cpu()
    if bool((after & ~before).any()):
        raise ValueError(f"the mask after restores {int((after & ~before).sum())} coordinates that were pruned before")
    kinds = {"pruned": before & ~after, "kept": after, "random": before}
    drawn: dict[str, list[Tensor]] = {kind: [] for kind in kinds}
    for i, layer in enumerate(space.layers):
        own = {kind: mask[layer.coordinates].nonzero().squeeze(1) + layer.start for kind, mask in kinds.items()}
        count = min(len(own["pruned"]), len(own["kept"])) if layer.prunable else 0
        for kind, places in own.items():
            order = torch.randperm(len(places), generator=generator(seed, f"probe:matched:{kind}", i))
            drawn[kind].append(places[order[:count]].sort().values)
    sets = {kind: torch.cat(parts) for kind, parts in drawn.items()}
    if not len(sets["pruned"]):
        raise ValueError("no layer has both pruned and kept weights: there is nothing to match")
    return sets


@dataclass(frozen=True, eq=False)
class EigenspaceOverlap:
    """The overlap of two k-dimensional subspaces of R^n.

    ``overlap`` in [0, 1] is the mean squared cosine of the principal ``angles`` [k] (radians, ascending): 1 for equal
    spaces, 0 for orthogonal ones. Two random spaces have k / n = ``chance`` on average.
    """

    overlap: float
    chance: float
    angles: Float[Tensor, "k"]


def eigenspace_overlap(
    a: Float[Tensor, "k D"], b: Float[Tensor, "k D"], *, dimension: int | None = None
) -> EigenspaceOverlap:
    """``|A B^T|_F^2 / k`` of two spaces with orthonormal rows A and B (Gur-Ari et al. 1812.04754), and their angles.

    ``dimension`` is n if both lie in one subspace of R^D. Angles are computed from sines and cosines, since cosines
    alone lose small angles (Bjorck and Golub 1973).

    Raises ValueError for rows that are not orthonormal (to 1e-3), or more rows than the dimension.

    >>> x, y = torch.eye(4)[:2], torch.eye(4)[1:3]
    >>> found = eigenspace_overlap(x, y)
    >>> found.overlap, found.chance, [round(float(angle), 4) for angle in found.angles]
    (0.5, 0.5, [0.0, 1.5708])
    """
    k, n = len(a), dimension or a.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"{k} directions in a space of dimension {n} have no overlap")
    a, b = a.double(), b.double()
    for name, rows in (("first", a), ("second", b)):
        off = float((rows @ rows.T - torch.eye(k, dtype=rows.dtype, device=rows.device)).abs().max())
        if not off <= 1e-3:
            raise ValueError(f"the rows of the {name} space are not orthonormal: off by {off:.2g}")
    across = a @ b.T
    cosines = torch.linalg.svdvals(across)
    sines = torch.linalg.svdvals(b - across.T @ a).flip(0)
    return EigenspaceOverlap(float(across.square().sum()) / k, k / n, torch.atan2(sines, cosines))


def _fits(space: Space, what: str, vector: Tensor) -> None:
    if len(vector) != space.dim:
        raise ValueError(f"{what} has {len(vector)} entries, the space {space.dim}")
