"""Merge trees where every saddle is known, against brute force, and against persistent homology."""

from __future__ import annotations

import itertools
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from sublevel.field import Autograd
from sublevel.geometry.paths import barrier
from sublevel.geometry.planes import plane_through, scan
from sublevel.geometry.topology import disconnectivity, merge_tree, persistence

F64 = torch.float64


def t(*values):
    return torch.tensor(values, dtype=F64)


# --- Sums of wells on an axis, whose minima and saddles are roots of a derivative in one variable.


def slope(x, centers, depths, width):
    """d/dx of -sum_i d_i exp(-(x - c_i)^2 / 2 s^2), on the axis that all centres lie on."""
    return sum(
        d * (x - c) / width**2 * math.exp(-((x - c) ** 2) / (2 * width**2))
        for c, d in zip(centers, depths, strict=True)
    )


def height(x, centers, depths, width):
    return -sum(d * math.exp(-((x - c) ** 2) / (2 * width**2)) for c, d in zip(centers, depths, strict=True))


def critical(centers, depths, width):
    """Minima and saddles, between which the slope changes its sign once."""
    args = centers, depths, width
    minima = [brentq(slope, c - 0.5 * width, c + 0.5 * width, args, xtol=1e-14) for c in centers]
    saddles = [brentq(slope, a + 0.5 * width, b - 0.5 * width, args, xtol=1e-14) for a, b in itertools.pairwise(minima)]
    return minima, saddles


def measured(centers, depths, width):
    """Leaves and joins as a study measures them: losses, and maxima on segments between all pairs."""

    def loss(theta):
        away = (theta[0] - t(*centers)) ** 2 + theta[1:].square().sum()
        return -(t(*depths) * torch.exp(-away / (2 * width**2))).sum()

    field = Autograd(loss, 3)
    points = {f"w{i}": t(x, 0.0, 0.0) for i, x in enumerate(critical(centers, depths, width)[0])}
    leaves = {name: field.loss(point) for name, point in points.items()}
    pairs = itertools.combinations(points, 2)
    joins = {(i, j): barrier(field, points[i], points[j], points=41, refine=22).maximum for i, j in pairs}
    return leaves, joins


@pytest.mark.parametrize(
    ("centers", "depths"),
    [
        ((0.0, 2.0), (1.0, 1.0)),
        ((0.0, 2.0), (1.0, 0.7)),
        ((0.0, 1.8, 4.2), (1.0, 1.0, 1.0)),
        ((0.0, 1.8, 4.2, 6.0), (0.9, 1.3, 0.8, 1.1)),
    ],
    ids=["two-equal", "two-unequal", "three-equal", "four-unequal"],
)
def test_the_merge_tree_of_a_sum_of_wells_is_exact(centers, depths):
    """On a line the pass between two wells is the highest saddle between them, and so is the join."""
    args = centers, depths, 0.6
    minima, saddles = critical(*args)
    leaves, joins = measured(*args)
    tree = disconnectivity(leaves, joins)
    passes = [height(x, *args) for x in saddles]
    for i, j in itertools.combinations(range(len(centers)), 2):
        assert tree.minimax(f"w{i}", f"w{j}") == pytest.approx(max(passes[i:j]), abs=1e-10)
    for i, x in enumerate(minima):
        assert tree.minimax(f"w{i}", f"w{i}") == pytest.approx(height(x, *args), abs=1e-12)
    assert len(tree.roots) == 1
    just_above = min(passes) + 1e-6
    joined = [i for i, top in enumerate(passes) if top <= just_above]
    for part in tree.components(just_above):
        assert (len(part) > 1) == any(f"w{i}" in part for i in joined)


def test_unequal_wells_die_by_the_elder_rule():
    leaves, joins = measured((0.0, 2.0), (1.0, 0.7), 0.6)
    eldest, younger = disconnectivity(leaves, joins).pairs()
    assert (eldest.name, eldest.death) == ("w0", math.inf)
    assert (younger.name, younger.birth, younger.death) == ("w1", leaves["w1"], joins["w0", "w1"])


# --- Against brute force.


