"""A small vision transformer, written as a plain `nn.Module`, and the curvature of its ticket.

Teaches: your own network with LayerNorm and attention, trained by AdamW; fields of an unchanged network, which use the
attention kernel with second derivatives; the largest eigenvalue of the Hessian, in R^D and in the subspace of the
remaining weights.

Look for: in its subspace a solution is never sharper than in R^D (Cauchy interlacing), for any mask; so compare two
solutions in one space only. The residual bounds the distance of an eigenvalue from a true one.

    python examples/vit_tiny.py
    python examples/vit_tiny.py --train-size 9000 --dim 64 --depth 6 --epochs 30 --levels 8
"""

from pathlib import Path

import cyclopts
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sublevel as sl


class Attention(nn.Module):
    """Multi-head self-attention of tokens [N, T, dim]."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.project = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Every token attends to every token."""
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        return self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, dim))


class Block(nn.Module):
    """Attention and a perceptron, each behind a LayerNorm and around a skip."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(dim), Attention(dim, heads)
        self.norm2, self.mlp = (
            nn.LayerNorm(dim),
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Tokens to tokens."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    """Patches of an image as tokens, blocks, the mean of the tokens, classes."""

    def __init__(
        self, input_shape: tuple[int, ...], classes: int, patch: int = 7, dim: int = 32, depth: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        channels, height, width = input_shape
        self.patches = nn.Conv2d(channels, dim, patch, stride=patch)
        self.position = nn.Parameter(0.02 * torch.randn(1, (height // patch) * (width // patch), dim))
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Images [N, C, H, W] to logits [N, classes]."""
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        return self.head(self.norm(self.blocks(tokens)).mean(dim=1))


def largest(field: sl.Field, at: sl.Point, mask: Tensor | None = None) -> str:
    """The largest eigenvalue alone, without a search for copies and without the smallest eigenvalues."""
    top = sl.curvature.top_eigenvalues(field, at, k=1, mask=mask, tolerance=1e-3, restarts=0, negative=0)
    return f"{float(top.values[0]):.2f} +- {float(top.residuals[0]):.2f}"


def main(
    *,
    train_size: int = 1200,
    dim: int = 32,
    depth: int = 2,
    epochs: int = 10,
    levels: int = 4,
    seeds: int = 1,
    jobs: int | None = None,
    out: Path = Path("sublevel-runs"),
) -> None:
    """Embedded Fashion-MNIST images, 16 patches of 7 x 7 each."""
    options = {"dim": dim, "depth": depth}
    problem = sl.Problem("vit_tiny:ViT", options=options, train_size=train_size, test_size=500)
    recipe = {
        "optimizer": "adamw",
        "epochs": epochs,
        "batch_size": 50,
        "lr": 2e-3,
        "warmup": "1ep",
        "schedule": "cosine",
    }
    branches = ["imp", {"name": "reinit", "levels": [levels]}, {"name": "random-prune", "levels": [levels]}]
    keys = {"levels": levels, "fraction": 0.5, "rewind": "1ep", "seeds": seeds, "train": recipe, "branches": branches}
    result = sl.Study(problem, name="vit-tiny", out=out, **keys).run(jobs=jobs, figures=False)

    table = result.levels.pivot_table(index="remaining", columns="branch", values="test_error", aggfunc="mean")
    print("test error\n" + table.sort_index(ascending=False).round(3).to_string(na_rep=""))
    field = problem.field("train", size=200)
    print("largest eigenvalue of the Hessian on 200 training images, and its residual")
    print(f"{'dense':>12} in R^D {largest(field, result.point('dense'))}")
    for branch in ("imp", "reinit", "random-prune"):
        ticket = result.ticket(branch, levels)
        own, all_of = largest(field, ticket.end, ticket.mask), largest(field, ticket.end)
        print(f"{branch:>12} in R^D {all_of}, in its own subspace {own}")


if __name__ == "__main__":
    cyclopts.run(main)
