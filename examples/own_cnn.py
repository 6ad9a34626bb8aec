"""Your own CNN on a folder of images.

Teaches: naming a network by its import path, so that worker processes can build it; reading `<class>/*` images;
comparing a ticket with its two standard baselines and with the dense solution.

Look for: at the last level IMP keeps most of the dense accuracy, and the random mask with the same count loses more.
The barrier to the dense solution shows whether the segment between the two stays at low loss.

    python examples/own_cnn.py                         # Fashion-MNIST, written to sublevel-runs/images first
    python examples/own_cnn.py --root my-images --size 32 --epochs 20 --levels 8
"""

from pathlib import Path

import cyclopts
from PIL import Image
from torch import nn

import sublevel as sl
from sublevel.data import load


def network(input_shape: tuple[int, ...], classes: int, width: int = 8) -> nn.Module:
    """Two convolutions and a linear layer; ``input_shape`` and ``classes`` come from the data."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Linear(32 * width, classes),
    )


def write_images(root: Path, train: int = 1500, test: int = 500) -> Path:
    """Write embedded Fashion-MNIST images as ``train/<class>/*.png`` and ``test/<class>/*.png``."""
    clothes = load("fashion-mnist-small")
    parts = {"train": (clothes.train_x, clothes.train_y, train), "test": (clothes.test_x, clothes.test_y, test)}
    for split, (x, y, count) in parts.items():
        for i in range(count):
            folder = root / split / clothes.classes[int(y[i])].replace("/", "-")
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x[i, 0].numpy()).save(folder / f"{i:05}.png")
    return root


def main(
    *,
    root: Path | None = None,
    size: int | None = None,
    epochs: int = 4,
    levels: int = 4,
    seeds: int = 3,
    jobs: int | None = None,
    out: Path = Path("sublevel-runs"),
) -> None:
    """Half of the remaining weights go at each level; survivors are rewound to the end of the first epoch.

    ``root`` holds train/<class>/* and test/<class>/*, or <class>/*; ``size`` resizes the images.
    """
    folder = root or write_images(out / "images")
    problem = sl.Problem("own_cnn:network", data="folder", root=folder, data_options={"size": size})
    recipe = {"epochs": epochs, "batch_size": 50, "lr": 0.05, "schedule": "cosine"}
    branches = ["imp", {"name": "reinit", "levels": [levels]}, {"name": "random-prune", "levels": [levels]}]
    keys = {"levels": levels, "fraction": 0.5, "rewind": "1ep", "seeds": seeds, "train": recipe, "branches": branches}
    result = sl.Study(problem, name="own-cnn", out=out, **keys).run(jobs=jobs, figures=False)

    table = result.levels.pivot_table(index="remaining", columns="branch", values="test_error", aggfunc="mean")
    print("test error, mean over seeds\n" + table.sort_index(ascending=False).round(3).to_string(na_rep=""))
    field = problem.field("train", size=300, policy="recomputed")
    for branch in ("imp", "reinit", "random-prune"):
        wall = sl.paths.barrier(field, result.point("dense"), result.point(branch, levels), points=11)
        print(f"{branch:>12} to dense: barrier of the train loss {wall.height:.3f} nats at alpha {wall.alpha:.2f}")


if __name__ == "__main__":
    cyclopts.run(main)