@st.composite
def landscapes(draw):
    n = draw(st.integers(1, 7))
    names = [f"s{i}" for i in range(n)]
    coarse = st.integers(-4, 4).map(lambda k: k / 2)
    leaves = {name: draw(coarse) for name in names}
    rises = st.integers(0, 6).map(lambda k: k / 2)
    pairs = draw(
        st.lists(st.sampled_from(list(itertools.combinations(names, 2))), unique=True) if n > 1 else st.just([])
    )
    joins = {pair[:: draw(st.sampled_from([1, -1]))]: max(leaves[i] for i in pair) + draw(rises) for pair in pairs}
    return leaves, joins


def floyd_warshall(leaves, joins):
    """The lowest maximum over all ways from one solution to another, through any others."""
    names = list(leaves)
    top = {(i, j): leaves[i] if i == j else math.inf for i in names for j in names}
    for (i, j), value in joins.items():
        top[i, j] = top[j, i] = min(top[i, j], value)
    for k, i, j in itertools.product(names, repeat=3):
        top[i, j] = min(top[i, j], max(top[i, k], top[k, j]))
    return top


@given(landscapes())
@settings(max_examples=120)
def test_minimax_and_components_agree_with_brute_force(landscape):
    leaves, joins = landscape
    tree, top = disconnectivity(leaves, joins), floyd_warshall(leaves, joins)
    assert {(i, j): tree.minimax(i, j) for i in leaves for j in leaves} == top
    for c in sorted({*leaves.values(), *joins.values(), -9.0, 9.0}):
        below = [i for i in leaves if leaves[i] <= c]
        expected = {frozenset(j for j in below if top[i, j] <= c) for i in below}
        found = tree.components(c)
        assert {frozenset(part) for part in found} == expected
        assert sum(map(len, found)) == len(below)
    assert len(tree.roots) == len({frozenset(j for j in leaves if top[i, j] < math.inf) for i in leaves})


@given(landscapes())
def test_a_tree_is_well_formed(landscape):
    leaves, joins = landscape
    tree = disconnectivity(leaves, joins)
    assert tree.names == tuple(leaves)
    for number, node in enumerate(tree.nodes):
        for child in node.children:
            assert child < number
            assert tree.nodes[child].height <= node.height
        if node.children:
            assert node.height in joins.values()
            assert node.height >= max(leaves[name] for name in node.leaves)
    pairs = tree.pairs()
    assert sorted(p.name for p in pairs) == sorted(leaves)
    assert sum(p.death == math.inf for p in pairs) == len(tree.roots)
    assert all(p.birth <= p.death for p in pairs)


@given(landscapes())
def test_the_drawing_has_a_place_for_every_leaf_and_crosses_no_lines(landscape):
    leaves, joins = landscape
    tree = disconnectivity(leaves, joins)
    places, lines = tree.layout()
    assert sorted(places.values()) == list(range(len(leaves)))
    assert all(s.x0 == s.x1 or s.y0 == s.y1 for s in lines)
    assert len(lines) == 4 * (len(tree.nodes) - len(leaves))
    for node in tree.nodes:
        own = sorted(places[name] for name in node.leaves)
        assert own[-1] - own[0] == len(own) - 1


def test_a_join_goes_through_another_solution_where_that_is_lower():
    """Single linkage: the direct path a - c climbs to 3, the way over b to 2."""
    tree = disconnectivity({"a": 0.0, "b": 0.5, "c": 0.2}, {("a", "b"): 2.0, ("c", "b"): 1.0, ("a", "c"): 3.0})
    assert tree.minimax("c", "a") == 2.0
    assert tree.components(0.3) == [["a"], ["c"]]
    assert tree.components(2.0) == [["a", "b", "c"]]
    assert [(n.height, n.leaves) for n in tree.nodes if n.children] == [(1.0, ("b", "c")), (2.0, ("a", "b", "c"))]


