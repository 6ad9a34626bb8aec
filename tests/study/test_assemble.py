"""What a study becomes: the cells that it asks for, and what is refused before any of them runs."""

from __future__ import annotations

import pytest
import torch

import own_net
import sublevel as sl
from sublevel.errors import ConfigError


def study(**keys):
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 6, generator=rng), torch.arange(60) % 3
    problem = sl.Problem(own_net.build, train=(x, y), test=(x[:20], y[:20]), validation=10)
    train = {"epochs": 2, "batch_size": 10, **keys.pop("train", {})}
    return sl.Study(problem, levels=3, fraction=0.3, train=train, **keys)


def masks(made):
    return {n.id: n.inputs for n in made.cells[0].nodes.values() if n.kind == "mask"}


def test_a_score_that_draws_has_its_own_draw_for_every_seed_and_level():
    drawn = masks(study(criterion="random", seeds=2))
    assert len({(i["seed"], i["stream"]) for i in drawn.values()}) == len(drawn) == 6
    assert all("seed" not in i for i in masks(study(seeds=2)).values())


def test_the_prune_leg_starts_at_the_point_that_the_mask_was_made_from():
    made = study(branches=["imp", {"name": "oneshot", "levels": [3]}, "reinit"], geometry={"legs": {}})
    legs = {n.id: n.inputs for n in made.cells[0].nodes.values() if n.kind == "leg" and n.labels["leg"] == "prune"}
    assert legs["leg/prune/stored/oneshot/L3/s0"]["a"].node == "train/dense/L0/s0"
    assert legs["leg/prune/stored/imp/L3/s0"]["a"].node == "train/imp/L2/s0"
    assert not any("reinit" in name for name in legs)


def test_successive_solutions_are_joined_at_chosen_levels_too():
    made = study(branches=[{"name": "imp", "levels": [3]}], geometry={"paths": {"to_dense": {"levels": []}}})
    (path,) = [n for n in made.cells[0].nodes.values() if n.kind == "segment"]
    assert (path.inputs["a"].node, path.inputs["b"].node) == ("train/imp/L2/s0", "train/imp/L3/s0")


def test_a_problem_given_in_python_is_what_the_study_says():
    spec = study().spec
    assert (spec.data.name, spec.data.validation, spec.model.name) == ("own", 10, "own_net:build")


def test_augmentation_of_what_is_no_image_is_refused():
    with pytest.raises(ConfigError, match=r"are for images \[C, H, W\]; the inputs have shape \[6\]"):
        study(train={"flip": True}).cells
