"""Winning tickets of a transformer that the Hugging Face Trainer trains: a callback, and a train() for each level.

    python examples/callbacks/trainer_tickets.py

Needs ``pip install transformers accelerate``.
"""

import tempfile
from typing import Any

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

import sublevel as sl


class HoldTicket(TrainerCallback):
    """Count every optimizer step, store the rewind point, and keep pruned weights at 0."""

    def __init__(self, tickets: sl.Tickets) -> None:
        self.tickets = tickets

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Follow this training's optimizer; accelerate wraps it."""
        self.tickets.optimizer = getattr(optimizer, "optimizer", optimizer)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After the optimizer's step."""
        self.tickets.step()


def examples(count: int, length: int = 8, words: int = 20) -> list[dict[str, torch.Tensor]]:
    """Sequences of words, labelled by whether the first word is in the first half of the vocabulary."""
    ids = torch.randint(1, words, (count, length))
    return [{"input_ids": row, "labels": (row[0] < words // 2).long()} for row in ids]


def main(levels: int = 2, steps: int = 40, rewind: int = 5) -> list[sl.Ticket]:
    """One ticket for each level; the first is dense."""
    set_seed(0)
    config = BertConfig(
        vocab_size=20, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16,
    )  # fmt: skip
    model, data = BertForSequenceClassification(config), examples(256)
    tickets, found = sl.Tickets(model, rewind=rewind, fraction=0.4), []
    for level in range(levels + 1):
        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                folder, max_steps=steps - tickets.step_count, per_device_train_batch_size=32, learning_rate=2e-3,
                lr_scheduler_type="constant", report_to=[], save_strategy="no", use_cpu=True, disable_tqdm=True,
                logging_strategy="no",
            )  # fmt: skip
            Trainer(model, arguments, train_dataset=data, callbacks=[HoldTicket(tickets)]).train()
        found.append(tickets.ticket())
        print(f"level {level}: {100 * tickets.density:.0f}% of the prunable weights left after {steps} steps")
        if level < levels:
            tickets.prune()
            tickets.rewind()
    return found


if __name__ == "__main__":
    main()
