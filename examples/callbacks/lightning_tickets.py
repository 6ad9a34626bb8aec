"""Winning tickets of a LightningModule: a callback of ten lines, and a fit for each level.

    python examples/callbacks/lightning_tickets.py

Needs ``pip install lightning``.
"""

import lightning as L
import torch
from torch import nn

import sublevel as sl


class HoldTicket(L.Callback):
    """Count every optimizer step, store the rewind point, and keep pruned weights at 0."""

    def __init__(self, tickets: sl.Tickets) -> None:
        self.tickets = tickets

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Follow this fit's optimizer, also where gradients are accumulated over several batches."""
        self.tickets.optimizer = trainer.optimizers[0]
        self.hook = trainer.optimizers[0].register_step_post_hook(lambda *_: self.tickets.step())

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Let the optimizer go."""
        self.hook.remove()


class Classifier(L.LightningModule):
    """Two layers on points in the plane."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))

    def training_step(self, batch: tuple[torch.Tensor, torch.Tensor], _: int) -> torch.Tensor:
        """The mean loss of a batch."""
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """A fresh optimizer for every fit, as rewinding asks."""
        return torch.optim.SGD(self.parameters(), lr=0.2, momentum=0.9)


def main(levels: int = 3, steps: int = 60, rewind: int = 10) -> list[sl.Ticket]:
    """One ticket for each level; the first is dense."""
    L.seed_everything(0, verbose=False)
    x = torch.randn(512, 2)
    data = torch.utils.data.TensorDataset(x, (x[:, 0] * x[:, 1] > 0).long())
    module = Classifier()
    tickets, found = sl.Tickets(module, rewind=rewind, fraction=0.4), []
    for level in range(levels + 1):
        trainer = L.Trainer(
            max_steps=steps - tickets.step_count, callbacks=[HoldTicket(tickets)], accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(module, torch.utils.data.DataLoader(data, batch_size=64, shuffle=True))
        found.append(tickets.ticket())
        error = (module.net(x).argmax(1) != data.tensors[1]).float().mean()
        print(f"level {level}: {100 * tickets.density:.0f}% of the weights left, train error {100 * error:.1f}%")
        if level < levels:
            tickets.prune()
            tickets.rewind()
    return found


if __name__ == "__main__":
    main()
