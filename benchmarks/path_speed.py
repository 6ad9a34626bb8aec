"""Losses along a path against bare forward passes over the same batches: what the field, the points and the loss cost.

    python benchmarks/path_speed.py        # ResNet-8 of width 8, 10,000 random images, 200 points: ten minutes
    python benchmarks/path_speed.py 30     # so many points

The bare side runs the network's forward pass under no_grad over prepared batches of the same size, with fixed weights:
no interpolation, no normalisation, no loss. Each round does both, a part of the points at a time, in turn.

Under recomputed BatchNorm statistics a point's training and test loss share the pass that the statistics take. What
that saves is measured beside fields that share nothing.
"""

from __future__ import annotations

import sys
import time

import torch

from common import alone, images, record, spread
from sublevel.geometry import paths
from sublevel.problem import Problem

EXAMPLES, POINTS, ROUNDS = 10_000, 200, 10


def measure(examples: int = EXAMPLES, points: int = POINTS, rounds: int = ROUNDS) -> dict[str, object]:
    """The ratios of the rounds."""
    alone()
    x, y = images((3, 32, 32), examples)
    problem = posed(x, y)
    field, module = problem.field("train"), problem.module.eval()
    batches = [problem.prepare(x[i : i + field.batch_size]) for i in range(0, examples, field.batch_size)]
    a, b, each = problem.init(0), problem.init(1), points // rounds

    def bare() -> None:
        with torch.no_grad():
            for _ in range(each):
                for batch in batches:
                    module(batch)

    def path() -> None:
        paths.segment(field, a, b, points=each, refine=0)

    bare(), path()
    ratios, rates = [], []
    for _ in range(rounds):
        seconds = {}
        for name, go in (("bare", bare), ("path", path)):
            began = time.perf_counter()
            go()
            seconds[name] = time.perf_counter() - began
        ratios.append(seconds["bare"] / seconds["path"])
        rates.append(each * examples / seconds["path"])
    return {
        "network": "resnet-8 of width 8",
        "examples": examples,
        "points": each * rounds,
        "losses per second along the path": spread(rates),
        "rate along the path / bare forward rate": spread(ratios),
        "target": "median >= 0.95",
        "recomputed statistics, training and 2,000 test losses, seconds shared / apart": spread(sharing(x, y)),
    }


def posed(x: torch.Tensor, y: torch.Tensor) -> Problem:
    """ResNet-8 on the images, of which the first are the test set as well."""
    return Problem("resnet-8", train=(x, y), test=(x[:2000], y[:2000]), validation=0, options={"width": 8})


def sharing(x: torch.Tensor, y: torch.Tensor, points: int = 3, rounds: int = 3) -> list[float]:
    """The time of both profiles with one calibration for the two fields, over that with one for each."""
    ratios = []
    for _ in range(rounds):
        seconds = []
        for problems in ([posed(x, y)] * 2, [posed(x, y), posed(x, y)]):
            fields = [p.field(split, policy="recomputed") for p, split in zip(problems, ("train", "test"), strict=True)]
            a, b = problems[0].init(0), problems[0].init(1)
            began = time.perf_counter()
            for field in fields:
                paths.segment(field, a, b, points=points, refine=0)
            seconds.append(time.perf_counter() - began)
        ratios.append(seconds[0] / seconds[1])
    return ratios


if __name__ == "__main__":
    points = int(sys.argv[1]) if len(sys.argv) > 1 else POINTS
    record(
        "path-speed" + (f"-{points}" if points != POINTS else ""), __file__, {"threads": 1, **measure(points=points)}
    )
