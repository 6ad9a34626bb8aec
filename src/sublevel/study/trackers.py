"""Experiment trackers: scalars of trainings and solutions for TensorBoard or Weights & Biases.

Each is a listener with two methods of its own. The packages are extras, imported on use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sublevel.engine.events import Event
from sublevel.errors import ConfigError, unknown
from sublevel.study.spec import StudySpec

TRAINING = ("train_loss", "validation_loss", "validation_error", "lr")
"""Scalars of a training, by step."""

SOLUTION = ("train_loss", "train_error", "validation_error", "test_loss", "test_error", "density")
"""Scalars of a solution, by level."""


class Tracker:
    """Scalars with names and steps: ``train/imp/L3/s0/train_loss`` by step, ``imp/s0/test_error`` by level."""

    def scalar(self, name: str, value: float, step: int) -> None:
        """Record a number."""
        raise NotImplementedError

    def close(self, done: bool) -> None:
        """End the run; ``done`` if it computed everything."""
        raise NotImplementedError

    def __call__(self, event: Event) -> None:
        """Record the scalars of trainings and solutions, also of stored ones."""
        node, outcome, said = event.node, event.outcome, event.about.get("said", {})
        if node and "step" in said:
            self._keep(node.id, said, TRAINING, said["step"])
        elif node and outcome and outcome.good and node.kind == "solution":
            name = f"{node.labels['branch']}/s{node.labels['seed']}"
            self._keep(name, outcome.entry["values"]["row"], SOLUTION, node.labels["level"])
        elif event.what == "end":
            self.close(event.about["why"] == "done")

    def _keep(self, name: str, row: Mapping[str, Any], columns: Sequence[str], step: int) -> None:
        for column in columns:
            if row.get(column) is not None:
                self.scalar(f"{name}/{column}", float(row[column]), step)


class TensorBoard(Tracker):
    """Event files in the run's folder: ``tensorboard --logdir sublevel-runs``."""

    def __init__(self, folder: Path, spec: StudySpec) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Write a scalar."""
        self._writer.add_scalar(name, value, step)

    def close(self, done: bool) -> None:
        """Close the files."""
        self._writer.close()


class WandB(Tracker):
    """A run of the project ``sublevel``; with WANDB_MODE=offline it stays in the run's folder."""

    def __init__(self, folder: Path, spec: StudySpec) -> None:
        import wandb

        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(project="sublevel", name=spec.name, dir=folder, config=spec.document())
        self._steps: set[str] = set()

    def scalar(self, name: str, value: float, step: int) -> None:
        """Log a number with its step, which belongs to a training, or to a branch with its seed."""
        group = name.rpartition("/")[0]
        if group not in self._steps:
            self._steps.add(group)
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
        self._run.log({name: value, f"{group}/step": step})

    def close(self, done: bool) -> None:
        """Finish the run."""
        self._run.finish(exit_code=0 if done else 1)


TRACKERS: dict[str, Callable[[Path, StudySpec], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}
"""The trackers by name, which is also that of the package and of the extra."""


def check_trackers(names: Sequence[str]) -> None:
    """ConfigError for a tracker that is unknown or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if find_spec(name) is None:
            raise ConfigError(f"the tracker {name} is not installed: pip install 'sublevel[{name}]'")


def trackers(names: Sequence[str], folder: Path, spec: StudySpec) -> list[Tracker]:
    """The trackers of those names, for a study whose outputs go to ``folder``."""
    return [TRACKERS[name](folder, spec) for name in dict.fromkeys(names)]
