"""A perceptron on a table: regression, where the right answer is known.

The target is Friedman's function of the first five of twenty columns (Multivariate adaptive regression splines, 1991),
with noise of known size; it does not depend on the other fifteen columns.

Teaches: float targets and the loss `squared` (half the squared error); the lowest possible loss; which inputs a ticket
keeps.

Look for: the dense network has enough weights to learn the noise; the ticket reaches a lower test error with a
thirtieth of them. IMP finds the five relevant columns: most first-layer weights of the ticket belong to them. A random
mask with the same count in every layer shows the effect of this choice.

    python examples/table_regression.py
    python examples/table_regression.py --columns 50 --rows 5000 --seeds 5 --levels 8
"""

from pathlib import Path

import cyclopts
import torch
from torch import Tensor, nn

import sublevel as sl

RELEVANT = 5


def network(input_shape: tuple[int, ...], width: int = 64) -> nn.Module:
    """Two hidden layers and one output."""
    return nn.Sequential(
        nn.Linear(input_shape[0], width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
    )


def friedman(rows: int, columns: int, noise: float, seed: int) -> tuple[Tensor, Tensor]:
    """Columns uniform in [-1, 1], and the target in units of the function's own standard deviation (about 4.9)."""
    draw = torch.Generator().manual_seed(seed)
    u = torch.rand(rows, columns, generator=draw)
    a, b, c, d, e = u[:, :RELEVANT].unbind(1)
    clean = 10 * torch.sin(torch.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e
    y = (clean - 14.4) / 4.9 + noise * torch.randn(rows, generator=draw)
    return 2 * u - 1, y[:, None]


def main(
    *,
    rows: int = 1000,
    columns: int = 20,
    noise: float = 0.2,
    epochs: int = 30,
    levels: int = 5,
    seeds: int = 3,
    jobs: int | None = None,
    out: Path = Path("sublevel-runs"),
) -> None:
    """``noise`` is the standard deviation of the noise, in units of the function's standard deviation."""
    train, test = friedman(rows, columns, noise, seed=1), friedman(2000, columns, noise, seed=2)
    problem = sl.Problem("table_regression:network", train=train, test=test, options={"width": 64}, loss="squared")
    recipe = {"epochs": epochs, "batch_size": 50, "lr": 0.2, "weight_decay": 0.0, "schedule": "cosine"}
    anywhere = {"name": "random-prune", "levels": [levels]}
    by_layer = {**anywhere, "options": {"per_layer": True}, "label": "random-layers"}  # IMP's count in every layer
    branches = ["imp", anywhere, by_layer]
    keys = {"levels": levels, "fraction": 0.5, "rewind": "2ep", "seeds": seeds, "train": recipe, "branches": branches}
    result = sl.Study(problem, name="table-regression", out=out, **keys).run(jobs=jobs, figures=False)

    print(f"half the mean squared test error; no network goes below {noise**2 / 2:.3f} but by luck")
    table = result.levels.pivot_table(index="remaining", columns="branch", values="test_loss", aggfunc="mean")
    print(table.sort_index(ascending=False).round(3).to_string(na_rep=""))
    field = problem.field("train")
    for branch in ("imp", "random-prune", "random-layers"):
        ticket = result.ticket(branch, levels, seed=0)
        first = ticket.masks()["0.weight"]  # [width, columns]
        share = float(first[:, :RELEVANT].sum() / first.sum())
        top = sl.curvature.top_eigenvalues(field, ticket.end, k=1, mask=ticket.mask)
        print(
            f"{branch:>13}: of {int(first.sum())} first-layer weights {share:.0%} stand on the columns that matter",
            end="",
        )
        print(f" ({RELEVANT / columns:.0%} by chance); largest eigenvalue {float(top.values[0]):.2f}")


if __name__ == "__main__":
    cyclopts.run(main)
