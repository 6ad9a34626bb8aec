"""An EfficientNet-like network: depthwise convolutions, squeeze-and-excitation, SiLU, BatchNorm, noise in training.

Teaches: dropout and stochastic depth are part of training (drawn at each step from the seed, so runs are reproducible)
and off in a field, which must be a function; which kinds of layers a global mask prunes; and why a barrier of a network
with BatchNorm needs its buffer policy.

Look for: squeeze-and-excitation and pointwise layers lose most weights, depthwise filters and the classifier least.
Halfway between two solutions the averaged statistics fit no network: `recomputed` shows the barrier of the weights, and
stale statistics cause the rest of the `stored` barrier.

    python examples/efficientnet.py
    python examples/efficientnet.py --train-size 9000 --width 16 --epochs 20 --levels 8
"""

from pathlib import Path

import cyclopts
import torch
from torch import Tensor, nn

import sublevel as sl


class SqueezeExcite(nn.Module):
    """Every channel times a gate in (0, 1) that the means of all channels set."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(channels, channels // 4), nn.Linear(channels // 4, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] to the same shape."""
        gate = torch.sigmoid(self.excite(nn.functional.silu(self.squeeze(x.mean(dim=(2, 3))))))
        return x * gate[:, :, None, None]


class DropPath(nn.Module):
    """Stochastic depth: in training the branch of an example is left out with probability ``p`` (Huang et al. 2016)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """The branch, or 0, with its mean kept."""
        if not self.training or self.p == 0:
            return x
        kept = torch.rand(len(x), 1, 1, 1, device=x.device) >= self.p
        return x * kept / (1 - self.p)


class MBConv(nn.Module):
    """Expand (1 x 1), filter (depthwise 3 x 3), gate, project (1 x 1); a skip where the shapes allow it."""

    def __init__(self, inputs: int, outputs: int, stride: int, drop_path: float) -> None:
        super().__init__()
        hidden = 3 * inputs
        self.expand, self.norm1 = nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden)
        self.depthwise = nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False)
        self.norm2, self.gate = nn.BatchNorm2d(hidden), SqueezeExcite(hidden)
        self.project, self.norm3 = nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.drop_path = DropPath(drop_path) if stride == 1 and inputs == outputs else None

    def forward(self, x: Tensor) -> Tensor:
        """[N, inputs, H, W] to [N, outputs, H / stride, W / stride]."""
        y = nn.functional.silu(self.norm1(self.expand(x)))
        y = self.gate(nn.functional.silu(self.norm2(self.depthwise(y))))
        y = self.norm3(self.project(y))
        return y if self.drop_path is None else x + self.drop_path(y)


def network(input_shape: tuple[int, ...], classes: int, width: int = 8, drop_path: float = 0.1) -> nn.Module:
    """A stem, four blocks, a classifier behind dropout."""
    return nn.Sequential(
        nn.Conv2d(input_shape[0], width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(),
        MBConv(width, width, 1, drop_path),
        MBConv(width, 2 * width, 2, drop_path),
        MBConv(2 * width, 2 * width, 1, drop_path),
        MBConv(2 * width, 4 * width, 2, drop_path),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(4 * width, classes),
    )


KINDS = {"expand": "pointwise", "project": "pointwise", "depthwise": "depthwise", "gate": "squeeze-and-excitation"}


def kind(layer: str) -> str:
    """The kind of a layer, from its parameter's name."""
    return next((k for part, k in KINDS.items() if f".{part}." in layer), "stem and classifier")


def main(
    *,
    train_size: int = 1200,
    width: int = 8,
    epochs: int = 6,
    levels: int = 3,
    seeds: int = 1,
    jobs: int | None = None,
    out: Path = Path("sublevel-runs"),
) -> None:
    """Embedded Fashion-MNIST images; half of the remaining weights go at each level."""
    options = {"width": width}
    problem = sl.Problem("efficientnet:network", options=options, train_size=train_size, test_size=500)
    recipe = {"epochs": epochs, "batch_size": 50, "lr": 0.1, "schedule": "cosine"}
    keys = {"levels": levels, "fraction": 0.5, "rewind": "1ep", "seeds": seeds, "train": recipe}
    branches = ["imp", {"name": "random-prune", "levels": [levels]}]
    result = sl.Study(problem, name="efficientnet", branches=branches, out=out, **keys).run(jobs=jobs, figures=False)

    table = result.levels.pivot_table(index="remaining", columns="branch", values="test_error", aggfunc="mean")
    print("test error\n" + table.sort_index(ascending=False).round(3).to_string(na_rep=""))
    last = result.layers.query("branch == 'imp' and level == @levels")
    kept = last.assign(kind=last["layer"].map(kind)).pivot_table(["prunable", "remaining"], "kind", aggfunc="sum")
    shares = kept.assign(density=kept["remaining"] / kept["prunable"]).round(3)
    print("\nwhere the ticket has its weights, all seeds\n" + shares.to_string())
    print()
    for policy in ("stored", "recomputed"):
        field = problem.field("train", size=300, policy=policy)
        for branch in ("imp", "random-prune"):
            wall = sl.paths.barrier(field, result.point("dense"), result.point(branch, levels), points=11)
            print(f"dense to {branch:12}, statistics {policy:10}: barrier of the train loss {wall.height:.3f} nats")


if __name__ == "__main__":
    cyclopts.run(main)
