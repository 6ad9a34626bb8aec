"""What a study asks the volume and density estimators for: which N, which curvature, which coordinates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import sublevel as sl
from sublevel.geometry.curvature import log_determinant
from sublevel.geometry.volume import log_volume
from sublevel.study.cells import KINDS
from sublevel.study.measurements.volumes import VolumesSpec


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


class Scene:
    """A context that holds one point and the masks ``half`` and ``dead``, under which the first filter is dead."""

    def __init__(self) -> None:
        rng = torch.Generator().manual_seed(0)
        x, y = torch.randn(90, 5, generator=rng), torch.randint(0, 3, (90,), generator=rng)
        data = {"train": (x, y), "test": (x[:9], y[:9])}
        self.problem = sl.Problem(Net, **data, validation=0, dtype="float64", version="1")
        torch.manual_seed(0)
        self.end = self.problem.space.point(Net().double())
        half = self.problem.space.full_mask()
        half[12:20] = False
        dead = self.problem.space.full_mask()
        dead[:5] = False
        self.masks = {"half": half, "dead": dead}

    def point(self, name, mask=None):
        return self.end

    def field(self, options, part):
        return self.problem.field("train", size=options.size, policy=options.policy, part=part)

    def mask(self, name):
        return None if name is None else self.masks[name]


SCENE = Scene()
BLOCK = VolumesSpec(probes=2, steps=20, k=3, rays=60, chains=2, draws=20, burn_in=5, damping=0.05)


def ask(method, block=BLOCK, *, mask="half", eps=(0.3,), **more):
    inputs = {"point": "end", "mask": mask, "method": method, "eps": list(eps), "options": block.asked(method)}
    return KINDS["volume"].run(SCENE, {**inputs, "size": 40, "policy": "stored", **more}).values


def test_log_determinants_are_of_the_gauss_newton_matrix_and_exact_where_that_costs_no_more():
    found = ask("logdet", VolumesSpec(probes=3, steps=20, damping=0.05))
    n = int(SCENE.masks["half"].sum())
    assert (found["dimension"], found["volumes"][0]["n"]) == (n, n)
    assert found["volumes"][0]["se"] == 0.0
    field = SCENE.problem.field("train", size=40)
    truth = log_volume(
        field, SCENE.end, method="logdet", eps=0.3, damping=0.05, operator="ggn", mask=SCENE.masks["half"], steps=n
    )
    assert found["volumes"][0]["log_volume"] == pytest.approx(truth.log_volume, abs=1e-8)
    assert found["volumes"][0]["diagnostics"]["clipped_mass"] == 0
    assert ask("logdet", VolumesSpec(probes=2, steps=20))["volumes"][0]["se"] > 0


def test_importance_sampling_goes_in_the_span_of_the_steepest_directions():
    found = ask("importance")
    assert (found["dimension"], found["volumes"][0]["n"]) == (int(SCENE.masks["half"].sum()), 3)
    assert "in the span of the 3 steepest" in found["volumes"][0]["diagnostics"]["measure"]


def test_n_is_the_number_of_training_examples_and_not_of_those_measured_on():
    assert ask("llc")["volumes"][0]["diagnostics"]["n_beta"] == pytest.approx(90 / math.log(90))
    assert ask("thermodynamic")["volumes"][0]["diagnostics"]["examples"] == 90


def test_dead_filters_are_left_out_where_the_mask_that_kills_them_is_given():
    """Their bias, and the weights that lead on from them."""
    dead = SCENE.problem.space.dead(SCENE.masks["dead"])
    assert bool(dead.any())
    alive = ~dead
    whole, living = (ask("logdet", mask=None, **more) for more in ({}, {"alive": "dead"}))
    assert whole["dimension"] == len(dead)
    assert living["dimension"] == int(alive.sum())
    options = {"point": "end", "mask": None, "probes": 3, "steps": 60, "size": 40, "policy": "stored"}
    options |= {"operator": "ggn", "damping": [0.05]}
    rows = KINDS["density"].run(SCENE, {**options, "alive": "dead"}).values["estimates"]
    value = next(row["value"] for row in rows if row["quantity"] == "log-determinant")
    field = SCENE.problem.field("train", size=40)
    same = log_determinant(field, SCENE.end, damping=0.05, probes=3, steps=60, mask=alive, operator="ggn")
    assert value == pytest.approx(same.value, rel=1e-9)
