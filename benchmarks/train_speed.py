"""Steps per second of the training engine against two loops of the same arithmetic.

All train the same network on the same images, each in a process of its own with one thread, in turn; the figures are
the ratios within each round. The bare loop is what a careful person writes by hand: uint8 images in memory, one gather
a batch, module, F.cross_entropy, loss.backward(), torch.optim.SGD, gradient and weights masked by multiplication. The
loader loop has the same step, and its images come from a DataLoader without workers (they would be other threads) whose
Dataset makes a PIL image, crops, flips, converts and normalises one at a time: the operations of torchvision's
datasets and transforms, which most training scripts are made of.

The share of the limit is the least time of a step's products and bytes (`limit.py`) over the time that it takes. The
sparse engine is timed beside the dense training of the same network, without a mask.

    python benchmarks/train_speed.py              # all four networks: four to six minutes
    python benchmarks/train_speed.py resnet-8     # or some of them
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import count, islice

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from common import Side, alone, images, in_turn, record, spread
from limit import limit
from sublevel.data import epoch_plan, gather
from sublevel.problem import Problem
from sublevel.rng import generator
from sublevel.train.recipe import Duration, Recipe

CASES = {
    "lenet-300-100": {"shape": (1, 28, 28), "batch": 128, "steps": 70, "crop": 0, "flip": False, "rounds": 15},
    "resnet-8": {"shape": (3, 32, 32), "batch": 128, "steps": 6, "crop": 4, "flip": True, "rounds": 9},
    "resnet-20": {"shape": (3, 32, 32), "batch": 128, "steps": 4, "crop": 4, "flip": True, "rounds": 9},
    "vgg-16": {"shape": (3, 32, 32), "batch": 128, "steps": 1, "crop": 4, "flip": True, "rounds": 3},
}
DENSITIES = (0.05, 0.02)
TARGETS = {
    "ours / bare loop": "median >= 1",
    "ours / loader loop": "median >= 5 for the perceptron, >= 1.5 for residual networks",
    "share of the limit": "0.8 is the aim",
    "sparse / dense self": "median >= 1.3 at a density of 0.05",
}

Batch = tuple[torch.Tensor, torch.Tensor]
Batches = Callable[[int], Iterable[Batch]]
"""Of an epoch, as the network takes them."""
Source = Callable[[Problem, Recipe], Batches]


def ours(name: str, engine: str, share: float, steps: int) -> Callable[[], None]:
    """The engine, under a random mask that leaves so much."""
    problem, recipe = problem_of(name), replace(recipe_of(name), engine=engine)
    start, mask = problem.init(0), density(problem, share)

    def go() -> None:
        problem.trained(start, recipe=recipe, seed=0, mask=mask, rates=[0.01] * steps)

    return go


def theirs(name: str, source: Source, steps: int) -> Callable[[], None]:
    """The loop by hand, half of the weights masked."""
    problem, recipe = problem_of(name), recipe_of(name)
    return by_hand(problem, recipe, density(problem, 0.5), steps, source(problem, recipe))


def by_hand(problem: Problem, recipe: Recipe, mask: torch.Tensor, steps: int, batches: Batches) -> Callable[[], None]:
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


def bare(problem: Problem, recipe: Recipe) -> Batches:
    """Images in memory, a gather for every batch."""
    data = problem.splits.train

    def batches(epoch: int) -> Iterable[Batch]:
        plan = epoch_plan(len(data), seed=0, epoch=epoch, pad=recipe.crop, flip=recipe.flip)
        for begin in range(0, len(data), recipe.batch_size):
            end = min(begin + recipe.batch_size, len(data))
            x = gather(data.x, plan, begin, end)
            yield problem.splits.prepare(x), data.y[plan.index[begin:end]]

    return batches


class Images(Dataset):
    """One image at a time, as training scripts take them: a PIL image, cropped, flipped, to a tensor, normalised."""

    def __init__(self, problem: Problem, recipe: Recipe) -> None:
        splits = problem.splits
        x = splits.train.x
        self.x = (x[:, 0] if x.shape[1] == 1 else x.permute(0, 2, 3, 1)).contiguous().numpy()
        self.y, self.crop, self.flip = splits.train.y.tolist(), recipe.crop, recipe.flip
        self.mean, self.std = splits.mean, splits.std

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image = Image.fromarray(self.x[i])
        width, height = image.size
        if self.crop:
            left, top = torch.randint(0, 2 * self.crop + 1, (2,)).tolist()
            image = ImageOps.expand(image, self.crop).crop((left, top, left + width, top + height))
        if self.flip and torch.rand(1) < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        x = torch.from_numpy(np.array(image, copy=True)).view(height, width, -1)
        x = x.permute(2, 0, 1).contiguous().float().div(255)
        mean, std = torch.as_tensor(self.mean)[:, None, None], torch.as_tensor(self.std)[:, None, None]
        return x.sub_(mean).div_(std), self.y[i]


def loader(problem: Problem, recipe: Recipe) -> Batches:
    """A DataLoader with transforms."""
    found = DataLoader(Images(problem, recipe), batch_size=recipe.batch_size, shuffle=True)
    return lambda epoch: found


def problem_of(name: str) -> Problem:
    """The network on random images."""
    x, y = images(CASES[name]["shape"], 9000)
    return Problem(name, train=(x, y), test=(x[:100], y[:100]), validation=0)


def recipe_of(name: str) -> Recipe:
    """An epoch, with the case's augmentation."""
    case = CASES[name]
    return Recipe(length=Duration(1, "ep"), batch_size=case["batch"], crop=case["crop"], flip=case["flip"])


