"""Steps per second of the training engine against a bare hand-written PyTorch loop of the same arithmetic.

Both sides train the same network on the same resident uint8 images with the same batches, one thread each, in one
process, in turn; the figure is the ratio within each pair. The bare loop is what a careful person writes by hand:
module, F.cross_entropy, loss.backward(), torch.optim.SGD with foreach, weights and momentum masked by multiplication.

    python benchmarks/train_speed.py
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from common import record, spread
from sublevel.data import epoch_plan, gather, padded
from sublevel.problem import Problem
from sublevel.rng import generator
from sublevel.train.engine import train
from sublevel.train.recipe import Duration, Recipe

CASES = {
    "lenet-300-100": {"shape": (1, 28, 28), "batch": 128, "steps": 140, "crop": 0, "flip": False},
    "resnet-20": {"shape": (3, 32, 32), "batch": 128, "steps": 8, "crop": 4, "flip": True},
}
PAIRS = 7


def images(shape: tuple[int, ...], n: int = 9000) -> tuple[torch.Tensor, torch.Tensor]:
    """Random images: speed does not depend on what is on them."""
    g = generator(0, "probe")
    return torch.randint(0, 256, (n, *shape), generator=g, dtype=torch.uint8), torch.randint(0, 10, (n,), generator=g)


def ours(problem: Problem, recipe: Recipe, mask: torch.Tensor, steps: int) -> Callable[[], None]:
    """The engine."""
    start = problem.init(0)

    def go() -> None:
        train(
            problem.space, problem.module, start, problem.splits.train, prepare=problem.prepare,
            loss=problem.mean_loss(), recipe=recipe, seed=0, mask=mask, rates=[0.01] * steps,
        )  # fmt: skip

    return go


def bare(problem: Problem, recipe: Recipe, mask: torch.Tensor, steps: int) -> Callable[[], None]:
    """The loop written by hand."""
    module, data = problem.build(0, "init"), problem.splits.train
    parameters = dict(module.named_parameters())
    masks = problem.space.views(mask.float())
    canvas = padded(data.x, recipe.crop)
    height, width = data.x.shape[2:]

    def go() -> None:
        optimiser = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=recipe.weight_decay)
        module.train()
        done, epoch = 0, 0
        while done < steps:
            plan = epoch_plan(len(data), seed=0, epoch=epoch, pad=recipe.crop, flip=recipe.flip)
            for begin in range(0, len(data), recipe.batch_size):
                end = min(begin + recipe.batch_size, len(data))
                x = problem.prepare(gather(canvas, plan, begin, end, height=height, width=width))
                loss = F.cross_entropy(module(x), data.y[plan.index[begin:end]])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                with torch.no_grad():
                    for name, parameter in parameters.items():
                        parameter.grad.mul_(masks[name])
                    optimiser.step()
                    for name, parameter in parameters.items():
                        parameter.mul_(masks[name])
                done += 1
                if done == steps:
                    return
            epoch += 1

    return go


def seconds(function: Callable[[], None]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    """Time both sides in turn, and record the ratios."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    results = {}
    for name, case in CASES.items():
        x, y = images(case["shape"])
        problem = Problem(name, train=(x, y), test=(x[:100], y[:100]), validation=0)
        recipe = Recipe(length=Duration(1, "ep"), batch_size=case["batch"], crop=case["crop"], flip=case["flip"])
        mask = torch.rand(problem.space.dim, generator=generator(0, "prune")) < 0.5
        mask |= ~problem.space.prunable
        a, b = ours(problem, recipe, mask, case["steps"]), bare(problem, recipe, mask, case["steps"])
        a(), b()
        pairs = [(seconds(a), seconds(b)) for _ in range(PAIRS)]
        results[name] = {
            "steps": case["steps"],
            "batch": case["batch"],
            "ours, images per second": spread([case["steps"] * case["batch"] / t for t, _ in pairs]),
            "bare loop, images per second": spread([case["steps"] * case["batch"] / t for _, t in pairs]),
            "ratio of steps per second, ours / bare": spread([u / t for t, u in pairs]),
        }
    record("train-speed", __file__, {"threads": 1, "target": "ratio >= 0.9", "results": results})


if __name__ == "__main__":
    main()
