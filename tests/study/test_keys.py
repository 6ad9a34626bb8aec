"""A key says what a result was computed from: all of it, and nothing else."""

from __future__ import annotations

import hashlib
import importlib
import shutil
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sublevel as sl
import tiny_runs
from sublevel.engine.store import cell_name
from sublevel.study.catalogue import KINDS, key, numerics
from sublevel.train.recipe import Recipe
from tiny_runs import python

INPUTS = {"point": "ab" * 32, "mask": None, "size": 10, "eps": 0.1}
PROBLEM = {"data": "cd" * 32, "model": {"name": "lenet-300-100", "options": {}}, "loss": "cross-entropy"}
NUMERICS = {"device": "cpu", "dtype": "float32", "tf32": False, "torch": "2.9", "engine": "eager-2", "threads": 1}


def test_a_key_is_the_same_everywhere() -> None:
    """Frozen: every stored result hangs on it. It changes with the kernel's version and for no other reason."""
    document = (
        '{"inputs":{"eps":0.1,"mask":null,"point":"POINT","size":10},"kind":"leg","numerics":{"device":"cpu",'
        '"dtype":"float32","engine":"eager-2","tf32":false,"threads":1,"torch":"2.9"},"problem":{"data":"DATA",'
        '"loss":"cross-entropy","model":{"name":"lenet-300-100","options":{}}},"version":VERSION}'
    )
    for name, value in (("POINT", "ab" * 32), ("DATA", "cd" * 32), ("VERSION", KINDS["leg"].version)):
        document = document.replace(name, str(value))
    assert key("leg", INPUTS, PROBLEM, NUMERICS) == hashlib.sha256(document.encode()).hexdigest()
    shuffled = dict(reversed(INPUTS.items()))
    assert key("leg", shuffled, dict(reversed(PROBLEM.items())), NUMERICS) == key("leg", INPUTS, PROBLEM, NUMERICS)


def test_everything_that_decides_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {key("leg", INPUTS, PROBLEM, NUMERICS), key("solution", INPUTS, PROBLEM, NUMERICS)}
    for name in INPUTS:
        seen.add(key("leg", INPUTS | {name: "other"}, PROBLEM, NUMERICS))
    for name in PROBLEM:
        seen.add(key("leg", INPUTS, PROBLEM | {name: "other"}, NUMERICS))
    for name in NUMERICS:
        seen.add(key("leg", INPUTS, PROBLEM, NUMERICS | {name: "other"}))
    monkeypatch.setitem(KINDS, "leg", replace(KINDS["leg"], version=KINDS["leg"].version + 1))
    seen.add(key("leg", INPUTS, PROBLEM, NUMERICS))
    assert len(seen) == 2 + len(INPUTS) + len(PROBLEM) + len(NUMERICS) + 1
    assert set(numerics("cpu", "float32", 1)) == set(NUMERICS)


@pytest.fixture
def there(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    monkeypatch.syspath_prepend(finished)
    return finished


def waiting(source: Any = "tiny.toml", **keys: Any) -> dict[str, int]:
    """How many cells of each kind would run."""
    plan = sl.Study(source, **keys).plan(jobs=1)
    return {kind: row["to run"] for kind, row in plan.cells.items() if row["to run"]}


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"name": "another-name"},
        {"seeds": [5, 3]},
        {"seeds": [3]},
        {"branches": [{"name": "imp", "label": "one"}, {"name": "oneshot", "label": "two"}], "geometry": {}},
        {"branches": ["reinit", "imp"], "geometry": {}},
        {"out": "elsewhere", "store": "sublevel-runs/.store"},
        {"model": {"options": {}}},
        {"train": {"momentum": 0.9}},
        {"train": {"length": "2ep"}},
        {"levels": 1, "geometry": {}},
    ],
)
def test_what_changes_no_number_changes_no_key(there: Path, keys: dict[str, Any]) -> None:
    assert waiting(**keys) == {}


def test_folders_are_in_no_key(there: Path, tmp_path: Path) -> None:
    shutil.copytree(there / "sublevel-runs" / ".store", tmp_path / "moved-store")
    shutil.copy(there / "data.npz", tmp_path / "renamed.npz")
    assert waiting(store=tmp_path / "moved-store", data={"root": str(tmp_path / "renamed.npz")}) == {}


def test_a_problem_in_python_has_the_keys_of_the_study_file(there: Path) -> None:
    net = importlib.import_module("tiny_net")
    study = sl.Study("tiny.toml")
    keys = study.spec.document() | {"store": there / "sublevel-runs" / ".store"}
    problem = sl.Problem(net.tiny, data="arrays", root="data.npz", validation=40)
    rest = {k: v for k, v in keys.items() if k not in ("data", "model", "loss", "loop")}
    assert waiting(problem, **rest) == {}


CHANGES: list[dict[str, Any]] = [
    {"seeds": [4]},
    {"threads": 2},
    {"train": {"dtype": "float64"}},
    {"data": {"validation": 41}},
    {"data": {"test_size": 59}},
    {"data": {"train_size": 199}},
    {"model": {"options": {"width": 5}}},
    {"model": {"version": "2"}},
    {"rewind": "3it"},
]
CHANGES += [
    {"train": change}
    for change in (
        {"epochs": 3},
        {"batch_size": 51},
        {"lr": 0.06},
        {"momentum": 0.8},
        {"nesterov": True},
        {"weight_decay": 0.0},
        {"schedule": "cosine"},
        {"schedule": "milestones", "milestones": ["1ep"]},
        {"warmup": "1it"},
        {"crop": 1},
        {"flip": True},
    )
]


