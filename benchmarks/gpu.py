"""Training, evaluation and curvature on one CUDA GPU, beside a bare loop.

    PYTHONPATH=src python benchmarks/gpu.py --out out        # minutes; --device cpu --tiny tries it anywhere

Needs torch, numpy and safetensors. Images are random: speed does not depend on what is on them. Every figure comes with
its repetitions; ratios are of one run. Where the engine of CUDA graphs fails, or ends elsewhere than the eager one in
twenty steps, the record says so. Several networks at once have a stream each, their steps in turn; the rate is that of
all together.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from parity import apart
from sublevel.errors import ConfigError
from sublevel.geometry import paths
from sublevel.geometry.curvature import top_eigenvalues
from sublevel.numerics import tf32
from sublevel.problem import Problem
from sublevel.rng import generator
from sublevel.train.engines import weights
from sublevel.train.recipe import Duration, Recipe

MODELS = ("lenet-300-100", "resnet-8", "resnet-20", "vgg-16")
KINDS = {"float32": {}, "tf32": {"tf32": True}, "bf16": {"bf16": True}}
TARGETS = {
    "one resnet-20, images per second, faster of float32 and tf32": 120_000,
    "several resnet-20 together, images per second": 250_000,
    "top 20 Hessian eigenvalues on 10,000 images, seconds": 20,
}

Step = Callable[[int], object]


class Bench:
    """One device, one size of everything."""

    def __init__(self, device: str, tiny: bool) -> None:
        self.device, self.tiny = device, tiny
        self.steps, self.rounds = (1, 1) if tiny else (100, 5)
        self.examples = 130 if tiny else 10_000

    def problem(self, model: str) -> Problem:
        """A network on random images."""
        shape = (1, 28, 28) if model.startswith("lenet") else (3, 32, 32)
        g = generator(0, "probe")
        x = torch.randint(0, 256, (self.examples, *shape), generator=g, dtype=torch.uint8)
        y = torch.randint(0, 10, (self.examples,), generator=g)
        options = {"width": 4} if self.tiny and model.startswith("resnet") else {}
        return Problem(
            model, train=(x, y), test=(x[:10], y[:10]), validation=0, options=options, device=self.device
        )  # fmt: skip

    def recipe(self, model: str, **changes: Any) -> Recipe:
        """The paper's, with augmentation for images in colour."""
        colour = not model.startswith("lenet")
        return Recipe(length=Duration(1, "ep"), crop=4 * colour, flip=colour, **changes)

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device != "cpu":
            torch.cuda.synchronize()

    def seconds(self, function: Callable[[], object]) -> float:
        """Wall time of one call."""
        self.wait()
        began = time.perf_counter()
        function()
        self.wait()
        return time.perf_counter() - began

    def rates(self, function: Callable[[], object], images: int) -> dict[str, float]:
        """Images per second of some repetitions, after one that does not count."""
        function()
        found = [images / self.seconds(function) for _ in range(self.rounds)]
        return {"n": len(found), "min": min(found), "median": statistics.median(found), "max": max(found)}

    def batches(self, problem: Problem, recipe: Recipe) -> Callable[[int], tuple[Tensor, Tensor]]:
        """Batch i of one epoch's plan, which lies on the device; after the last whole one the first again."""
        setup = problem.setup(recipe=recipe, seed=0)
        plan, full = setup.plan(0), len(setup.data) // recipe.batch_size
        return lambda i: setup.batch(plan, i % full)

    def stepping(self, problem: Problem, recipe: Recipe) -> Step:
        """A step of an engine."""
        run = weights(problem.setup(recipe=recipe, seed=0), problem.init(0), None)
        batch = self.batches(problem, recipe)
        problem.module.train()
        return lambda i: run.step(*batch(i), 0.01)

    def bare(self, problem: Problem, recipe: Recipe) -> Step:
        """The same by hand: a module, autograd, torch.optim.SGD; no mask."""
        module, batch = problem.build(0, "init").to(self.device).train(), self.batches(problem, recipe)
        optimiser = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4)

        def step(i: int) -> None:
            x, y = batch(i)
            optimiser.zero_grad(set_to_none=True)
            F.cross_entropy(module(problem.splits.prepare(x)), y).backward()
            optimiser.step()

        return step

    def training(self, model: str) -> dict[str, Any]:
        """Every engine in every precision, and the bare loop."""
        problem, found, images = self.problem(model), {}, self.steps * 128
        for kind, changes in KINDS.items():
            for engine in ("eager", "graph"):
                recipe = self.recipe(model, engine=engine, **changes)
                with tf32(recipe.tf32):
                    try:
                        step = self.stepping(problem, recipe)
                        rate = self.rates(lambda s=step: [s(i) for i in range(self.steps)], images)
                    except (RuntimeError, ConfigError) as error:
                        found[f"{kind}, {engine}"] = f"failed: {error}"
                        continue
                found[f"{kind}, {engine}, images per second"] = rate
            with tf32(kind == "tf32"):
                if kind != "bf16":
                    step = self.bare(problem, self.recipe(model))
                    rate = self.rates(lambda s=step: [s(i) for i in range(self.steps)], images)
                    found[f"{kind}, bare loop, images per second"] = rate
        found["graph against eager after 20 steps, relative distance"] = apart(
            problem, self.recipe(model), 4 if self.tiny else 20
        )  # fmt: skip
        return found

    def together(self, model: str, networks: Sequence[int]) -> dict[str, Any]:
        """Several networks, a stream each."""
        found: dict[str, Any] = {}
        for kind in ("float32", "tf32"):
            for count in networks:
                recipe = replace(self.recipe(model, engine="graph"), **KINDS[kind])
                with tf32(recipe.tf32):
                    try:
                        rate = self.rates(self._streams(model, recipe, count), count * self.steps * 128)
                    except (RuntimeError, ConfigError) as error:
                        found[f"{kind}, {count} networks"] = f"failed: {error}"
                        continue
                found[f"{kind}, {count} networks, images per second in all"] = rate
        return found

    def _streams(self, model: str, recipe: Recipe, count: int) -> Callable[[], None]:
        steps = [self.stepping(self.problem(model), recipe) for _ in range(count)]
        if self.device == "cpu":
            return lambda: [s(i) for i in range(self.steps) for s in steps] and None
        streams = [torch.cuda.Stream() for _ in steps]
        self.wait()  # for the networks and data, which the default stream has made

        def go() -> None:
            for i in range(self.steps):
                for step, stream in zip(steps, streams, strict=True):
                    with torch.cuda.stream(stream):
                        step(i)

        return go

    def geometry(self) -> dict[str, Any]:
        """Curvature and a path of ResNet-20 in IEEE float32."""
        model = "resnet-8" if self.tiny else "resnet-20"
        problem = self.problem(model)
        field, a, b = problem.field("train"), problem.init(0), problem.init(1)
        k, points = (1, 3) if self.tiny else (20, 21)
        v = torch.randn(problem.space.dim, generator=generator(0, "probe")).to(self.device)
        field.hvp(a, v)
        found: dict[str, Any] = {"seconds of a Hessian product": self.seconds(lambda: field.hvp(a, v))}
        spectra = []
        found[f"seconds of the top {k} eigenvalues"] = self.seconds(
            lambda: spectra.append(
                top_eigenvalues(field, a, k=k, steps=8 if self.tiny else 200, restarts=0 if self.tiny else 3)
            )
        )
        found["products"], found["converged"] = spectra[0].products, spectra[0].converged
        seconds = self.seconds(lambda: paths.segment(field, a, b, points=points, refine=0))
        found["losses per second along a path"] = points * self.examples / seconds
        return found


def main(arguments: list[str]) -> int:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("."))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--networks", type=int, nargs="+", default=[2, 4, 8])
    given = parser.parse_args(arguments)
    if given.device != "cpu" and not torch.cuda.is_available():
        print("no CUDA GPU here; --device cpu --tiny tries the script out")
        return 2
    if given.device != "cpu":
        torch.backends.cudnn.deterministic = True
    bench, began = Bench(given.device, given.tiny), time.monotonic()
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "script": "gpu.py",
        "hardware": torch.cuda.get_device_name() if given.device != "cpu" else "CPU",
        "torch": torch.__version__,
        "batch": 128,
        "targets": TARGETS,
        "training": {model: bench.training(model) for model in given.models},
        "several networks": bench.together("resnet-8" if given.tiny else "resnet-20", given.networks),
        "geometry": bench.geometry(),
    }
    result["seconds in all"] = time.monotonic() - began
    given.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(result, indent=1)
    (given.out / "gpu.json").write_text(text + "\n", encoding="utf-8")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
