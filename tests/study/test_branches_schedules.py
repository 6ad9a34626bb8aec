"""How many weights levels leave: by fraction, by a list of densities, geometrically to a target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import own_net
import sublevel as sl
from sublevel.errors import ConfigError
from sublevel.prune import counts, counts_at
from sublevel.space import Layer, Space
from sublevel.study.documents import merged, override, read
from sublevel.study.levels import remaining
from sublevel.study.spec import parse


def study(**keys) -> sl.Study:
    rng = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 6, generator=rng), torch.arange(60) % 3
    problem = sl.Problem(own_net.build, train=(x, y), test=(x[:20], y[:20]), validation=10)
    return sl.Study(problem, train={"epochs": 2, "batch_size": 10}, **keys)


def kept(made: sl.Study, branch: str = "imp") -> list[int]:
    nodes = made.cells[0].nodes
    return [nodes[f"mask/{branch}/L{n}/s0"].inputs["keep"][0] for n in range(1, made.spec.levels + 1)]


def size(made: sl.Study) -> int:
    return int(made.problem.space.prunable.sum())


@pytest.mark.parametrize("branch", ["imp", "oneshot", "finetune", "at-init", "random-prune"])
def test_listed_densities_are_those_of_the_masks(branch: str) -> None:
    made = study(prune={"densities": [0.5, 0.2, 0.05]}, branches=["imp", branch] if branch != "imp" else ["imp"])
    assert made.spec.levels == 3
    assert kept(made, branch) == [int(d * size(made) + 0.5) for d in (0.5, 0.2, 0.05)]


def test_a_target_is_reached_by_equal_factors() -> None:
    made = study(prune={"target": 0.04}, levels=2)
    assert kept(made) == [int(d * size(made) + 0.5) for d in (0.2, 0.04)]
    (three,) = [kept(study(prune={"target": 0.04}, levels=n))[-1] for n in (3,)]
    assert three == kept(made)[-1], "the last level is the target, however many there are"


def test_equal_counts_are_equal_cells() -> None:
    """A mask is keyed by its count: another way to say it repeats nothing."""
    one, two = study(fraction=0.5, levels=2), study(prune={"densities": [0.5, 0.25]})
    left = [counts(one.problem.space, 0.5, n) for n in (1, 2)]
    assert left == [counts_at(one.problem.space, d) for d in (0.5, 0.25)]
    masks = [{n.id: n.inputs for n in made.cells[0].nodes.values() if n.kind == "mask"} for made in (one, two)]
    assert masks[0] == masks[1]


def test_scopes_and_what_is_held() -> None:
    space = Space((Layer("a.weight", (10, 10), 0, True), Layer("b.weight", (100, 100), 100, True)), (), ())
    assert counts_at(space, 0.1) == [1010]
    assert counts_at(space, 0.1, "layer") == [10, 1000]
    assert sum(counts_at(space, 0.1, "erk")) == 1010
    assert counts_at(space, 0.1, "layer", protect=["a"]) == [100, 1000]
    assert counts_at(space, 0.29, "layer") == [29, 2900], "the density as it is written, not as it is stored"
    with pytest.raises(
        ConfigError, match=r"density 0.005 leaves 51 weights, fewer than the 100 that protect = \['a'\]"
    ):
        counts_at(space, 0.005, protect=["a"])


def test_there_is_a_next_level_below_a_target_but_not_after_a_list() -> None:
    """Measurements look at the weights that the next level would take."""
    geometry = {"spectra": {"k": 1, "spaces": ["own", "next"]}}
    listed = study(prune={"densities": [0.5, 0.2]}, geometry=geometry)
    masks = [
        n.labels["level"] for n in listed.cells[0].nodes.values() if n.labels.get("branch", "").startswith("next/")
    ]
    assert masks == [1, 2], "of the dense network and of level 1"
    target = study(prune={"target": 0.25}, levels=2, geometry=geometry).spec
    assert target.density(3) == pytest.approx(0.125)
    with pytest.raises(ConfigError, match=r"prune.densities ends at level 2: level 3 has no density"):
        remaining(listed.spec, listed.problem.space, 3)


def test_a_branch_with_a_fraction_of_its_own_has_it() -> None:
    made = study(prune={"densities": [0.5, 0.2]}, branches=["imp", {"name": "imp", "options": {"fraction": 0.9}}])
    assert kept(made) == [int(d * size(made) + 0.5) for d in (0.5, 0.2)]
    assert kept(made, "imp-0.9") == [counts(made.problem.space, 0.9, n)[0] for n in (1, 2)]


REFUSED = [
    ({"prune": {"densities": [0.5, 0.5]}}, r"prune: densities fall from level to level, got 0.5 after 0.5"),
    ({"prune": {"densities": [0.2, 0.5]}}, r"prune: densities fall from level to level, got 0.5 after 0.2"),
    ({"prune": {"densities": [1.0, 0.5]}}, r"prune: a density lies between 0 and 1, got 1"),
    ({"prune": {"densities": [0.5, 0]}}, r"prune: a density lies between 0 and 1, got 0"),
    ({"prune": {"target": 1.5}}, r"prune: a density lies between 0 and 1, got 1.5"),
    ({"prune": {"target": -0.1}}, r"prune: a density lies between 0 and 1, got -0.1"),
    ({"prune": {"target": True}}, r"prune.target: expected a number, not a boolean"),
    (
        {"prune": {"densities": [0.5], "target": 0.1}},
        r"prune: densities and target both set the densities: give one",
    ),
    ({"prune": {"densities": 0.5}}, r"prune.densities: .*got 0.5"),
    ({"prune": {"density": [0.5]}}, r"unknown key 'prune.density'; did you mean 'densities'\?"),
    ({"prune": {"densities": [0.5]}, "levels": 3}, r"prune.densities has 1 levels, and levels is 3: leave levels out"),
    (
        {"prune": {"target": 0.1}, "fraction": 0.5},
        r"prune.target and fraction = 0.5 both set the number of weights of a level",
    ),
    ({"prune": {"densities": [0.5]}, "rounding": "open_lth"}, r"prune.densities and rounding = 'open_lth' both set"),
    (
        {"prune": {"densities": [0.5, 0.4999]}},
        r"levels 2: level 2 of density 0.5 takes the \d+ remaining weights to \d+",
    ),
    ({"prune": {"target": 1e-6}, "levels": 2}, r"level 1 of density 0.001 takes the \d+ remaining weights to 0"),
]


@pytest.mark.parametrize(("keys", "said"), REFUSED)
def test_a_schedule_that_cannot_be_is_refused(keys: dict, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        _ = study(**keys).cells


def test_keys_that_say_the_same_take_each_others_place() -> None:
    """A preset's levels and fraction are not in the way of what is set over them."""
    demo = read("demo") | {"fraction": 0.4, "branches": ["imp"], "geometry": {}}
    ways: list[tuple[Callable, int, list[float]]] = [
        (lambda d: override(d, "prune.densities=[0.5, 0.1]"), 2, [0.5, 0.1]),
        (lambda d: merged(d, {"prune": {"densities": [0.5, 0.1]}}), 2, [0.5, 0.1]),
        (lambda d: merged(d, {"levels": 2, "prune": {"target": 0.01}}), 2, [0.1, 0.01]),
        (lambda d: override(override(d, "prune.target=0.01"), "prune.densities=[0.5, 0.1]"), 2, [0.5, 0.1]),
    ]
    for way, levels, densities in ways:
        spec = parse(way(demo))
        assert spec.levels == levels
        assert [spec.density(n) for n in range(1, levels + 1)] == pytest.approx(densities)
        assert parse(spec.document()) == spec
    back = parse(override(override(demo, "prune.target=0.01"), "fraction=0.3"))
    assert (back.fraction, back.prune.target, back.density(1)) == (0.3, None, None)


def test_a_file_that_extends_a_preset_says_its_own_densities(tmp_path: Path) -> None:
    path = tmp_path / "three.toml"
    path.write_text('extends = "demo"\nbranches = ["imp"]\ngeometry = {}\n[prune]\ndensities = [0.5, 0.2, 0.05]\n')
    assert parse(read(str(path))).levels == 3
