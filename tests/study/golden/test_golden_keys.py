"""The keys of all cells, frozen: whatever changes that of a training makes every network trained before worthless.

A study's graph is keyed with placeholders for the objects that cells make, so no network is trained here. The frozen
keys of trainings and masks stand in ``keys.json``, those of measurements in ``measured.json``: one by one for studies
with every measurement, by kind for the others. To add a study, run this file as a script, and see in the diff that no
line is changed. A kernel that gets a new version changes the keys of its kind.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from every import BARE, GIVEN, SET

from sublevel import models
from sublevel.space import Space
from sublevel.study.assemble import assemble
from sublevel.study.builder import BRANCHES
from sublevel.study.catalogue import KINDS as KNOWN
from sublevel.study.catalogue import key, numerics
from sublevel.study.documents import preset_names, read
from sublevel.study.given import Given
from sublevel.study.spec import parse

pytestmark = pytest.mark.xdist_group("golden keys")

ROOT = Path(__file__).parents[3]
FROZEN = Path(__file__).with_name("keys.json")
MEASURED = Path(__file__).with_name("measured.json")
KINDS = ("train", "mask", "start", "permuted-mask", "gradual", "edge-popup", "continuous-sparsification")

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


BATCH_NORM = {"name": "resnet-8", "options": {"width": 2}}
EVERY: dict[str, tuple[Any, int]] = {
    "set": (SET, 200),
    "bare": (BARE | {"model": BATCH_NORM}, 200),
    "given": (GIVEN | {"model": {"name": "resnet-8"}}, 200),
}
PRESETS: dict[str, tuple[Any, int]] = {
    **{name: (read(name) | {"seeds": 1}, 45_000) for name in preset_names() if name != "paper-vgg16"},
    **{name: STUDIES[name] for name in ("mini-cifar10", "resnet20-cifar10")},
}


def keyed(source: Any, examples: int) -> list[tuple[str, str, str]]:
    """The kind, the readable name and the key of every cell of a study."""
    return keyed_once(json.dumps(source), examples)


@lru_cache
def keyed_once(text: str, examples: int) -> list[tuple[str, str, str]]:
    """Some studies are looked at twice."""
    source = json.loads(text)
    spec = parse(read(source) if isinstance(source, str) else source)
    shape = (1, 28, 28) if "lenet" in spec.model.name else (3, 32, 32)
    module = models.build(spec.model.name, input_shape=shape, classes=10, **spec.model.options)
    network = models.fingerprint(spec.model.name, module, options=spec.model.options)
    problem = {"data": "ab" * 32, "loss": "cross-entropy", "model": network}
    arithmetic = numerics("cpu", spec.train.dtype, spec.threads, spec.processes)
    given = [Given(each.name, each.name.encode(), b"mask" if i else None) for i, each in enumerate(spec.given)]
    graph, _ = assemble(spec, Space.of(module), examples, given)
    return [
        (node.kind, node.id, key(node.kind, node.resolved(Placeholders()), problem, arithmetic))
        for node in graph.nodes.values()
    ]


def keys(name: str) -> dict[str, str]:
    """The key of every cell that trains or prunes, by its readable name."""
    return {cell: found for kind, cell, found in keyed(*STUDIES[name]) if kind in KINDS}


def measured(name: str) -> dict[str, str]:
    """The key of every cell that measures, by its readable name."""
    return {cell: found for kind, cell, found in keyed(*EVERY[name]) if kind not in KINDS}


def by_kind(name: str) -> dict[str, str]:
    """The number of cells of every kind, and a digest of their names and keys in the order of the study."""
    lines: dict[str, list[str]] = {}
    for kind, cell, found in keyed(*PRESETS[name]):
        lines.setdefault(kind, []).append(f"{cell} {found}")
    return {kind: f"{len(of)} {hashlib.sha256(chr(10).join(of).encode()).hexdigest()}" for kind, of in lines.items()}


class Placeholders(Mapping[Any, str]):
    """A digest for every object that a cell will make, by the names of the two."""

    def __getitem__(self, ref: Any) -> str:
        return hashlib.sha256(f"{ref.node} {ref.output}".encode()).hexdigest()

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


def check_same(found: dict[str, str], frozen: dict[str, str]) -> None:
    assert list(found) == list(frozen), "the study has other cells"
    changed = [cell for cell in found if found[cell] != frozen[cell]]
    assert not changed, f"{len(changed)} keys changed, the first that of {changed[:1]}"


@pytest.mark.parametrize("name", STUDIES)
def test_trainings_and_masks_keep_their_keys(name: str) -> None:
    check_same(keys(name), json.loads(FROZEN.read_text(encoding="utf-8"))[name])


@pytest.mark.parametrize("name", EVERY)
def test_measurements_keep_their_keys(name: str) -> None:
    check_same(measured(name), json.loads(MEASURED.read_text(encoding="utf-8"))[name])


@pytest.mark.parametrize("name", PRESETS)
def test_the_cells_of_the_presets_keep_their_keys(name: str) -> None:
    assert by_kind(name) == json.loads(MEASURED.read_text(encoding="utf-8"))[name]


def test_every_kind_of_cell_is_frozen() -> None:
    known = {kind for kind, _, _ in (*keyed(*EVERY["set"]), *keyed(*EVERY["given"]))}
    assert known | set(KINDS) == set(KNOWN)


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
    every = {name: measured(name) for name in EVERY} | {name: by_kind(name) for name in PRESETS}
    for path, found in ((FROZEN, {name: keys(name) for name in STUDIES}), (MEASURED, every)):
        path.write_text(json.dumps(found, indent=0) + "\n", encoding="utf-8")
        sys.stdout.write(f"{path}\n")
