"""A run that is cut short after any step and goes on from what was kept: the bits of the run that was not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from cases import named
from sublevel.prune.repeated import repeated
from sublevel.prune.select import layer_counts
from sublevel.rng import generator
from sublevel.space import project
from sublevel.train import learned
from sublevel.train.engine import train
from sublevel.train.gradual import gradual
from sublevel.train.recipe import Duration, Recipe
from sublevel.train.resume import Snapshot, points, state, tensors
from sublevel.train.setup import TrainingSetup

STEPS = 12  # four epochs of three batches, the last of three examples
CASES = {name: named(name) for name in ("convolution", "dropout")}
RECIPE = Recipe(length=Duration(STEPS, "it"), batch_size=10, lr=0.05, weight_decay=1e-2, schedule="cosine")


class Killed(Exception):
    """As if the process had ended."""


@dataclass
class Disk:
    """Keeps a standing as bytes after the steps ``at``, and dies where a kill is due."""

    at: set[int] | None = None
    killed: int | None = None
    asked: int = 0
    bytes: dict[str, Any] = field(default_factory=dict)

    def due(self) -> bool:
        return True

    def save(self, s: Snapshot) -> None:
        if self.at is None or s.step in self.at:
            self.bytes = {
                "tensors": save({n: t.clone() for n, t in tensors(s).items()}),
                "about": (s.step, s.total, s.seen, [dict(row) for row in s.history]),
            }
        if s.step == self.killed:
            raise Killed

    def load(self) -> Snapshot | None:
        if not self.bytes:
            return None
        found = load(self.bytes["tensors"])
        step, total, seen, history = self.bytes["about"]
        return Snapshot(state(found), step, total, seen, history, points(found))


def setup(case, checkpointer, **change) -> TrainingSetup:
    return case.setup(**{"recipe": RECIPE, "seed": 3, "order": "own", "checkpointer": checkpointer} | change)


def weights(case, checkpointer, **change):
    mask = torch.rand(case.space.dim, generator=generator(0, "mask")) < 0.7
    done = train(setup(case, checkpointer, **change), case.point, mask=mask, checkpoints=(0, 2, 4, 9))
    return {"end": done.end, **{str(n): point for n, point in done.checkpoints.items()}}, done.history


def adam(case, checkpointer):
    return weights(case, checkpointer, recipe=replace(RECIPE, optimizer="adamw", lr=0.01))


def graphed(case, checkpointer):
    return weights(case, checkpointer, recipe=replace(RECIPE, optimizer="adam", lr=0.01, engine="graph"))


def sparse(case, checkpointer):
    return weights(case, checkpointer, recipe=replace(RECIPE, nesterov=True, engine="sparse"))


def popped(case, checkpointer):
    scores = learned.initial_scores(case.space, torch.float64, generator(0, "scores"))
    counts = layer_counts(case.space, case.space.full_mask())
    keep = [n // 2 for n in counts]
    done = learned.edge_popup(setup(case, checkpointer), case.point, scores, choose=repeated(case.space, keep))
    return {"end": done.end, "scores": done.scores}, done.history


def softened(case, checkpointer):
    scores = 0.1 * torch.randn(case.space.dim, dtype=torch.float64, generator=generator(0, "soft"))
    done = learned.continuous_sparsification(
        setup(case, checkpointer), case.point, scores, soft=case.space.prunable, penalty=1e-3, beta=20.0
    )
    return {"end": done.end, "scores": done.scores, "weights": done.weights}, done.history


def tightened(case, checkpointer):
    keep = {3: 40, 6: 30, 11: 20}

    def tighten(now, point, mask):
        among = (mask & case.space.prunable).nonzero().squeeze(1)
        best = among[point.theta[among].abs().argsort(descending=True)[: keep[now]]]
        left = ~case.space.prunable
        left[best] = True
        return left, project(point.theta, left)

    done = gradual(setup(case, checkpointer), case.point, tighten=tighten, at=sorted(keep))
    return {"end": done.end, "mask": done.mask, **{f"moment {n}": t for n, t in done.moments.items()}}, done.history


RUNS: dict[str, Callable[..., Any]] = {
    "sgd": weights,
    "adamw": adam,
    "graph": graphed,
    "sparse": sparse,
    "edge-popup": popped,
    "continuous-sparsification": softened,
    "gradual": tightened,
}


def flat(found: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Every tensor by name."""
    out = {}
    for name, value in found.items():
        parts = {"": value} if isinstance(value, torch.Tensor) else {"theta": value.theta, **value.buffers}
        out |= {f"{name}/{part}": tensor for part, tensor in parts.items()}
    return out


@pytest.fixture(autouse=True)
def every_layer_is_sparse(monkeypatch):
    """Where an engine is, small as it may be."""
    monkeypatch.setattr("sublevel.train.sparse.BELOW", 1.0)
    monkeypatch.setattr("sublevel.train.sparse.LARGE", 1)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)
def test_cut_short_anywhere_it_ends_with_the_same_bits(run, case):
    found, history = run(case, None)
    last = 11 if run is tightened else STEPS
    for killed in range(1, last):
        disk = Disk(killed=killed)
        with pytest.raises(Killed):
            run(case, disk)
        disk.killed = None
        again, told = run(case, disk)
        assert told == history
        for name, tensor in flat(found).items():
            assert torch.equal(flat(again)[name], tensor), (killed, name)


def test_what_was_kept_long_before_the_kill_is_as_good():
    case = CASES["convolution"]
    found, history = weights(case, None)
    disk = Disk(at={5}, killed=10)
    with pytest.raises(Killed):
        weights(case, disk)
    disk.killed = None
    again, told = weights(case, disk)
    assert told == history
    assert all(torch.equal(flat(again)[name], tensor) for name, tensor in flat(found).items())


def test_a_run_that_goes_on_takes_no_step_again():
    case, disk = CASES["convolution"], Disk(killed=7)
    with pytest.raises(Killed):
        weights(case, disk)
    disk.killed, looked = None, []
    weights(case, disk, watch=lambda now, point: looked.append(now.step) or {})
    assert looked == [9, 12]
