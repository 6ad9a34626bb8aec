"""The keys of trainings and masks, frozen: whatever changes one makes every network trained before worthless.

A study's graph is keyed with placeholders for the objects that cells make, so no network is trained here. The frozen
keys stand in ``keys.json``; to add a study, run this file as a script, and see in the diff that no line is changed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sublevel import models
from sublevel.space import Space
from sublevel.study.assemble import assemble
from sublevel.study.builder import BRANCHES
from sublevel.study.cells import key, numerics
from sublevel.study.documents import read
from sublevel.study.spec import parse

ROOT = Path(__file__).parents[3]
FROZEN = Path(__file__).with_name("keys.json")
KINDS = ("train", "mask", "start", "gradual", "edge-popup", "continuous-sparsification")

EVERY_BRANCH: dict[str, Any] = {
    "name": "every-branch",
    "seeds": [3, 5],
    "levels": 2,
    "fraction": 0.4,
    "rewind": "2it",
    "branches": [
        *({"name": name} for name in sorted(BRANCHES)),
        {"name": "imp", "order": "independent"},
        {"name": "imp", "options": {"fraction": 0.8, "criterion": "lamp"}},
        {"name": "reinit", "label": "late", "options": {"from_step": "rewind"}},
        {"name": "random-prune", "label": "by layer", "options": {"per_layer": True}},
    ],
    "protect": ["fc.weight"],
    "floor": 3,
    "train": {"epochs": 2, "batch_size": 50, "lr": 0.05, "checkpoints": ["4it"]},
    "geometry": {
        "paths": {"orders": {"branches": ["imp"], "levels": [1]}, "instability": {"steps": ["0it", "4it"], "orders": 2}}
    },
}
STUDIES: dict[str, tuple[Any, int]] = {
    "every-branch": (EVERY_BRANCH, 200),
    "trajectory": (EVERY_BRANCH | {"train": EVERY_BRANCH["train"] | {"trajectory": ["2it", "6it"]}}, 200),
    "demo": ("demo", 9_000),
    "paper": (read("paper") | {"seeds": 1}, 45_000),
    "mini-cifar10": (str(ROOT / "results/mini-cifar10/study.toml"), 10_000),
    "resnet20-cifar10": (str(ROOT / "results/resnet20-cifar10/study.toml"), 10_000),
    "resnet20-cifar10-three": (str(ROOT / "results/resnet20-cifar10/three-seeds.toml"), 10_000),
}


def keys(name: str) -> dict[str, str]:
    """The key of every cell that trains or prunes, by its readable name."""
    source, examples = STUDIES[name]
    spec = parse(read(source) if isinstance(source, str) else source)
    shape = (1, 28, 28) if "lenet" in spec.model.name else (3, 32, 32)
    module = models.build(spec.model.name, input_shape=shape, classes=10, **spec.model.options)
    network = models.fingerprint(spec.model.name, module, options=spec.model.options)
    problem = {"data": "ab" * 32, "loss": "cross-entropy", "model": network}
    arithmetic = numerics("cpu", spec.train.dtype, spec.threads, spec.processes)
    graph, _ = assemble(spec, Space.of(module), examples)
    return {
        node.id: key(node.kind, node.resolved(Placeholders()), problem, arithmetic)
        for node in graph.nodes.values()
        if node.kind in KINDS
    }


class Placeholders(Mapping[Any, str]):
    """A digest for every object that a cell will make, by the names of the two."""

    def __getitem__(self, ref: Any) -> str:
        return hashlib.sha256(f"{ref.node} {ref.output}".encode()).hexdigest()

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


@pytest.mark.parametrize("name", STUDIES)
def test_trainings_and_masks_keep_their_keys(name: str) -> None:
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))[name]
    found = keys(name)
    assert list(found) == list(frozen), "the study has other cells"
    changed = [cell for cell in found if found[cell] != frozen[cell]]
    assert not changed, f"{len(changed)} keys changed, the first that of {changed[:1]}"


def test_a_change_of_the_recipe_changes_every_key_of_a_training() -> None:
    """The frozen keys see what they must: another rate is another training."""
    frozen = json.loads(FROZEN.read_text(encoding="utf-8"))["every-branch"]
    other = EVERY_BRANCH | {"train": EVERY_BRANCH["train"] | {"lr": 0.06}}
    STUDIES["other"] = (other, 200)
    try:
        found = keys("other")
    finally:
        del STUDIES["other"]
    trained = [name for name in found if name.startswith("train/")]
    assert trained
    assert all(found[name] != frozen[name] for name in trained)
    masks = [name for name in found if name.startswith("mask/")]
    assert all(found[name] == frozen[name] for name in masks)


if __name__ == "__main__":
    FROZEN.write_text(json.dumps({name: keys(name) for name in STUDIES}, indent=0) + "\n", encoding="utf-8")
    sys.stdout.write(f"{FROZEN}\n")
