"""A fidelity is ordinary keys: what it sets, who has the last word, and that each key does what it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sublevel as sl
from sublevel.cli import main
from sublevel.data.splits import split
from sublevel.errors import ConfigError, DataError
from sublevel.models import build
from sublevel.study.compare import flat
from sublevel.study.documents import read
from sublevel.study.spec import parse
from sublevel.train.recipe import Duration, Recipe

RESNET = {"fidelity": "open_lth", "model": {"name": "resnet-20"}, "data": {"name": "cifar10"}}
PUBLISHED = [216715, 173371, 138695, 110955, 88763, 71009, 56806, 45443, 36353, 29081]


def resolved(**keys: Any) -> dict[str, str]:
    return dict(flat(parse(keys).document()))


# --- What is set.


def test_what_open_lth_sets_for_its_resnet() -> None:
    """Every key in which its study differs from the same one by our rules."""
    ours, theirs = resolved(**{**RESNET, "fidelity": "paper"}), resolved(**RESNET)
    assert {key: value for key, value in theirs.items() if value != ours.get(key)} == {
        "fidelity": "open_lth",
        "rounding": "open_lth",
        "order": "independent",
        "dense_start": "rewind",
        "data.validation": "0",
        "data.mean": "[0.485, 0.456, 0.406]",
        "data.std": "[0.229, 0.224, 0.225]",
        "model.options.bn_init": "uniform",
        "model.options.bias_init": "uniform",
        "train.crop": "4",
        "train.flip": "true",
        "train.schedule": "milestones",
        "train.milestones": '["80ep", "120ep"]',
        "train.warmup_from_zero": "true",
    }
    same = {"fraction": "0.2", "train.lr": "0.1", "train.momentum": "0.9", "train.weight_decay": "0.0001"}
    same |= {"train.length": "160ep", "train.batch_size": "128", "train.gamma": "0.1", "protect": "[]"}
    assert {key: theirs[key] for key in same} == same


def test_other_networks_other_hyperparameters() -> None:
    lenet = resolved(fidelity="open_lth", data={"name": "mnist"})
    assert (lenet["train.length"], lenet["train.momentum"], lenet["train.weight_decay"]) == ("40ep", "0.0", "0.0")
    assert (lenet["protect"], lenet["data.mean"], lenet["train.crop"]) == ('["fc.weight"]', "[0.1307]", "0")
    assert "model.options.bn_init" not in lenet, "it has no BatchNorm"
    assert resolved(**RESNET | {"model": {"name": "vgg-16"}})["protect"] == '["fc.weight"]'
    own = resolved(**RESNET | {"model": {"name": "my_nets:net"}, "data": {"name": "folder"}})
    assert (own["model.options"], own["data.mean"], own["rounding"]) == ("{}", "null", "open_lth")


def test_what_a_study_says_has_the_last_word() -> None:
    own = {"rounding": "exact", "data": {"name": "cifar10", "std": [1, 1, 1], "mean": [0, 0, 0]}}
    said = resolved(**RESNET | own | {"train": {"epochs": 9, "schedule": "cosine"}, "branches": "reinit,imp"})
    assert (said["rounding"], said["data.mean"]) == ("exact", "[0.0, 0.0, 0.0]")
    assert (said["train.length"], said["train.schedule"], said["train.milestones"]) == ("9ep", "cosine", "[]")
    assert "from_step" in said["branches"]
    branches = ["imp", {"name": "imp", "order": "independent"}, {"name": "reinit", "options": {"from_step": "0it"}}]
    spec = parse(RESNET | {"branches": branches})
    assert spec.order == "shared", "a branch has an order of its own: the study's is said too"
    assert [branch.options for branch in spec.branches] == [{}, {}, {"from_step": "0it"}]


@pytest.mark.parametrize("keys", [RESNET, {}, {"branches": ["random-prune"], **RESNET}], ids=["resnet", "paper", "own"])
def test_a_resolved_study_is_resolved(keys: dict[str, Any]) -> None:
    once = parse(keys).document()
    assert parse(once).document() == once


@pytest.mark.parametrize("name", ["demo", "mini", "paper", "criteria"])
def test_the_paper_s_fidelity_is_every_default(name: str) -> None:
    raw = read(name)
    spec = parse(raw)
    assert (spec.fidelity, spec.rounding, spec.dense_start) == ("paper", "exact", "init")
    assert spec.data.mean is spec.data.std is None
    assert parse({**raw, "fidelity": "paper"}) == spec
    assert spec.train.document() == parse({"train": raw.get("train", {})}).train.document()


def test_a_problem_says_its_data_and_its_network_itself() -> None:
    problem = sl.Problem("resnet-8", train_size=200, options={"width": 2})
    study = sl.Study(problem, fidelity="open_lth", levels=1, train={"epochs": 1, "schedule": "constant"})
    assert (study.spec.rounding, study.spec.train.momentum) == ("open_lth", 0.9)
    assert (study.spec.data.validation, study.spec.data.mean) == (0.1, None)
    assert study.spec.model.options == problem.options


def test_a_plan_prints_what_a_fidelity_sets_and_what_the_study_says_otherwise(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["plan", "demo", "--set", "fidelity=open_lth", "--set", "rounding=exact", "--out", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    followed = next(line for line in lines if line.startswith("fidelity open_lth: "))
    assert 'dense_start = "rewind"' in followed
    assert 'protect = ["fc.weight"]' in followed
    assert '  but rounding = "exact", set by this study (open_lth: "open_lth")' in lines
    assert '  but order = "shared", set by this study (open_lth: "independent")' in lines
    assert "rounding" not in followed


def test_an_unknown_fidelity_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fidelity: .*'paper' or 'open_lth', got 'open-lth'"):
        parse({"fidelity": "open-lth"})


# --- What the keys do.


@pytest.fixture
def images(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    parts = {"train": 256, "test": 10}
    x = {f"{s}_x": rng.integers(0, 256, (n, 3, 32, 32), dtype=np.uint8) for s, n in parts.items()}
    np.savez(tmp_path / "images.npz", **x, **{f"{s}_y": np.arange(n) % 10 for s, n in parts.items()})
    return tmp_path / "images.npz"


def test_a_study_leaves_open_lth_s_counts(images: Path) -> None:
    """ResNet-20, ten levels, from the two lines of the study to the masks' cells."""
    data = {"name": "arrays", "root": str(images)}
    study = sl.Study({"fidelity": "open_lth", "model": {"name": "resnet-20"}, "data": data, "rewind": "1it"})
    nodes = study.cells[0].nodes
    assert [nodes[f"mask/imp/L{level}/s0"].inputs["keep"] for level in range(1, 11)] == [[n] for n in PUBLISHED]
    assert study.problem.init(0).theta[~study.problem.space.prunable].std() > 0.2, "BatchNorm's weights are drawn"


