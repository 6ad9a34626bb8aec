"""A step that is captured once and replayed: one CUDA graph for each size of batch.

A small network's step on a GPU is some hundred kernels of a few microseconds, and starting them one by one takes longer
than they run. A graph starts them all at once. It reads and writes the same places every time: the batch, the factors
of the optimizer and the masks are copied into them, and nothing is read back.

Where there is no CUDA the same operations run one by one, so that what is captured can be compared with the reference
on any machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ConfigError
from sublevel.train.team import team
from sublevel.train.weights import Weights

WARM_UP = 3
"""Steps on a side stream before a capture, as torch.cuda.graphs asks for; they are undone."""


@dataclass(frozen=True, eq=False)
class Captured:
    """The places of one size of batch, and what takes the step on what stands in them."""

    x: Tensor
    y: Tensor
    mean: Float[Tensor, ""]
    replay: Callable[[], object]


class Graphed(Weights):
    """Masked descent of the weights by replayed steps."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        if team().size > 1:
            raise ConfigError("train.engine 'graph' is for one process: leave it out where several train together")
        self._captured: dict[tuple[int, ...], Captured] = {}
        self._factors: list[Tensor] = []

    def step(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """One step; the mean loss before it, which the next step overwrites."""
        factors = self.optimizer.factors(lr)
        self._factors = self._factors or [self._slope.theta.new_zeros(()) for _ in factors]
        for place, factor in zip(self._factors, factors, strict=True):
            place.fill_(factor)
        shape = tuple(x.shape)
        if shape not in self._captured:
            self._captured[shape] = self._capture(x, y)
        at = self._captured[shape]
        at.x.copy_(x)
        at.y.copy_(y)
        at.replay()
        return at.mean

    def restrict(self, mask: Bool[Tensor, "D"], theta: Float[Tensor, "D"]) -> None:
        """As of `Weights`; the steps are captured anew."""
        super().restrict(mask, theta)
        self._captured.clear()

    def _capture(self, x: Tensor, y: Tensor) -> Captured:
        at = Captured(x.clone(), y.clone(), self._slope.theta.new_zeros(()), lambda: None)
        body = lambda: self._body(at)  # noqa: E731
        if x.device.type != "cuda":
            return Captured(at.x, at.y, at.mean, body)
        before = {name: t.clone() for name, t in self.state().items()}
        random = torch.cuda.get_rng_state(x.device)
        side = torch.cuda.Stream(x.device)
        side.wait_stream(torch.cuda.current_stream(x.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                body()
        torch.cuda.current_stream(x.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            body()
        self.restore(before)
        torch.cuda.set_rng_state(random, x.device)
        return Captured(at.x, at.y, at.mean, graph.replay)

    def _body(self, at: Captured) -> None:
        """The step on what stands in the places; buffers that the network replaces are written where they stood."""
        slope = self._slope
        places = dict(slope.buffers)
        mean, gradients = slope(at.x, at.y)
        for name, place in places.items():
            if slope.buffers[name] is not place:
                place.copy_(slope.buffers[name])
        slope.buffers = places
        self.optimizer.move(gradients, self._factors)
        at.mean.copy_(mean)
