"""The sums of a pass over examples, and inputs that several points share."""

from __future__ import annotations

from collections.abc import Callable
from math import nan

import torch

from sublevel._types import Float, Tensor
from sublevel.field.base import Evaluation
from sublevel.inputs import Inputs, tensors_of
from sublevel.risk.losses import counted, wrong


class EvaluationSums:
    """Sums of losses and of wrong answers in float64, kept on the device until `result`."""

    def __init__(self, device: torch.device) -> None:
        self.examples, self.classified = 0, True
        self.counted: Tensor | float = 0.0
        self.loss = self.missed = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, losses: Float[Tensor, "batch"], outputs: Tensor, y: Tensor) -> None:
        """Add a batch; errors are counted if the targets ``y`` are classes."""
        self.examples += len(y)
        self.loss = self.loss + losses.detach().sum(dtype=torch.float64)
        self.classified = self.classified and y.dtype == torch.int64
        if self.classified:
            counts = counted(y)
            self.missed = self.missed + (wrong(outputs.detach(), y) * counts).sum()
            self.counted = self.counted + counts.sum()

    def result(self) -> Evaluation:
        """Mean loss, and the share of wrong answers."""
        n = self.examples
        error = float(self.missed) / max(float(self.counted), 1e-300) if self.classified else nan
        return Evaluation(float(self.loss) / n, error, n)


class Prepared:
    """The inputs of a batch, prepared once, and again after a network has written into them."""

    def __init__(self, prepare: Callable[[], Inputs]) -> None:
        self._prepare, self._inputs = prepare, prepare()
        self._versions = self._now()

    def __call__(self) -> Inputs:
        """The prepared inputs."""
        if self._now() != self._versions:
            self._inputs = self._prepare()
            self._versions = self._now()
        return self._inputs

    def _now(self) -> list[int]:
        return [x._version for x in tensors_of(self._inputs)]
