"""Steps per second of the training engine against two loops of the same arithmetic.

All train the same network on the same images, one thread each, in one process, in turn; the figures are the ratios
within each round. The bare loop is what a careful person writes by hand: uint8 images in memory, one gather a batch,
module, F.cross_entropy, loss.backward(), torch.optim.SGD, gradient and weights masked by multiplication. The loader
loop has the same step, and its images come from a DataLoader without workers (they would be other threads) whose
Dataset crops, flips and normalises one image at a time, as training scripts usually do.

    python benchmarks/train_speed.py
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from itertools import count, islice

import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from common import record, spread
from sublevel.data import epoch_plan, gather, padded
from sublevel.problem import Problem
from sublevel.rng import generator
from sublevel.train.engine import train
from sublevel.train.recipe import Duration, Recipe

CASES = {
    "lenet-300-100": {"shape": (1, 28, 28), "batch": 128, "steps": 140, "crop": 0, "flip": False},
    "resnet-8": {"shape": (3, 32, 32), "batch": 128, "steps": 12, "crop": 4, "flip": True},
    "resnet-20": {"shape": (3, 32, 32), "batch": 128, "steps": 6, "crop": 4, "flip": True},
}
ROUNDS = 9
TARGET = "medians >= 1 beside the bare loop; >= 5 (perceptron) and >= 1.5 (residual networks) beside the loader"

Batch = tuple[torch.Tensor, torch.Tensor]


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


def by_hand(
    problem: Problem, recipe: Recipe, mask: torch.Tensor, steps: int, batches: Callable[[int], Iterable[Batch]]
) -> Callable[[], None]:
    """A loop over the batches of epochs, which come as the network takes them."""
    module = problem.build(0, "init")
    parameters = dict(module.named_parameters())
    masks = problem.space.views(mask.float())

    def go() -> None:
        optimiser = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=recipe.weight_decay)
        module.train()
        stream = (batch for epoch in count() for batch in batches(epoch))
        for x, y in islice(stream, steps):
            loss = F.cross_entropy(module(x), y)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            with torch.no_grad():
                for name, parameter in parameters.items():
                    parameter.grad.mul_(masks[name])
                optimiser.step()
                for name, parameter in parameters.items():
                    parameter.mul_(masks[name])

    return go


def bare(problem: Problem, recipe: Recipe) -> Callable[[int], Iterable[Batch]]:
    """Images in memory, a gather for every batch."""
    data = problem.splits.train
    canvas, (height, width) = padded(data.x, recipe.crop), data.x.shape[2:]

    def batches(epoch: int) -> Iterable[Batch]:
        plan = epoch_plan(len(data), seed=0, epoch=epoch, pad=recipe.crop, flip=recipe.flip)
        for begin in range(0, len(data), recipe.batch_size):
            end = min(begin + recipe.batch_size, len(data))
            x = gather(canvas, plan, begin, end, height=height, width=width)
            yield problem.splits.prepare(x), data.y[plan.index[begin:end]]

    return batches


class Images(Dataset):
    """One image at a time: cropped at random, flipped, scaled, normalised."""

    def __init__(self, problem: Problem, recipe: Recipe) -> None:
        splits = problem.splits
        self.x, self.y, self.crop, self.flip = splits.train.x, splits.train.y, recipe.crop, recipe.flip
        self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (splits.mean, splits.std))

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Batch:
        image, height, width = self.x[i], *self.x.shape[2:]
        if self.crop:
            dy, dx = torch.randint(0, 2 * self.crop + 1, (2,)).tolist()
            image = F.pad(image, (self.crop,) * 4)[:, dy : dy + height, dx : dx + width]
        if self.flip and torch.rand(1) < 0.5:
            image = image.flip(2)
        return (image.float().div(255) - self.mean) / self.std, self.y[i]


def loader(problem: Problem, recipe: Recipe) -> Callable[[int], Iterable[Batch]]:
    """A DataLoader with transforms."""
    found = DataLoader(Images(problem, recipe), batch_size=recipe.batch_size, shuffle=True)
    return lambda epoch: found


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
        steps, size = case["steps"], case["steps"] * case["batch"]
        arms = {"ours": ours(problem, recipe, mask, steps)}
        for arm, source in (("bare loop", bare), ("loader loop", loader)):
            arms[arm] = by_hand(problem, recipe, mask, steps, source(problem, recipe))
        for go in arms.values():
            go()
        rounds = [{arm: seconds(go) for arm, go in arms.items()} for _ in range(ROUNDS)]
        results[name] = {"steps": steps, "batch": case["batch"]}
        for arm in arms:
            results[name][f"{arm}, images per second"] = spread([size / r[arm] for r in rounds])
        for arm in list(arms)[1:]:
            results[name][f"ratio of steps per second, ours / {arm}"] = spread([r[arm] / r["ours"] for r in rounds])
    record("train-speed", __file__, {"threads": 1, "target": TARGET, "results": results})


if __name__ == "__main__":
    main()
