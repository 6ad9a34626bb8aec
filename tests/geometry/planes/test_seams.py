"""BatchNorm's statistics on planes: recomputed by default; those of the nearest solution jump, which is said."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from cases import named
from sublevel.field import Restricted, plus_weight_decay
from sublevel.geometry.planes import adaptive_scan, eigen_plane, plane_through, random_plane, scan
from sublevel.geometry.topology import persistence
from sublevel.space import Point
from sublevel.study.measurements.planes import SEAM, _persistence

F64 = torch.float64
CASE = named("normalised")
SIDE = np.linspace(-1.0, 4.0, 13)


def anchors() -> list[Point]:
    """Three points of one network, each with the statistics of its own weights."""
    field, found = CASE.field("recomputed"), []
    for seed in range(3):
        rng = torch.Generator().manual_seed(seed)
        theta = CASE.point.theta + 0.35 * torch.randn(CASE.space.dim, generator=rng, dtype=F64)
        found.append(field.settle(Point(theta, CASE.point.buffers)))
    return found


THREE = anchors()
FRAMES = {
    "three points": lambda: plane_through(*THREE),
    "random": lambda: random_plane(CASE.space, THREE[0]),
    "eigenvectors": lambda: eigen_plane(THREE[0], torch.eye(CASE.space.dim, dtype=F64)[:2]),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_statistics_are_recomputed_by_default(kind):
    """A field under stored statistics shows what one under recomputed statistics does."""
    stored, recomputed = (scan(CASE.field(p), FRAMES[kind](), SIDE, SIDE) for p in ("stored", "recomputed"))
    np.testing.assert_array_equal(stored.loss, recomputed.loss)
    assert (stored.policy, stored.reason, stored.seams) == ("recomputed", "", ())
    mesh = adaptive_scan(CASE.field(), FRAMES[kind](), SIDE, SIDE, tolerance=10.0, levels=1)
    assert (mesh.policy, mesh.reason, mesh.seams) == ("recomputed", "", ())


def test_what_has_no_statistics_to_recompute_stays_as_it_is():
    plain = named("perceptron")
    field = plain.field()
    assert field.recomputed() is field
    assert CASE.field("batch").recomputed().policy == "batch"
    inside = Restricted(CASE.field(), torch.ones(CASE.space.dim, dtype=torch.bool), THREE[0]).recomputed()
    assert inside.policy == "recomputed"
    assert inside.loss(inside.start) == CASE.field("recomputed").loss(THREE[0])
    decayed = plus_weight_decay(CASE.field(), 0.1)
    assert decayed.recomputed().policy == "recomputed"
    assert decayed.policy == "stored"


def test_a_seam_lies_where_the_nearest_solution_changes_and_its_jump_is_the_losses():
    frame = plane_through(*THREE, buffers="nearest")
    plane = scan(CASE.field(), frame, SIDE, SIDE)
    assert len(plane.seams) == 3
    step = 1e-6
    for seam in plane.seams:
        way = np.array([seam.x1 - seam.x0, seam.y1 - seam.y0])
        across = step * np.array([-way[1], way[0]]) / np.linalg.norm(way)
        jumps = []
        for share in np.linspace(0.02, 0.98, 25):
            here = np.array([seam.x0, seam.y0]) + share * way
            sides = [frame.point(*(here + sign * across)) for sign in (-1, 1)]
            assert frame.nearest(*(here - across)) != frame.nearest(*(here + across))
            jumps.append(abs(CASE.field().loss(sides[0]) - CASE.field().loss(sides[1])))
        assert 0 < max(jumps) < 1.5 * seam.jump
    highest = max(seam.jump for seam in plane.seams)
    assert plane.policy == "nearest"
    assert plane.reason == (
        "BatchNorm's statistics are those of the nearest solution and change at 3 lines, where the loss jumps by up to "
        f"{highest:.3g}"
    )


def test_no_seam_where_there_is_nothing_to_jump():
    same = [Point(p.theta, THREE[0].buffers) for p in THREE]
    for field, points, rule in (
        (CASE.field(), same, "nearest"),
        (CASE.field(), THREE, "first"),
        (CASE.field("recomputed"), THREE, "nearest"),
        (CASE.field("batch"), THREE, "nearest"),
    ):
        plane = scan(field, plane_through(*points, buffers=rule), SIDE, SIDE)
        assert (plane.seams, plane.reason) == ((), "")


def test_features_that_a_seam_makes_are_in_doubt_and_those_of_the_landscape_are_not():
    frame = plane_through(*THREE)
    wall, true = (
        adaptive_scan(CASE.field(), f, SIDE, SIDE, tolerance=0.2, levels=1)
        for f in (replace(frame, buffers="nearest"), frame)
    )
    made, real = _persistence(wall), _persistence(true)
    assert {row["reason"] for row in real} == {""}
    assert len(made) > len(real), "the wall makes features of its own"
    believed = [row for row in made if not row["reason"]]
    assert SEAM in {row["reason"] for row in made}
    assert len(believed) <= len(real)


def test_where_a_feature_dies_is_known():
    hill = np.full((5, 5), 0.0)
    hill[:, 2] = [3.0, 2.0, 1.5, 2.0, 3.0]
    hill[2, 4] = -1.0
    found = persistence(hill)
    second = np.flatnonzero(found.death == 1.5)
    assert [(found.death_row[i], found.death_column[i]) for i in second] == [(2, 2)]
    assert found.death_row[np.isinf(found.death)].tolist() == [-1]
