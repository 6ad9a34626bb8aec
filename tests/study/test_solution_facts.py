"""What a solution is stands in columns, whatever its label says; which examples it answers right, bit for bit."""

from __future__ import annotations

from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import sublevel as sl
import tiny_runs
from sublevel.study.catalogue import KINDS

BRANCHES = [
    "imp",
    {"name": "imp", "label": "small", "options": {"fraction": 0.1}},
    {"name": "imp", "label": "oneshot-0.9", "order": "independent"},
    {"name": "imp", "options": {"fraction": 0.6, "criterion": "lamp"}},
    {"name": "oneshot", "label": "dense-like", "options": {"criterion": "random"}},
    "reinit",
    "random-imp",
    {"name": "random-prune", "label": "imp by layer", "options": {"per_layer": True}},
    {"name": "edge-popup", "label": "imp-learned"},
]
FACTS = {
    "dense": ("dense", None, None, "shared"),
    "imp": ("imp", 0.4, "magnitude", "shared"),
    "small": ("imp", 0.1, "magnitude", "shared"),
    "oneshot-0.9": ("imp", 0.4, "magnitude", "independent"),
    "imp-0.6-lamp": ("imp", 0.6, "lamp", "shared"),
    "dense-like": ("oneshot", 0.4, "random", "shared"),
    "reinit": ("reinit", 0.4, "magnitude", "shared"),
    "random-imp": ("random-imp", 0.4, "random", "shared"),
    "imp by layer": ("random-prune", 0.4, "random", "shared"),
    "imp-learned": ("edge-popup", 0.4, "edge-popup", "shared"),
}
"""Label -> base, fraction, criterion, order."""


def net(classes: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, classes))


def study(where: Path, **keys: Any) -> sl.Study:
    a = {name: torch.from_numpy(v) for name, v in tiny_runs.arrays().items()}
    splits = {part: (a[f"{part}_x"][:, None], a[f"{part}_y"]) for part in ("train", "test")}
    train = {"epochs": 2, "batch_size": 50, "lr": 0.05, "flip": True}
    given: dict[str, Any] = {"levels": 1, "fraction": 0.4, "rewind": "2it", "branches": ["imp"], "train": train}
    return sl.Study(sl.Problem(net, **splits, validation=37), out=where, **given | keys)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    done = study(tmp_path_factory.mktemp("facts"), branches=BRANCHES).run(jobs=1, report=False)
    assert len(done.failures) == 0, done.failures["error"].tolist()
    return done


def test_facts_are_read_from_the_solution_and_not_from_its_label(result: sl.Result) -> None:
    found = result.levels.set_index("branch")[["base", "fraction", "criterion", "order"]]
    assert set(found.index) == set(FACTS)
    for label, facts in FACTS.items():
        row = [None if pd.isna(v) else v for v in found.loc[label]]
        assert row == list(facts), label


@pytest.mark.parametrize(
    ("prune", "share"), [({"densities": [0.5, 0.1]}, None), ({"target": 0.25}, 0.5)], ids=["densities", "target"]
)
def test_the_fraction_of_a_study_that_says_densities(tmp_path: Path, prune: Any, share: float | None) -> None:
    graph, solutions = study(tmp_path, levels=2, fraction=0.2, prune=prune).cells
    imp = [n for n in graph.nodes.values() if n.kind == "solution" and n.labels["base"] == "imp"]
    assert len(solutions) == 3
    assert [n.labels["fraction"] for n in imp] == [share, share]


def test_the_dense_loss_at_the_rewind_step_is_that_of_its_stored_point(result: sl.Result) -> None:
    levels = result.levels.set_index("branch")["train_loss_start"]
    start = result.ticket("imp", 1).start
    assert levels["dense"] == pytest.approx(result.problem.field("train").loss(start), rel=1e-12)
    assert levels.drop("dense").isna().all()


def test_at_step_0_it_is_that_of_the_initialisation(tmp_path: Path) -> None:
    done = study(tmp_path, rewind="0it").run(jobs=1, report=False)
    row = done.levels.query("base == 'dense'").iloc[0]
    assert row["train_loss_start"] == pytest.approx(done.problem.field("train").loss(done.problem.init(0)), rel=1e-6)
    assert row["train_loss_start"] > row["train_loss"]


def test_bits_say_which_examples_are_right(result: sl.Result) -> None:
    assert len(result.correct) == 2 * len(FACTS)
    levels = result.levels.set_index("branch")
    for _, row in result.correct.iterrows():
        assert row["examples"] == {"validation": 37, "test": len(result.problem.splits.test)}[row["split"]]
        bits = np.unpackbits(np.frombuffer(b64decode(row["bits"]), np.uint8), count=row["examples"]).astype(bool)
        at = result.point(row["branch"], row["level"])
        part = result.problem.part(row["split"])
        with torch.no_grad():
            field = result.problem.field(row["split"])
            said = field.outputs(at.theta, at.buffers, field.prepare(part.x), "stored").argmax(dim=1)
        assert bits.tolist() == (said == part.y).tolist()
        assert 1 - bits.mean() == pytest.approx(levels.loc[row["branch"], f"{row['split']}_error"])


def test_a_split_of_no_examples_has_no_bits(tmp_path: Path) -> None:
    a = {name: torch.from_numpy(v) for name, v in tiny_runs.arrays().items()}
    splits = {part: (a[f"{part}_x"][:, None], a[f"{part}_y"]) for part in ("train", "test")}
    problem = sl.Problem(net, **splits, validation=0)
    done = sl.Study(problem, out=tmp_path, levels=1, train={"epochs": 1, "batch_size": 50}).run(jobs=1, report=False)
    assert set(done.correct["split"]) == {"test"}


def test_tokens_and_numbers_have_no_bits() -> None:
    """A sequence is right in a share of its tokens; the two means are those of `evaluate`."""
    sequences = torch.randn(20, 5, 4), torch.randint(3, (20, 5))
    problem = sl.Problem(lambda: nn.Linear(4, 3), train=sequences, test=sequences, validation=0)
    field, at = problem.field("train"), problem.init(0)
    evaluation, right = field.evaluation_and_correct(at)
    assert evaluation == field.evaluate(at)
    assert 0 < evaluation.error < 1
    assert len(right) == 0


def test_a_result_of_before_has_its_rows() -> None:
    """An entry of a store that held no bits, and no loss at the rewind step."""
    entry = {"values": {"row": {"train_loss": 0.5}, "layers": []}, "inputs": {}}
    labels = {"branch": "imp", "level": 1, "seed": 0}
    assert list(KINDS["solution"].rows({}, labels, entry)) == [("levels", {**labels, "train_loss": 0.5})]
