"""A two-layer transformer that predicts the next character, and the perplexity of its ticket.

The text consists of the names of the characters of Unicode 3.2 in random order, such as LATIN SMALL LETTER A WITH
GRAVE. Every Python includes these names, and they never change.

Teaches: integer inputs [N, T] with a target at every position, and their loss; perplexity, the exponential of that loss
in nats; choosing the prunable weights, here all linear layers but not the embeddings.

Look for: reference values of the perplexity. A uniform guess has the size of the alphabet, 38. The frequencies of
characters give 20, and the frequencies of pairs give 11; both are counted on the training text and printed first. A
ticket with a quarter of the weights is below 11, one with an eighth just above it; the controls with the same number of
weights are higher.

    python examples/char_lm.py
    python examples/char_lm.py --windows 6000 --dim 96 --epochs 20 --levels 8 --seeds 3
"""

import unicodedata
from math import exp
from pathlib import Path

import cyclopts
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import sublevel as sl


class Block(nn.Module):
    """Causal attention and a perceptron, each behind a LayerNorm and around a skip."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.qkv, self.project = nn.LayerNorm(dim), nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.norm2, self.up, self.down = nn.LayerNorm(dim), nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """[N, T, dim] to the same shape; no position sees a later one."""
        n, length, dim = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, length, 3, self.heads, dim // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(n, length, dim)
        x = x + self.project(mixed)
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Characters and positions as vectors, blocks, logits of the next character."""

    def __init__(
        self, input_shape: tuple[int, ...], classes: int, dim: int = 32, depth: int = 2, heads: int = 4
    ) -> None:
        super().__init__()
        self.token, self.position = nn.Embedding(classes, dim), nn.Embedding(input_shape[0], dim)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Integers [N, T] to logits [N, T, classes]."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return self.head(self.norm(self.blocks(self.token(tokens) + self.position(places))))


def text() -> str:
    """Some 200,000 characters, the same in every version of Python."""
    names = [unicodedata.ucd_3_2_0.name(chr(i), "") for i in range(0x3000)]
    names = [name for name in names if name]
    order = torch.randperm(len(names), generator=torch.Generator().manual_seed(0))
    return "\n".join(names[i] for i in order)


def cut(letters: str, length: int) -> tuple[Tensor, Tensor]:
    """Windows [N, length] of the text as integers, and the same one character later."""
    alphabet = sorted(set(letters))
    codes = torch.tensor([alphabet.index(letter) for letter in letters])
    n = (len(codes) - 1) // length
    return codes[: n * length].view(n, length), codes[1 : n * length + 1].view(n, length)


def counted(x: Tensor, y: Tensor) -> tuple[float, float]:
    """Perplexities of the frequencies of characters, and of pairs of them, on the text they were counted on."""
    classes = int(max(x.max(), y.max())) + 1
    pairs = torch.zeros(classes, classes).index_put_((x.flatten(), y.flatten()), torch.ones(x.numel()), accumulate=True)
    one, two = pairs.sum(0) / pairs.sum(), pairs / pairs.sum(1, keepdim=True)
    shares = pairs / pairs.sum()
    loss = [-float(torch.special.xlogy(shares, table).sum()) for table in (one.expand_as(pairs), two.nan_to_num())]
    return exp(loss[0]), exp(loss[1])


def main(
    *,
    windows: int = 1500,
    length: int = 32,
    dim: int = 32,
    epochs: int = 6,
    levels: int = 3,
    seeds: int = 1,
    jobs: int | None = None,
    out: Path = Path("sublevel-runs"),
) -> None:
    """``windows`` of ``length`` characters to train on, 500 others to test on; half the weights go at each level."""
    x, y = cut(text(), length)
    train, test = (x[:windows], y[:windows]), (x[-500:], y[-500:])
    problem = sl.Problem("char_lm:Transformer", train=train, test=test, options={"dim": dim})
    recipe = {"optimizer": "adamw", "epochs": epochs, "batch_size": 20, "lr": 3e-3, "schedule": "cosine"}
    branches = ["imp", {"name": "reinit", "levels": [levels]}, {"name": "random-prune", "levels": [levels]}]
    keys = {"levels": levels, "fraction": 0.5, "rewind": "1ep", "seeds": seeds, "train": recipe, "branches": branches}
    result = sl.Study(problem, name="char-lm", out=out, **keys).run(jobs=jobs, figures=False)

    one, two = counted(*train)
    print(f"perplexity of counts of characters {one:.1f}, of pairs {two:.1f}, of the network on the test windows:")
    found = result.levels.assign(perplexity=result.levels["test_loss"].map(exp))
    table = found.pivot_table(index="remaining", columns="branch", values="perplexity", aggfunc="mean")
    print(table.sort_index(ascending=False).round(2).to_string(na_rep=""))
    field = problem.field("train", size=100)
    for branch in ("imp", "reinit", "random-prune"):
        wall = sl.paths.barrier(field, result.point("dense"), result.point(branch, levels), points=11)
        print(f"{branch:>12} to dense: barrier of the train loss {wall.height:.3f} nats a character")


if __name__ == "__main__":
    cyclopts.run(main)
