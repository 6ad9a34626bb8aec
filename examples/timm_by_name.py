"""A network of timm by its name, without your own code.

Teaches: any function of an installed package can be the network, as `package:function` with its arguments; the ticket
can be loaded into an ordinary network of timm, and saved to a file.

Look for: the last line, the ticket's error in timm's module; it equals the error in the table.

timm needs torchvision; without it, the example prints a message and stops.

    python examples/timm_by_name.py
    python examples/timm_by_name.py --name vit_tiny_patch16_224 --img-size 28 --patch-size 7 --epochs 20
"""

from pathlib import Path
from typing import Any

import cyclopts
import torch

import sublevel as sl


def main(
    *,
    name: str = "test_resnet",
    img_size: int | None = None,
    patch_size: int | None = None,
    train_size: int = 1000,
    epochs: int = 5,
    levels: int = 3,
    seeds: int = 1,
    jobs: int | None = None,
    out: Path = Path("sublevel-runs"),
) -> None:
    """Embedded Fashion-MNIST images; half of the remaining weights go at each level."""
    try:
        import timm
    except ImportError as error:
        raise SystemExit(
            f"this example needs timm (pip install timm), which cannot be imported here: {error}"
        ) from None

    sizes = {key: size for key, size in (("img_size", img_size), ("patch_size", patch_size)) if size is not None}
    options: dict[str, Any] = {"model_name": name, "in_chans": 1, "num_classes": 10, **sizes}
    problem = sl.Problem(
        "timm:create_model", options=options, train_size=train_size, test_size=500, version=timm.__version__
    )
    recipe = {"optimizer": "adamw", "epochs": epochs, "batch_size": 50, "lr": 2e-3, "schedule": "cosine"}
    keys = {"levels": levels, "fraction": 0.5, "rewind": "1ep", "seeds": seeds, "train": recipe}
    branches = ["imp", {"name": "random-prune", "levels": [levels]}]
    result = sl.Study(problem, name="timm-by-name", branches=branches, out=out, **keys).run(jobs=jobs, figures=False)

    table = result.levels.pivot_table(index="remaining", columns="branch", values="test_error", aggfunc="mean")
    print("test error\n" + table.sort_index(ascending=False).round(3).to_string(na_rep=""))
    ticket = result.ticket("imp", levels)
    field = problem.field("train", size=100, policy="recomputed")
    for space, mask in (("R^D", None), ("its own subspace", ticket.mask)):
        top = sl.curvature.top_eigenvalues(field, ticket.end, k=1, mask=mask, tolerance=1e-2, restarts=0, negative=0)
        print(f"largest eigenvalue in {space}: {float(top.values[0]):.1f} +- {float(top.residuals[0]):.1f}")

    path = ticket.save(out / "timm-by-name" / "ticket.safetensors", end=True)
    net = sl.load_ticket(path).apply(timm.create_model(**options)).eval()  # a plain module of timm
    test = problem.splits.test
    with torch.no_grad():
        wrong = float((net(problem.prepare(test.x)).argmax(1) != test.y).float().mean())
    print(f"{path.name} in timm's own {name}: test error {wrong:.3f}")


if __name__ == "__main__":
    cyclopts.run(main)
