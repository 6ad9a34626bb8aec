"""A member of a team: trains every case and keeps where it ended, as a process of its own."""

import json
import os
import sys

import torch
import torch.distributed as dist
from safetensors.torch import save_file
from torch import nn

from sublevel.data.splits import Part
from sublevel.risk import LOSSES
from sublevel.space import Space
from sublevel.train.engine import train
from sublevel.train.recipe import Duration, Recipe
from sublevel.train.setup import TrainingSetup


class Bend(nn.Module):
    """Convolution, BatchNorm, a shortcut, another BatchNorm, a linear layer with its own."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.na, self.nb, self.nc = nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False), nn.BatchNorm1d(4)
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        h = self.na(self.a(x)).relu()
        h = (h + self.nb(self.b(h))).relu().mean((2, 3))
        return self.out(self.nc(h))


def main(folder: str, cases: dict) -> None:
    torch.set_num_threads(1)
    if int(os.environ["WORLD_SIZE"]) > 1:
        dist.init_process_group("gloo")
    g = torch.Generator().manual_seed(1)
    data = Part(torch.randint(0, 256, (56, 1, 6, 6), generator=g, dtype=torch.uint8), torch.arange(56) % 3)
    for name, options in cases.items():
        torch.manual_seed(3)
        module = Bend().double()
        space = Space.of(module)
        start = space.point(module)
        mask = space.full_mask()
        mask[::7] = False
        usual = {"batch_size": 10, "lr": 0.05, "weight_decay": 1e-2, "crop": 1, "flip": True, "dtype": "float64"}
        recipe = Recipe(length=Duration(20, "it"), **usual | options)
        setup = TrainingSetup(
            space=space, module=module, data=data, prepare=lambda x: x.double() / 255, loss=LOSSES["cross-entropy"],
            recipe=recipe, seed=5,
        )  # fmt: skip
        done = train(setup, start, mask=mask, checkpoints=[7])
        found = {
            "theta": done.end.theta,
            "middle": done.checkpoints[7].theta,
            "losses": torch.tensor([row["train_loss"] for row in done.history], dtype=torch.float64),
        }
        found |= {f"buffer:{k}": v for k, v in done.end.buffers.items()}
        save_file({k: v.contiguous() for k, v in found.items()}, f"{folder}/{name}-{os.environ['RANK']}.safetensors")
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