def test_batchnorm_and_biases_are_drawn_as_open_lth_draws_them() -> None:
    torch.manual_seed(0)
    net = build("vgg-16", input_shape=(3, 32, 32), classes=10, bn_init="uniform", bias_init="uniform")
    gains = torch.cat([m.weight.detach() for m in net.modules() if isinstance(m, nn.BatchNorm2d)])
    assert 0 <= gains.min() < 0.01
    assert 0.99 < gains.max() <= 1
    assert gains.mean().item() == pytest.approx(0.5, abs=4 * (1 / 12 / len(gains)) ** 0.5)
    assert not any(m.bias.any() for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    for part in (m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)):
        assert part.bias is not None
        bound = part.weight[0].numel() ** -0.5
        assert 0.5 * bound < part.bias.abs().max() <= bound


def test_how_a_network_starts_is_in_its_key() -> None:
    def problem(**options: str) -> dict[str, Any]:
        found = sl.Problem("resnet-8", train_size=50, options={"width": 2, **options}).fingerprint()
        assert found is not None
        return found

    plain = problem()
    assert problem(bn_init="ones", bias_init="zeros") == plain
    assert problem(bn_init="uniform")["model"]["options"] == {"width": 2, "bn_init": "uniform"}
    assert problem(bn_init="uniform")["values"] != plain["values"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"bn_init": "unifrom"}, r"unknown bn_init 'unifrom' \(model lenet-300-100\); did you mean 'uniform'"),
        ({"bias_init": 0}, r"option 'bias_init' \(model lenet-300-100\) is 0; it must be of type str"),
        ({"bn_init": "uniform"}, r"option 'bn_init' \(model lenet-300-100\): the network has no BatchNorm"),
    ],
)
def test_starts_that_cannot_be_meant(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build("lenet-300-100", input_shape=(4,), classes=2, **options)


def test_images_are_normalised_by_the_constants_that_are_given() -> None:
    dataset = sl.Problem("lenet-300-100").dataset
    given, own = split(dataset, mean=[0.25], std=[0.5]), split(dataset)
    x = torch.tensor([0, 51, 255], dtype=torch.uint8).reshape(3, 1, 1, 1)
    assert given.prepare(x, torch.float64).flatten().tolist() == pytest.approx([-0.5, -0.1, 1.5], abs=1e-15)
    assert split(dataset, mean=own.mean, std=own.std).digest == own.digest != given.digest
    problem = sl.Problem("lenet-300-100", mean=(0.25,), std=(0.5,), train_size=50)
    again = sl.Problem.of(problem.spec())
    assert (again.splits.mean, again.splits.std) == ((0.25,), (0.5,))


@pytest.mark.parametrize(
    ("mean", "std", "sentence"),
    [
        ([0.1], None, r"are 1 numbers each, one per channel; got \[0.1\] and None"),
        ([0.1] * 3, [1.0] * 3, r"are 1 numbers each, one per channel; got \[0.1, 0.1, 0.1\]"),
        ([0.1], [0.0], r"std positive and finite; got \[0.1\] and \[0.0\]"),
        ([float("nan")], [1.0], r"data.mean is finite .* got \[nan\]"),
    ],
)
def test_constants_that_do_not_fit(mean, std, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        _ = sl.Problem("lenet-300-100", mean=mean, std=std).splits


def test_warm_up_from_zero_is_open_lth_s() -> None:
    """min(1, s / w), against (s + 1) / w."""
    recipe = Recipe(length=Duration(6, "it"), lr=1.0, warmup=Duration(4, "it"), warmup_from_zero=True)
    assert recipe.rates(1280) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    assert "warmup_from_zero" not in Recipe().document()


def small(**keys: Any) -> dict[str, Any]:
    data = {"train_size": 300, "test_size": 50, "validation": 0}
    train = {"epochs": 2, "batch_size": 100, "lr": 0.05, "momentum": 0.0}
    return {"name": "small", "levels": 1, "fraction": 0.5, "rewind": "2it", "data": data, "train": train, **keys}


def theta(result: sl.Result, cell: str, name: str = "end") -> torch.Tensor:
    key = next(c["key"] for c in result.document["cells"] if c["cell"] == cell)
    entry = result.store.read_entry(key)
    assert entry is not None
    return result.store.get_tensors(entry["objects"][name])["theta"]


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_dense_network_that_starts_at_the_rewind_step_loses_its_momentum_and_nothing_else(
    tmp_path: Path, momentum: float
) -> None:
    """Without momentum the two runs are one; with it they part at step k."""
    keys = small()
    keys["train"]["momentum"] = momentum
    ends = {}
    for start in ("init", "rewind"):
        result = sl.Study({**keys, "dense_start": start}, out=tmp_path).run(jobs=1, report=False)
        ends[start] = theta(result, "train/dense/L0/s0")
        rewound = theta(result, "train/dense/L0/s0", "step-2")
        steps = result.history.query("branch == 'dense'")["step"].tolist()
        assert steps == [3, 6]
    assert torch.equal(theta(result, "train/dense/L0/s0/opening"), rewound)
    assert set(result.history["branch"]) == {"dense (to step 2)", "dense", "imp"}
    assert result.levels.set_index("branch").loc[["dense", "imp"], "steps"].tolist() == [4, 4]
    assert set(result.levels["branch"]) == {"dense", "imp"}
    assert torch.equal(ends["init"], ends["rewind"]) == (momentum == 0)


def test_an_opening_has_the_data_order_of_the_study(tmp_path: Path) -> None:
    """Independent levels: the run to step k sees other batches than the dense network's own training."""
    for order, name in (("shared", ""), ("independent", "opening")):
        study = sl.Study(small(order=order, dense_start="rewind"), out=tmp_path)
        opening = study.cells[0].nodes["train/dense/L0/s0/opening"]
        assert (opening.inputs["order"], opening.inputs["last"]) == (name, 2)
    nodes = sl.Study(small(dense_start="rewind", rewind="0it"), out=tmp_path).cells[0].nodes
    assert nodes["train/dense/L0/s0"].inputs["start"] == {"init": "init"}, "there is nothing before step 0"
    assert "train/dense/L0/s0/opening" not in nodes


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        ({"train": {"checkpoints": ["1it"]}}, "train.checkpoints: 1it is step 1, before step 2, where"),
        (
            {"geometry": {"paths": {"instability": {"steps": ["0it"]}}}},
            "geometry.paths.instability.steps: 0it is step 0, before step 2",
        ),
    ],
)
def test_no_look_at_a_dense_network_before_it_starts(tmp_path: Path, keys: dict[str, Any], sentence: str) -> None:
    document = small(dense_start="rewind")
    document["train"] |= keys.pop("train", {})
    with pytest.raises(ConfigError, match=sentence):
        _ = sl.Study(document | keys, out=tmp_path).cells
    assert not list(tmp_path.iterdir())