def test_pairs_without_a_path_are_a_forest():
    tree = disconnectivity({"a": 0.0, "b": 1.0, "c": 2.0}, {("a", "b"): 3.0, ("a", "c"): math.inf})
    assert tree.minimax("a", "c") == math.inf
    assert tree.components(1e9) == [["a", "b"], ["c"]]
    assert len(tree.roots) == 2
    assert disconnectivity({"only": 1.0}, {}).components(1.0) == [["only"]]


def test_inputs_that_are_no_landscape_are_refused():
    leaves = {"a": 0.0, "b": 1.0}
    with pytest.raises(ValueError, match=r"the path 'a' - 'b' is 0.5, its higher end 1: .* one buffer policy"):
        disconnectivity(leaves, {("a", "b"): 0.5})
    with pytest.raises(ValueError, match="the path 'a' - 'b' is nan"):
        disconnectivity(leaves, {("a", "b"): math.nan})
    with pytest.raises(ValueError, match="the path 'a' - 'x' has an end that is no leaf; the leaves are a, b"):
        disconnectivity(leaves, {("a", "x"): 2.0})
    with pytest.raises(ValueError, match="from 'a' to itself"):
        disconnectivity(leaves, {("a", "a"): 2.0})
    for bad in (math.nan, math.inf):
        with pytest.raises(ValueError, match=f"the height of 'a' is {bad}: a leaf needs a finite loss"):
            disconnectivity({"a": bad}, {})
    with pytest.raises(ValueError, match="at least one solution, got none"):
        disconnectivity({}, {})
    with pytest.raises(KeyError, match="no leaf 'z'; the leaves are a, b"):
        disconnectivity(leaves, {}).minimax("a", "z")


def test_rounding_below_an_end_is_lifted_to_it():
    tree = disconnectivity({"a": 0.0, "b": 1.0}, {("a", "b"): 1.0 - 1e-12})
    assert tree.minimax("a", "b") == 1.0


# --- Persistence of sublevel sets on planes.


def grid_tree(values):
    """The merge tree of a grid's graph: every point a leaf, joined to its four neighbours at the higher of the two."""
    ny, nx = values.shape
    leaves = {f"{i},{j}": float(values[i, j]) for i in range(ny) for j in range(nx)}
    steps = [((i, j), (i + di, j + dj)) for i in range(ny) for j in range(nx) for di, dj in ((0, 1), (1, 0))]
    inside = [(a, b) for a, b in steps if b[0] < ny and b[1] < nx]
    joins = {(f"{a[0]},{a[1]}", f"{b[0]},{b[1]}"): float(max(values[a], values[b])) for a, b in inside}
    return disconnectivity(leaves, joins)


def components(found):
    """(birth, death, row, column) of dimension 0."""
    rows = zip(found.dimension, found.birth, found.death, found.row, found.column, strict=True)
    return sorted((float(b), float(d), int(r), int(c)) for k, b, d, r, c in rows if k == 0)


@given(st.permutations(range(20)))
@settings(max_examples=30)
def test_persistence_of_any_grid_is_that_of_its_merge_tree(order):
    pytest.importorskip("gudhi")
    values = np.array(order, dtype=float).reshape(4, 5)
    living = [p for p in grid_tree(values).pairs() if p.birth < p.death]
    expected = sorted((p.birth, p.death, *map(int, p.name.split(","))) for p in living)
    assert components(persistence(values)) == expected


def test_two_wells_on_a_plane_have_the_persistence_of_their_merge_tree():
    """3x^4 + 4x^3 - 12x^2 + 50y^2: minima -32 at x = -2 and -5 at x = 1, saddle 0 at x = 0."""
    pytest.importorskip("gudhi")
    field = Autograd(lambda p: 3 * p[0] ** 4 + 4 * p[0] ** 3 - 12 * p[0] ** 2 + 50 * p[1] ** 2, 2)
    deep, shallow = t(-2.0, 0.0), t(1.0, 0.0)
    top = barrier(field, deep, shallow, points=31).maximum
    tree = disconnectivity({"deep": field.loss(deep), "shallow": field.loss(shallow)}, {("deep", "shallow"): top})
    frame = plane_through(t(0.0, 0.0), t(1.0, 0.0), t(0.0, 1.0))
    xs, ys = np.linspace(-3, 2, 21), np.linspace(-1, 1, 9)
    found = persistence(scan(field, frame, xs, ys).loss)
    assert [p.name for p in tree.pairs()] == ["deep", "shallow"]
    for pair, (birth, death, row, column), x in zip(tree.pairs(), components(found), (-2.0, 1.0), strict=True):
        assert birth == pytest.approx(pair.birth, abs=1e-12)
        assert death == pytest.approx(pair.death, abs=1e-12)
        assert (xs[column], ys[row]) == (x, 0.0)
    assert found.persistence.tolist() == sorted(found.persistence, reverse=True)
    assert found.death[0] == math.inf