def density(problem: Problem, share: float) -> torch.Tensor:
    """A random mask."""
    return (torch.rand(problem.space.dim, generator=generator(0, "prune")) < share) | ~problem.space.prunable


def measure(name: str, case: dict) -> dict[str, object]:
    """The engine, both loops, and the limit."""
    steps, size = case["steps"], case["steps"] * case["batch"]
    arms = {
        "ours": Side(ours, name, "auto", 0.5, steps),
        "bare loop": Side(theirs, name, bare, steps),
        "loader loop": Side(theirs, name, loader, steps),
    }
    rounds = in_turn(arms, case["rounds"])
    least = limit(problem_of(name), case["batch"])
    own = min(r["ours"] for r in rounds) / steps
    found: dict[str, object] = {"steps": steps, "batch": case["batch"]}
    for arm in arms:
        found[f"{arm}, images per second"] = spread([size / r[arm] for r in rounds])
    for arm in list(arms)[1:]:
        found[f"ours / {arm}"] = spread([r[arm] / r["ours"] for r in rounds])
    found["milliseconds of a step, fastest round"] = own * 1e3
    found["milliseconds of its products alone"] = least["products"] * 1e3
    found["milliseconds of the bytes of the rest"] = least["bytes of the rest"] * 1e3
    found["share of the limit"] = sum(least.values()) / own
    return found


def sparse() -> dict[str, object]:
    """The engine of sparse layers under a mask, beside the dense training of the network."""
    name, steps, found = "lenet-300-100", 70, {}
    for share in DENSITIES:
        arms = {
            "dense self": Side(ours, name, "auto", 1.0, steps),
            "dense, masked": Side(ours, name, "auto", share, steps),
            "sparse": Side(ours, name, "sparse", share, steps),
        }
        rounds = in_turn(arms, 20)
        found[f"density {share}"] = {
            f"{arm} / dense self": spread([r["dense self"] / r[arm] for r in rounds]) for arm in list(arms)[1:]
        }
    return found


def main(chosen: list[str]) -> None:
    """Time the sides in turn, and record the ratios."""
    alone()
    results = {name: measure(name, case) for name, case in CASES.items() if name in chosen or not chosen}
    record("train-speed", __file__, {"threads": 1, "targets": TARGETS, "results": results, "sparse layers": sparse()})


if __name__ == "__main__":
    main(sys.argv[1:])
