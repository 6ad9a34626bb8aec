"""Trackers of experiments: what trainings and solutions report, as scalars of TensorBoard or Weights & Biases.

Each is a listener with one method of its own, ``scalar``; the packages are extras, imported when they are asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sublevel.engine.graph import Node
from sublevel.engine.schedule import Listener, Outcome
from sublevel.errors import ConfigError, unknown

if TYPE_CHECKING:
    from sublevel.study.study import Study

TRAINING = ("train_loss", "validation_loss", "validation_error", "lr")
"""What a training reports, by its step."""

SOLUTION = ("train_loss", "train_error", "validation_error", "test_loss", "test_error", "density")
"""What is known of a solution, by its level."""


class Tracker(Listener):
    """Scalars with names and steps: ``train/imp/L3/s0/train_loss`` by step, ``imp/s0/test_error`` by level."""

    def scalar(self, name: str, value: float, step: int) -> None:
        """Keep a number."""
        raise NotImplementedError

    def progressed(self, node: Node, row: Mapping[str, Any]) -> None:
        """The row of a training."""
        if "step" in row:
            self._keep(node.id, row, TRAINING, row["step"])

    def finished(self, outcome: Outcome) -> None:
        """The row of a solution, also of one that was in the store."""
        if outcome.good and outcome.node.kind == "solution":
            labels = outcome.node.labels
            name = f"{labels['branch']}/s{labels['seed']}"
            self._keep(name, outcome.entry["values"]["row"], SOLUTION, labels["level"])

    def _keep(self, name: str, row: Mapping[str, Any], columns: Sequence[str], step: int) -> None:
        for column in columns:
            if row.get(column) is not None:
                self.scalar(f"{name}/{column}", float(row[column]), step)


class TensorBoard(Tracker):
    """Event files in the run's folder: ``tensorboard --logdir sublevel-runs``."""

    def __init__(self, study: Study) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(study.folder / "tensorboard"))

    def scalar(self, name: str, value: float, step: int) -> None:
        """Write a scalar."""
        self._writer.add_scalar(name, value, step)

    def ended(self, why: str) -> None:
        """Close the files."""
        self._writer.close()


class WandB(Tracker):
    """A run of the project ``sublevel``; with WANDB_MODE=offline it stays in the run's folder."""

    def __init__(self, study: Study) -> None:
        import wandb

        study.folder.mkdir(parents=True, exist_ok=True)
        spec = study.spec
        self._run = wandb.init(project="sublevel", name=spec.name, dir=study.folder, config=spec.document())
        self._steps: set[str] = set()

    def scalar(self, name: str, value: float, step: int) -> None:
        """Log a number with its step, which belongs to a training, or to a branch with its seed."""
        group = name.rpartition("/")[0]
        if group not in self._steps:
            self._steps.add(group)
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
        self._run.log({name: value, f"{group}/step": step})

    def ended(self, why: str) -> None:
        """Finish the run."""
        self._run.finish(exit_code=0 if why == "done" else 1)


TRACKERS: dict[str, Callable[[Study], Tracker]] = {"tensorboard": TensorBoard, "wandb": WandB}
"""By name, which is the package's and the extra's too."""


def check_trackers(names: Sequence[str]) -> None:
    """ConfigError for a tracker that is unknown or not installed."""
    for name in names:
        if name not in TRACKERS:
            raise unknown("tracker", name, TRACKERS)
        if find_spec(name) is None:
            raise ConfigError(f"the tracker {name} is not installed: pip install 'sublevel[{name}]'")


def trackers(names: Sequence[str], study: Study) -> list[Tracker]:
    """The trackers of those names."""
    return [TRACKERS[name](study) for name in dict.fromkeys(names)]
