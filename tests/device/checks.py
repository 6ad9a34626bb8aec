"""What must hold on a device, each in a function of the pretend machine (None on a real GPU)."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import sublevel as sl
from cases import named
from sublevel.data.splits import Part
from sublevel.errors import ConfigError
from sublevel.problem import Problem
from sublevel.prune.repeated import repeated
from sublevel.prune.scores import lamp
from sublevel.rng import generator
from sublevel.study.costs import rate
from sublevel.train.engine import train
from sublevel.train.recipe import Duration, Recipe

RECIPE = Recipe(length=Duration(20, "it"), batch_size=10, lr=0.01)
SHORT = {"epochs": 1, "batch_size": 10}


def ended(name: str, engine: str, device: str = "cuda", **changes: Any) -> Any:
    """Where twenty steps of a case end, in float64; the last batch of an epoch is smaller."""
    case = named(name)
    x, y = (t.to(device) for t in case.data)
    recipe, net = replace(RECIPE, engine=engine, **changes), case.build().double().to(device)
    setup = case.setup(module=net, data=Part(x, y), recipe=recipe, seed=3)
    return train(setup, case.point.to(device), mask=case.space.full_mask().to(device)).end


def graphs_take_the_steps_of_the_reference(machine: Any) -> None:
    """In float64, whose rate CUDA's fused kernel would read as float32."""
    sgd, adam = {"optimizer": "sgd"}, {"optimizer": "adamw"}
    for name, changes in (
        ("perceptron", sgd), ("perceptron", {"nesterov": True}), ("perceptron", {"momentum": 0.0}),
        ("convolution", sgd), ("convolution", adam),
    ):  # fmt: skip
        eager, graph = (ended(name, engine, **changes) for engine in ("eager", "graph"))
        host = ended(name, "eager", "cpu", **changes)
        torch.testing.assert_close(graph.theta, eager.theta, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(graph.theta.cpu(), host.theta, rtol=1e-9, atol=1e-10)


def cumulative_statistics_are_not_captured(machine: Any) -> None:
    with pytest.raises(ConfigError, match=r"'graph' cannot capture BatchNorm1d\(momentum=None\), .* \(1\): leave"):
        ended("normalised", "graph")
    ended("normalised", "eager")


class Waiting(nn.Module):
    """Its forward pass asks the device for a number."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.drop = nn.Linear(4, 2), nn.Dropout(0.5)

    def forward(self, x):
        return self.drop(self.layer(x)) * (1.0 if float(x.sum()) > 0 else 2.0)


def data(n: int = 25) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(n, 4, generator=generator(0, "probe")), torch.arange(n) % 2


def own(net: Any = None, **more: Any) -> Problem:
    """A linear network, or another one, on data of one's own."""
    net = net or (lambda input_shape, classes: nn.Linear(4, 2))
    return Problem(net, train=data(), test=data(10), validation=0, version="1", **more)


def a_failed_capture_is_a_sentence_and_does_no_harm(machine: Any) -> None:
    """A network that always waits fails in its warm-up; one that waits while it is captured leaves the generators in
    the capture. Random numbers are afterwards what they would have been.
    """
    capturing = torch.cuda.is_current_stream_capturing if machine is None else lambda: machine.recorder is not None

    class Later(Waiting):
        def forward(self, x):
            return self.drop(self.layer(x)) * (1.0 if not capturing() or float(x.sum()) > 0 else 2.0)

    for net in (Waiting, Later):
        problem = own(net, device="cuda")
        torch.manual_seed(0)
        expected = torch.rand(3, device="cuda")
        torch.manual_seed(0)
        with pytest.raises(ConfigError, match="'graph' cannot capture a step of this network: leave"):
            problem.trained(problem.init(0), recipe=replace(RECIPE, engine="graph"), seed=0)
        assert torch.equal(torch.rand(3, device="cuda"), expected)
        ends = [problem.trained(problem.init(0), recipe=RECIPE, seed=0).end.theta for _ in range(2)]
        assert torch.equal(*ends)
        graphs_of_another_card(machine)


def graphs_of_another_card(machine: Any) -> None:
    """The card of the tensors is captured, whichever is current."""
    if torch.cuda.device_count() < 2:
        return
    assert torch.cuda.current_device() == 0
    eager, graph = (ended("perceptron", engine, "cuda:1") for engine in ("eager", "graph"))
    torch.testing.assert_close(graph.theta, eager.theta, rtol=1e-9, atol=1e-10)
    assert torch.cuda.current_device() == 0


def results_lie_on_the_device_of_the_problem_that_was_given(machine: Any) -> None:
    for device in ("cpu", "cuda"):
        study = sl.Study(
            own(device=device), name=f"at-{device}", out="results", levels=1, branches=["imp"],
            train=SHORT,
        )  # fmt: skip
        assert study.problem.device == "cuda"
        result = study.run(jobs=1, report=False)
        assert result.problem.device == device
        assert "cpu" not in result.document["about"]["hardware"]["device"]
        ticket, field = result.ticket("imp", 1), result.problem.field("test")
        assert field.loss(result.point("imp", 1)) == field.loss(ticket.end) > 0
        assert {t.device.type for t in (ticket.mask, ticket.start.theta, ticket.end.theta)} == {device}
        x = result.problem.prepare(result.problem.splits.test.x)
        assert ticket.module()(x).device.type == device
        path = ticket.save(f"{device}.safetensors", end=True)
        assert sl.Ticket.load(path).end.theta.device.type == "cpu"
        again = sl.open(study.folder).point("imp", 1)
        assert torch.equal(again.theta.cpu(), ticket.end.theta.cpu())


def a_study_stays_where_its_problem_is(machine: Any) -> None:
    assert sl.Study(own(device="cuda:1")).problem.device == "cuda:1" or machine is None
    assert sl.Study(own(device="cuda:1"), device="cpu").problem.device == "cpu" or machine is None
    study = sl.Study(own(), name="host", device="cpu", out="results", levels=1, branches=["imp"], train=SHORT)
    assert study.run(jobs=1, report=False).document["about"]["hardware"]["device"] == "cpu"


class Sums(nn.Module):
    """Adds by operations for which CUDA has kernels with a fixed order on request, and by some where it has none."""

    def __init__(self, ordered: bool) -> None:
        super().__init__()
        self.first, self.layer, self.ordered = nn.Linear(4, 4), nn.Linear(4, 2), ordered

    def forward(self, x):
        x, at = self.first(x), torch.arange(4, device=x.device) % 2
        x = x + torch.zeros_like(x).index_add(1, at, x).scatter_add(1, at.expand(len(x), 4), x)
        if not self.ordered:
            x = nn.functional.interpolate(x.cumsum(1).view(-1, 1, 2, 2), scale_factor=2, mode="bilinear").view(-1, 16)
            x = nn.functional.adaptive_avg_pool2d(x.view(-1, 1, 4, 4), 2).flatten(1)
        return self.layer(x)


def sums(ordered: bool) -> Problem:
    net, parts = (lambda input_shape, classes: Sums(ordered)), {"train": data(), "test": data(10)}
    return Problem(net, **parts, validation=0, version=f"ordered: {ordered}", device="cuda")


def sums_have_a_fixed_order_where_pytorch_has_one(machine: Any) -> None:
    """In the cells of a study on a GPU; the process's setting is as before."""
    assert not torch.are_deterministic_algorithms_enabled()
    study = sl.Study(sums(True), name="sums", out="results", levels=1, branches=["imp"], train=SHORT)
    assert not any("fixed order" in note for note in study.notes())
    if machine is not None:
        machine.seen.unordered.clear()
    assert not len(study.run(jobs=1, report=False).failures)
    assert not torch.are_deterministic_algorithms_enabled()
    if machine is not None:
        assert not machine.seen.unordered
        study.problem.trained(study.problem.init(0), recipe=RECIPE, seed=0)
        assert any("index_add" in where for where in machine.seen.unordered)


def sums_without_a_fixed_order_are_named(machine: Any) -> None:
    here, host = (
        sl.Study(sums(False), name="named", out="results", device=device, levels=1, branches=["imp"], train=SHORT)
        for device in ("cuda", "cpu")
    )
    (note,) = (note for note in here.notes() if "fixed order" in note)
    assert re.search("for _?adaptive_avg_pool2d_backward, cumsum: two runs", note)  # interpolate takes other operations
    assert not any("fixed order" in note for note in host.notes())
    assert not len(here.run(jobs=1, report=False).failures)


def data_in_files_are_read_ahead_onto_the_device(machine: Any) -> None:
    folder, (x, y) = Path(tempfile.mkdtemp(dir=".")), data()
    for split, n in (("train", 25), ("test", 10)):
        np.save(folder / f"{split}_x-0.npy", x[:n].numpy())
        np.save(folder / f"{split}_y-0.npy", y[:n].numpy())
    named = Problem(
        lambda input_shape, classes: nn.Linear(4, 2), data="shards", root=folder, version="1", device="cuda"
    )
    held = own(device="cuda")
    ends = [p.trained(p.init(0), recipe=RECIPE, seed=0).end.theta for p in (replace(named, validation=0), held)]
    assert torch.equal(*ends)


def plans_do_not_time_the_first_call(machine: Any) -> None:
    """Nor what it loads: here a second and a half."""
    import time

    problem, calls = own(device="cuda"), []
    trained = Problem.trained

    def cold(self: Any, *given: Any, **how: Any) -> Any:
        if not calls:
            time.sleep(1.5)
        calls.append(len(how["rates"]))
        return trained(self, *given, **how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Problem, "trained", cold)
        rate(problem, RECIPE, 1, seconds=0.2)
    assert len(calls) > 2, "a first step that took longer than the whole measurement would have ended it"
    plan = sl.Study(own(device="cuda"), levels=1, branches=["imp"], train=SHORT).plan(jobs=1)
    assert any("--jobs 4" in note for note in plan.notes)


def criteria_add_in_a_fixed_order_and_learned_masks_do_not_wait(machine: Any) -> None:
    case = named("convolution")
    point = case.point.to("cuda")
    on_device, on_host = (lamp(at, None, generator(0, "prune"), space=case.space) for at in (point, case.point))
    torch.testing.assert_close(on_device.cpu(), on_host, rtol=0, atol=0)
    choose, scores = repeated(case.space, [20]), point.theta.abs()
    mask = choose(scores)
    assert torch.equal(mask.cpu(), repeated(case.space, [20])(scores.cpu()))
    if machine is not None:
        assert not any("cumsum" in where for where in machine.seen.unordered)
        before = machine.seen.waits.total()
        choose(scores)
        assert machine.seen.waits.total() == before


def fields_take_larger_batches(machine: Any) -> None:
    host, here = (Problem("resnet-20", train_size=1000, test_size=10, device=d) for d in ("cpu", "cuda"))
    assert host.field_batch < 300
    assert here.field_batch == 1000


def the_doctor_tries_the_device(machine: Any) -> None:
    from sublevel.cli.doctor import _wrong_gpu

    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        assert list(_wrong_gpu("cuda")) == []


def the_benchmark_measures_ieee_float32(machine: Any) -> None:
    """Beside TF32 by name; the engines end at the same weights, the smaller last batch among their steps."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
    import gpu

    out = tempfile.mkdtemp(dir=".")
    with contextlib.redirect_stdout(io.StringIO()):
        assert gpu.main(["--tiny", "--models", "lenet-300-100", "--networks", "2", "--out", out]) == 0
    found = json.loads((Path(out) / "gpu.json").read_text())
    assert found["training"]["lenet-300-100"]["graph against eager after 20 steps, relative distance"] < 1e-5
    if machine is not None:
        machine.seen.tf32.clear()
        bench = gpu.Bench("cuda", True)
        bench.geometry()
        assert not machine.seen.tf32