def test_a_ring_is_one_component_and_one_hole():
    """(r^2 - 1)^2: the valley closes around a hill of height 1."""
    pytest.importorskip("gudhi")
    side = np.linspace(-1.5, 1.5, 25)
    x, y = np.meshgrid(side, side)
    values = (x**2 + y**2 - 1) ** 2
    found = persistence(values)
    hole = found.dimension == 1
    long = found.persistence > 0.5
    assert int((hole & long).sum()) == 1
    assert found.death[hole & long] == values[12, 12] == 1.0
    assert found.birth[hole & long] < 0.05
    assert int((~hole & long).sum()) == 1


def test_diagonal_neighbours_are_not_joined():
    """As on a path from point to point along the axes: two lows across a corner stay two components."""
    pytest.importorskip("gudhi")
    values = np.array([[0.0, 5.0], [5.0, 1.0]])
    assert components(persistence(values)) == [(0.0, math.inf, 0, 0), (1.0, 5.0, 1, 1)]


def test_infinity_belongs_to_no_sublevel_set():
    pytest.importorskip("gudhi")
    wall = np.array([[0.0, math.inf, 1.0], [0.5, math.inf, 2.0]])
    assert components(persistence(wall)) == [(0.0, math.inf, 0, 0), (1.0, math.inf, 0, 2)]
    assert len(persistence(np.full((3, 3), math.inf)).birth) == 0


def test_grids_without_sublevel_sets_are_refused():
    with pytest.raises(ValueError, match=r"at least 2 x 2 values, got the shape \(3,\)"):
        persistence(np.zeros(3))
    with pytest.raises(ValueError, match="2 of 4 values are nan or -inf"):
        persistence(np.array([[0.0, math.nan], [-math.inf, 1.0]]))


@pytest.mark.parametrize("seed", range(20))
def test_the_basins_of_a_grid_live_as_long_as_its_components(seed: int) -> None:
    draw = np.random.default_rng(seed)
    grid = draw.integers(0, 6, (7, 9)).astype(float) if seed % 2 else draw.normal(size=(7, 9))
    grid[draw.random(grid.shape) < 0.1] = np.inf
    found = persistence(grid)
    components = found.dimension == 0
    expected = sorted(zip(found.birth[components], found.death[components], strict=True))
    tree = merge_tree(grid)
    assert sorted((pair.birth, pair.death) for pair in tree.pairs()) == expected
    assert all(grid[tuple(json.loads(name.replace("(", "[").replace(")", "]")))] == node.height
               for node in tree.nodes if (name := node.name))  # fmt: skip


def test_a_join_of_basins_is_the_lowest_pass_between_them() -> None:
    grid = np.array([[0.0, 5.0, 2.0], [3.0, 9.0, 4.0], [1.0, 8.0, 2.5]])
    tree = merge_tree(grid)
    assert tree.minimax("(0, 0)", "(2, 0)") == 3.0
    assert tree.minimax("(0, 2)", "(2, 2)") == 4.0
    assert tree.minimax("(2, 0)", "(2, 2)") == 5.0


@pytest.mark.parametrize("grid", [[[np.inf, np.inf]] * 2, [[1.0, 2.0]], [[np.nan, 1.0]] * 2])
def test_a_grid_without_basins_has_no_merge_tree(grid: list[list[float]]) -> None:
    with pytest.raises(ValueError, match=r"sublevel sets need|lie in no sublevel set|at least one"):
        merge_tree(grid)
