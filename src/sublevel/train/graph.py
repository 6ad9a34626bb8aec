"""Capture a step once as a CUDA graph and replay it: one graph for each batch size.

A small network's step on a GPU is about a hundred kernels of a few microseconds. Launching them one by one takes longer
than running them; a graph launches them together. A graph reads and writes fixed memory: the batch, the factors of the
optimizer and the masks are copied into it, and nothing is read back.

Without CUDA the same operations run one by one, so tests on any machine can compare them with the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ConfigError
from sublevel.space import Point
from sublevel.train.setup import TrainingSetup
from sublevel.train.team import team
from sublevel.train.weights import Weights

WARM_UP = 3
"""Warm-up steps on a side stream before a capture, as torch.cuda.graphs requires; they are undone."""


@dataclass(frozen=True, eq=False)
class Captured:
    """The input and output tensors for one batch size, and the function that replays the step on them."""

    x: Tensor
    y: Tensor
    mean: Float[Tensor, ""]
    replay: Callable[[], object]


class Graphed(Weights):
    """Masked training steps by replay."""

    def __init__(self, setup: TrainingSetup, start: Point, mask: Bool[Tensor, "D"] | None) -> None:
        super().__init__(setup, start, mask)
        if team().size > 1:
            raise ConfigError("train.engine 'graph' is for one process: remove it to train with several processes")
        if self._loss_and_grad.theta.is_cuda:
            _check_averages(self._loss_and_grad.module)
        self._captured: dict[tuple[int, ...], Captured] = {}
        self._factors: list[Tensor] = []

    def step(self, x: Tensor, y: Tensor, lr: float) -> Tensor:
        """Take one step; return the mean loss before it, in memory that the next step overwrites."""
        factors = self.optimizer.factors(lr)
        self._factors = self._factors or [self._loss_and_grad.theta.new_zeros(()) for _ in factors]
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
        """As in `Weights`; later steps are captured again."""
        super().restrict(mask, theta)
        self._captured.clear()

    def _capture(self, x: Tensor, y: Tensor) -> Captured:
        at = Captured(x.clone(), y.clone(), self._loss_and_grad.theta.new_zeros(()), lambda: None)
        body = lambda: self._body(at)  # noqa: E731
        if x.device.type != "cuda":
            return Captured(at.x, at.y, at.mean, body)
        before = {name: t.clone() for name, t in self.state().items()}
        random = torch.cuda.get_rng_state(x.device)
        try:
            with torch.cuda.device(x.device):
                replay = _recorded(body, x.device)
        except BaseException:
            _free_generator(x.device)
            raise
        finally:
            self.restore(before)
            torch.cuda.set_rng_state(random, x.device)
        return Captured(at.x, at.y, at.mean, replay)

    def _body(self, at: Captured) -> None:
        """The step on the captured tensors; a buffer that the network replaces is copied into the old buffer."""
        loss_and_grad = self._loss_and_grad
        places = dict(loss_and_grad.buffers)
        mean, gradients = loss_and_grad(at.x, at.y)
        for name, place in places.items():
            if loss_and_grad.buffers[name] is not place:
                place.copy_(loss_and_grad.buffers[name])
        loss_and_grad.buffers = places
        self.optimizer.move(gradients, self._factors)
        at.mean.copy_(mean)


def _recorded(body: Callable[[], object], device: torch.device) -> Callable[[], object]:
    """Capture ``body`` on the current device; return the function that replays it.

    The last warm-up step detects waits of the host. An error inside a capture would leave this process's generator and
    stream in capture mode. Raises ConfigError if ``body`` cannot be captured.
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


def _free_generator(device: torch.device) -> None:
    """Give the device's generator a state of its own again.

    Where a capture ends in an error, `CUDAGraph::capture_end` throws before the generator's state leaves the capture,
    and every later draw raises. Copies of a state are in no capture (`CUDAGeneratorState::clone`).
    """
    generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
    generator.graphsafe_set_state(generator.clone_state())


@contextmanager
def _no_waits() -> Iterator[None]:
    """Raise an error if the host would wait for the device."""
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