def dense_is_there(**keys: Any) -> bool:
    """Whether the store has the dense run of the study with some keys changed."""
    study = sl.Study("tiny.toml", **keys)
    node = study.cells[0].nodes[f"train/dense/L0/s{study.spec.seeds[0]}"]
    name = key("train", node.inputs, study.problem.fingerprint(), study.numerics)
    return (Path(study.store_at) / cell_name(name)).is_file()


def test_the_dense_run_is_there(there: Path) -> None:
    assert dense_is_there()


@pytest.mark.parametrize("keys", CHANGES, ids=str)
def test_what_changes_numbers_changes_the_dense_run(there: Path, keys: dict[str, Any]) -> None:
    assert not dense_is_there(**keys)


@pytest.mark.parametrize(
    ("keys", "cached"),
    [({"fraction": 0.41}, 2), ({"scope": "layer"}, 2), ({"order": "independent"}, 2), ({"finetune_lr": 0.01}, 8)],
)
def test_what_changes_the_branches_keeps_the_dense_run(there: Path, keys: dict[str, Any], cached: int) -> None:
    plan = sl.Study("tiny.toml", **keys, geometry={}).plan(jobs=1)
    assert plan.cells["train"]["cached"] >= cached
    assert plan.cells["train"]["to run"] > 0


def test_one_changed_pixel_or_label_changes_every_key(there: Path, tmp_path: Path) -> None:
    arrays = tiny_runs.arrays()
    for name in ("train_x", "train_y", "test_x", "test_y"):
        changed = {k: v.copy() for k, v in arrays.items()}
        changed[name].reshape(-1)[-1] = (changed[name].reshape(-1)[-1] + 1) % 3
        np.savez(tmp_path / "changed.npz", **changed)
        assert not dense_is_there(data={"root": str(tmp_path / "changed.npz")}), name


def test_edited_code_changes_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The factory, a class it uses, a function that the class calls, a constant."""
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        "from torch import nn\nSLOPE = 0.1\n\n\ndef bend(x):\n    return nn.functional.leaky_relu(x, SLOPE)\n\n\n"
        + tiny_runs.NET.replace(".relu()", "")
        .replace("return self.linear(", "return self.linear(bend(")
        .replace(".flatten(1))", ").flatten(1))")
    )
    edits = [
        ("SLOPE = 0.1", "SLOPE = 0.2"),
        ("leaky_relu(x, SLOPE)", "leaky_relu(x, SLOPE) + 0"),
        ("width=4", "width=3"),
    ]
    seen = []
    for i, (old, new) in enumerate([("", ""), *edits]):
        module = f"edited_net_{i}"
        (tmp_path / f"{module}.py").write_text(text.replace(old, new))
        problem = sl.Problem(f"{module}:tiny", data="arrays", root=_data(tmp_path), validation=40)
        model = (problem.fingerprint() or {})["model"]
        seen.append((model["source"], str(model["state"])))
    assert len(set(seen)) == len(seen)


def _data(folder: Path) -> Path:
    np.savez(folder / "data.npz", **tiny_runs.arrays())
    return folder / "data.npz"


@dataclass(frozen=True, kw_only=True)
class LaterRecipe(Recipe):
    """A recipe with a field that came later."""

    noise: float = field(default=0.0, metadata={"introduced": 0.0})


def test_a_new_field_at_its_first_value_leaves_old_keys_alone() -> None:
    assert LaterRecipe().document() == Recipe().document()
    assert LaterRecipe(noise=0.1).document() == Recipe().document() | {"noise": 0.1}
    assert LaterRecipe.from_document(Recipe().document()) == LaterRecipe()


@dataclass(frozen=True, kw_only=True)
class ChangedDefault(Recipe):
    """The same, after its default was changed."""

    noise: float = field(default=0.5, metadata={"introduced": 0.0})


def test_a_changed_default_does_not_reuse_old_results() -> None:
    assert ChangedDefault().document() == Recipe().document() | {"noise": 0.5}
    assert ChangedDefault(noise=0.0).document() == Recipe().document()
    assert ChangedDefault.from_document(Recipe().document()).noise == 0.0


def test_every_recipe_field_is_in_the_key_or_says_when_it_came() -> None:
    document = Recipe().document()
    assert all(f.name in document or "introduced" in f.metadata for f in fields(Recipe))


TWICE = """
import sys, sublevel as sl
study = sl.Study("small.toml")
print(*[study.cells[0].nodes["train/dense/L0/s0"].id], sl.Study("small.toml").plan(jobs=1).to_run)
from sublevel.study.catalogue import key
print(key("train", study.cells[0].nodes["train/dense/L0/s0"].inputs, study.problem.fingerprint(), study.numerics))
"""


@pytest.mark.full
def test_another_process_makes_the_same_key(there: Path, tmp_path: Path) -> None:
    """Whatever the hash seed and the working threads are."""
    keys = [
        python("-c", TWICE, cwd=there, PYTHONHASHSEED=seed, OMP_NUM_THREADS=threads).stdout.splitlines()[-1]
        for seed, threads in (("1", "1"), ("2", "2"))
    ]
    assert keys[0] == keys[1]
    assert len(keys[0]) == 64
