"""Weight matching: the permutation of hidden units that brings one network nearest to another.

A network's function does not change if the units of a hidden layer are permuted together with their biases, their
normalisation and the weights that read them. A barrier between two networks may therefore be only a permutation, so it
is also reported after matching. The joint permutation of all layers that maximises <theta_a, P theta_b> is hard to
find. Given all others, the permutation of one layer is a linear assignment, so the layers are improved in turn (Git
Re-Basin, Ainsworth et al. 2209.04836, algorithm 1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from sublevel._types import Float, Int, Tensor
from sublevel.errors import ModelError
from sublevel.probes import same_outputs
from sublevel.rng import generator
from sublevel.space import Layer, Point, Space

Spec = Mapping[str, tuple[str | None, ...]]
"""For every parameter and buffer, the group of units of each of its axes (None: not permuted)."""
Permutations = Mapping[str, Tensor]
"""For every group, the unit that goes to each position: indices [units]."""


def chain_spec(space: Space) -> Spec:
    """The groups of a network whose layers follow each other in the order of its parameters.

    A weight with two axes or more reads the units before it and makes new ones; vectors (biases, the affine of
    BatchNorm) and BatchNorm's statistics belong to the weight before them. A flattened input is split into channels.
    The network's inputs and outputs stay in place. This uses only the order of the parameters: a network with shortcuts
    or tied weights needs a declared spec.

    Raises ModelError for a weight that does not fit the units before it, or statistics without an affine.

    >>> net = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    >>> chain_spec(Space.of(net))
    {'0.weight': ('0.weight', None), '0.bias': ('0.weight',), '2.weight': (None, '0.weight'), '2.bias': (None,)}
    """
    weights = [layer for layer in space.layers if len(layer.shape) > 1]
    for layer in weights:
        if layer.groups > 1:
            raise ModelError(
                f"{layer.name} is a transposed convolution in groups: declare which axes share their units"
            )
    spec: dict[str, tuple[str | None, ...]] = {}
    made: str | None = None
    units = 0
    for layer in space.layers:
        if len(layer.shape) > 1:
            reads = layer.shape[1 - layer.axis]
            if made and reads % units:
                raise ModelError(
                    f"{layer.name} reads {reads} inputs, no multiple of the {units} units of {made}: "
                    "this is not a chain of layers, so declare which axes share their units"
                )
            read, made = made, layer.name if layer is not weights[-1] else None
            units, ends = layer.units, (made, read) if not layer.axis else (read, made)
            spec[layer.name] = (*ends, *[None] * (len(layer.shape) - 2))
        else:
            spec[layer.name] = (made,)
    return _with_statistics(space, spec)


def residual_spec(space: Space) -> Spec:
    """The groups of this package's CIFAR ResNets: one for the residual stream of a stage, one inside every block.

    A stream keeps its units from block to block, since they are added; a block with a projection starts a new one.

    Raises ModelError for parameters with other names than in those networks.
    """
    names = {layer.name for layer in space.layers}
    blocks = sorted({int(name.split(".")[1]) for name in names if name.startswith("blocks.")})
    if not blocks or not {"conv.weight", "fc.weight"} <= names:
        raise ModelError("no CIFAR ResNet of this package: parameters conv.weight, blocks.*, fc.weight are expected")
    stream = "conv"
    spec: dict[str, tuple[str | None, ...]] = {"conv.weight": (stream, None, None, None)} | _norm("bn", stream)
    for block in blocks:
        at, inner = f"blocks.{block}", f"blocks.{block}.conv1"
        after = at if f"{at}.shortcut.0.weight" in names else stream
        spec |= {f"{inner}.weight": (inner, stream, None, None)} | _norm(f"{at}.bn1", inner)
        spec |= {f"{at}.conv2.weight": (after, inner, None, None)} | _norm(f"{at}.bn2", after)
        if after != stream:
            spec |= {f"{at}.shortcut.0.weight": (after, stream, None, None)} | _norm(f"{at}.shortcut.1", after)
        stream = after
    return _with_statistics(space, spec | {"fc.weight": (None, stream), "fc.bias": (None,)})


def infer_spec(space: Space) -> Spec:
    """`residual_spec` if the parameters are named as in the CIFAR ResNets, else `chain_spec`."""
    residual = any(layer.name.startswith("blocks.") for layer in space.layers)
    return residual_spec(space) if residual else chain_spec(space)


@dataclass(frozen=True, eq=False)
class Alignment:
    """A network with its hidden units permuted to lie near another one.

    ``point`` is the permuted network; ``permutations`` give the unit that went to each position of a group.
    ``distance`` and ``distance_before`` are those to the other network; ``rounds`` counts rounds over all groups, and
    ``converged`` is true if the last one changed nothing. The optimum is local: its distance is an upper bound on that
    of the best matching.
    """

    point: Point
    permutations: Permutations
    distance: float
    distance_before: float
    rounds: int
    converged: bool


def weight_matching(
    space: Space, a: Point, b: Point, spec: Spec | None = None, *, rounds: int = 100, seed: int = 0
) -> Alignment:
    """Permute the hidden units of ``b`` so that its weights come near those of ``a``.

    The groups are improved in turn, in an order drawn from (``seed``, "probe:align", round), from two starts, and the
    better result is kept. One start is no permutation. The other goes down from the inputs and matches each group on
    the weights whose other units are already matched; it recovers a permuted copy exactly. ``spec`` is inferred if not
    given.

    The matched network must compute the same outputs as ``b`` on a few inputs: training examples for a `Problem`'s
    space, random ones for a space read from a module. If the space knows no network, a declared spec is not checked.

    Raises ModelError if the spec does not fit the space or the matched network is another function, since the order of
    the parameters does not show how layers are joined; ValueError for points that do not fit the space or are not
    finite; ImportError without scipy, which solves the assignments.
    """
    declared, spec = spec is not None, infer_spec(space) if spec is None else spec
    sizes = group_sizes(space, spec)
    for name, point in (("a", a), ("b", b)):
        if len(point.theta) != space.dim:
            raise ValueError(f"{name} has dimension {len(point.theta)}, the space {space.dim}")
        if not bool(torch.isfinite(point.theta).all()):
            raise ValueError(f"{name} has weights that are not finite and cannot be matched")
    matcher = _Matcher(space, spec, sizes, a, b)
    still = {group: torch.arange(n) for group, n in sizes.items()}
    found = [matcher.improve(start, rounds, seed) for start in (still, matcher.passed_down())]
    best, used, converged = max(found, key=lambda f: matcher.product(f[0]))
    moved = permute_point(space, spec, best, b)
    _check_same(space, b, moved, declared)
    before, after = (float((a.theta.double() - p.theta.double()).norm()) for p in (b, moved))
    return Alignment(moved, best, after, before, used, converged)


def _check_same(space: Space, before: Point, after: Point, declared: bool) -> None:
    """Require that matching kept the function of a network, and that this can be checked or the spec is declared."""
    found = space.outputs([before, after])
    if found is None:
        if declared:
            return
        raise ModelError(
            "the matched network cannot be checked, as the space knows no network or no inputs for it: use "
            "problem.space, or declare the spec"
        )
    if not same_outputs(*found):
        raise ModelError(
            "matching the hidden units changes the outputs of this network: the order of its layers does not show how "
            "they are joined, so declare the spec, which axes share their units"
        )


def permute_vector(space: Space, spec: Spec, permutations: Permutations, v: Tensor) -> Tensor:
    """A vector [D] on the space (theta, a mask) with its units permuted."""
    parts = [
        _permute(v[layer.coordinates].view(layer.shape), spec[layer.name], permutations).reshape(-1)
        for layer in space.layers
    ]
    return torch.cat(parts)


def permute_point(space: Space, spec: Spec, permutations: Permutations, point: Point) -> Point:
    """A point with its units and statistics permuted: the same function."""
    buffers = {name: _permute(b, spec[name], permutations) if name in spec else b for name, b in point.buffers.items()}
    return Point(permute_vector(space, spec, permutations, point.theta), buffers)


def group_sizes(space: Space, spec: Spec) -> dict[str, int]:
    """The number of units of each group.

    Raises ModelError for a parameter that is missing from the spec, has another number of axes, one group on two axes,
    or a length that is no multiple of its group's.
    """
    axes = [(layer, axis, group) for layer in space.layers for axis, group in enumerate(_entry(spec, layer))]
    sizes: dict[str, int] = {}
    for layer, axis, group in axes:
        if group is not None:
            sizes[group] = min(sizes.get(group, layer.shape[axis]), layer.shape[axis])
    for layer, axis, group in axes:
        if group is not None and layer.shape[axis] % sizes[group]:
            got = f"axis {axis} of {layer.name} has {layer.shape[axis]} entries"
            raise ModelError(f"{got}, no multiple of the {sizes[group]} units of {group!r}")
    return sizes


class _Matcher:
    """The objective <theta_a, P theta_b> and its coordinate ascent, in float64."""

    def __init__(self, space: Space, spec: Spec, sizes: Mapping[str, int], a: Point, b: Point) -> None:
        self.spec, self.sizes = spec, sizes
        self.a = {name: view.detach().double() for name, view in space.views(a.theta).items()}
        self.b = {name: view.detach().double().to(a.theta.device) for name, view in space.views(b.theta).items()}

    def product(self, permutations: Permutations) -> float:
        return sum(float((w * _permute(self.b[n], self.spec[n], permutations)).sum()) for n, w in self.a.items())

    def improve(self, start: Permutations, rounds: int, seed: int) -> tuple[dict[str, Tensor], int, bool]:
        current, groups = dict(start), list(self.sizes)
        for done in range(rounds):
            before = self.product(current)
            for number in torch.randperm(len(groups), generator=generator(seed, "probe:align", done)).tolist():
                current[groups[number]] = self._assign(groups[number], current, self.a)
            if self.product(current) <= before + 1e-12 * abs(before):
                return current, done + 1, True
        return current, rounds, False

    def passed_down(self) -> dict[str, Tensor]:
        """Match each group in the order of the layers, on the tensors whose other axes are already matched."""
        settled: dict[str, Tensor] = {}
        for group in self.sizes:
            ready = [n for n in self.a if all(g is None or g == group or g in settled for g in self.spec[n])]
            settled[group] = self._assign(group, settled, ready)
        return settled

    def _assign(self, group: str, current: Permutations, names: Iterable[str]) -> Tensor:
        """The best permutation of one group, given the others."""
        n = self.sizes[group]
        gain = torch.zeros(n, n, dtype=torch.float64)
        others = {g: p for g, p in current.items() if g != group}
        for name in names:
            axes = [axis for axis, g in enumerate(self.spec[name]) if g == group]
            moved = _permute(self.b[name], self.spec[name], others) if axes else self.b[name]
            for axis in axes:
                gain += (_rows(self.a[name], axis, n) @ _rows(moved, axis, n).T).cpu()
        return _assignment(gain)


def _assignment(gain: Float[Tensor, "n n"]) -> Int[Tensor, "n"]:
    """The column assigned to every row in the assignment with the largest sum."""
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as e:
        raise ImportError("weight matching needs the package scipy: pip install scipy") from e
    return torch.from_numpy(linear_sum_assignment(gain.numpy(), maximize=True)[1]).long()


def _permute(tensor: Tensor, groups: tuple[str | None, ...], permutations: Permutations) -> Tensor:
    for axis, group in enumerate(groups):
        if group is not None and group in permutations:
            order = permutations[group].to(tensor.device)
            shape = tensor.shape
            split = tensor.reshape(*shape[:axis], len(order), -1, *shape[axis + 1 :])
            tensor = split.index_select(axis, order).reshape(shape)
    return tensor


def _rows(tensor: Tensor, axis: int, n: int) -> Tensor:
    shape = tensor.shape
    return tensor.reshape(*shape[:axis], n, -1, *shape[axis + 1 :]).movedim(axis, 0).reshape(n, -1)


def _entry(spec: Spec, layer: Layer) -> tuple[str | None, ...]:
    groups = spec.get(layer.name, ())
    if len(groups) != len(layer.shape):
        raise ModelError(f"a spec must name a group or None for each of the {len(layer.shape)} axes of {layer.name}")
    named = [group for group in groups if group is not None]
    if len(set(named)) < len(named):
        raise ModelError(f"two axes of {layer.name} have the same group: its matching is no linear assignment")
    return groups


def _norm(module: str, group: str) -> dict[str, tuple[str | None, ...]]:
    return {f"{module}.weight": (group,), f"{module}.bias": (group,)}


def _with_statistics(space: Space, spec: dict[str, tuple[str | None, ...]]) -> Spec:
    for module in space.statistics:
        if f"{module}.weight" not in spec:
            raise ModelError(f"the units of {module} are not known, as it has no affine: declare the spec")
        spec |= {f"{module}.{kind}": spec[f"{module}.weight"] for kind in ("running_mean", "running_var")}
    return spec
