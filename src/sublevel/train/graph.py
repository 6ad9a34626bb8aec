"""A step that is captured once and replayed: one CUDA graph for each size of batch.

A small network's step on a GPU is some hundred kernels of a few microseconds, and starting them one by one takes longer
than they run. A graph starts them all at once. It reads and writes the same places every time: the batch, the factors
of the optimizer and the masks are copied into them, and nothing is read back.

Where there is no CUDA the same operations run one by one, so that what is captured can be compared with the reference
on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

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
        if self._slope.theta.is_cuda:
            _check_averages(self._slope.module)
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
        with torch.cuda.device(x.device):
            replay = _recorded(body, x.device)
        self.restore(before)
        torch.cuda.set_rng_state(random, x.device)
        return Captured(at.x, at.y, at.mean, replay)

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


def _recorded(body: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """What replays ``body``, on the device that is current.

    A wait is found in the last warm-up, where it raises and does no harm: inside a capture it would leave the
    generator and the stream of this process as they are during one. Raises ConfigError where it cannot be captured.
    """
    here, side = torch.cuda.current_stream(device), torch.cuda.Stream(device)
    graph = torch.cuda.CUDAGraph()
    side.wait_stream(here)
    with torch.cuda.stream(side):
        for _ in range(WARM_UP - 1):
            body()
    try:
        with torch.cuda.stream(side), _no_waits():
            body()
        here.wait_stream(side)
        with torch.cuda.graph(graph, stream=side):
            body()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        torch.cuda.set_stream(here)
        raise ConfigError(
            f"train.engine 'graph' cannot capture a step of this network: leave train.engine out "
            f"({str(error).splitlines()[0]})"
        ) from error
    return graph.replay


@contextmanager
def _no_waits() -> Iterator[None]:
    """Raise where the host would wait for the device."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def _check_averages(module: nn.Module) -> None:
    """ConfigError for statistics that are averaged over all batches: the count of batches is read in every step."""
    for name, layer in module.named_modules():
        if isinstance(layer, _NormBase) and layer.track_running_stats and layer.momentum is None:
            raise ConfigError(
                f"train.engine 'graph' cannot capture {type(layer).__name__}(momentum=None), which reads its count of "
                f"batches in every step ({name}): leave train.engine out, or give the layer a momentum"
            )
