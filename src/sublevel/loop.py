"""Iterative magnitude pruning with rewinding inside your own training loop."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from sublevel._types import Bool, Tensor
from sublevel.errors import ConfigError
from sublevel.field import Field
from sublevel.prune import ScoreContext, counts, prune, score_function
from sublevel.rng import generator
from sublevel.space import Choice, Point, Space
from sublevel.tickets import Ticket
from sublevel.train.recipe import Duration


class Tickets:
    """Winning tickets of a network that your own code trains (Frankle et al. 1912.05671, algorithm 2).

    Call `step` after every ``optimizer.step()``. It stores the weights at step ``rewind`` (a number, or ``"500it"``)
    and keeps pruned weights, their gradients and the optimizer's state at exactly 0. After a training, `prune` removes
    ``fraction`` of the remaining weights and `rewind` restores the stored point; then train again from step
    ``self.step_count``. `ticket` returns the mask with the start and end points.

    ``prunable``, ``criterion``, ``scope``, ``rounding``, ``protect`` and ``floor`` are
    those of a study. Masks and tickets equal those of a `Study` whose trainings take the same steps.

    Raises ConfigError for an impossible rewind step, fraction or criterion, and if `prune`, `rewind` or `ticket` needs
    a point that was not reached.

    >>> net = nn.Linear(4, 2)
    >>> optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    >>> tickets = Tickets(net, optimizer, rewind=1, fraction=0.5)
    >>> for level in range(2):
    ...     while tickets.step_count < 3:
    ...         optimizer.zero_grad()
    ...         net(torch.ones(1, 4)).square().sum().backward()
    ...         optimizer.step()
    ...         tickets.step()
    ...     if level < 1:
    ...         tickets.prune()
    ...         _ = tickets.rewind()
    >>> tickets.ticket().density, int((net.weight == 0).sum())
    (0.5, 4)
    """

    def __init__(
        self,
        net: nn.Module,
        optimizer: Optimizer | None = None,
        *,
        rewind: int | str | Duration = 0,
        fraction: float = 0.2,
        prunable: Choice | None = None,
        criterion: str = "magnitude",
        scope: str = "global",
        **selection: Any,
    ) -> None:
        if not 0 < fraction < 1:
            raise ConfigError(f"fraction lies between 0 and 1, got {fraction:g}")
        score_function(criterion)  # refuses an unknown one
        self.net, self.optimizer, self.fraction, self.criterion = net, optimizer, fraction, criterion
        self.rewind_step = _steps(rewind)
        self.space = Space.of(net, prunable)
        self.selection = {"scope": scope, **selection}
        counts(self.space, fraction, 0, **self.selection)  # refuses an unknown scope, rounding or pattern
        self.step_count, self.level = 0, 0
        self.start: Point | None = self._point() if self.rewind_step == 0 else None
        self.mask: Bool[Tensor, "D"] = self.space.full_mask()
        self._hooks: list[RemovableHandle] = []

    @property
    def density(self) -> float:
        """The share of the prunable weights that remain."""
        return self.space.density(self.mask)

    def step(self) -> None:
        """Count an optimizer step, store the rewind point if reached, and apply the mask."""
        self.step_count += 1
        if self.start is None and self.step_count == self.rewind_step:
            self.start = self._point()
        self._hold()

    def prune(self, field: Field | None = None) -> None:
        """Remove ``fraction`` of the remaining weights, by the criterion, at the current point.

        ``field`` is the loss for criteria that need it, such as ``Problem.field("train")``. Raises ConfigError if the
        criterion lacks an input, if no weight would remain, or before step ``rewind``: there would be no dense point to
        return to.
        """
        start = self._start()
        keep = counts(self.space, self.fraction, self.level + 1, **self.selection)
        spared = {name: self.selection[name] for name in ("protect", "floor") if name in self.selection}
        context = ScoreContext(self.space, self.mask, start)
        draws = generator(0, f"prune:imp:{self.level + 1}")
        found = prune(self.criterion, self._point(), field, draws, context, keep, **spared)
        self.mask, self.level = found.mask, self.level + 1
        self._hold()
        self._mask_gradients()

    def rewind(self) -> int:
        """Restore the stored point under the mask, with a fresh optimizer state; return the step to continue from.

        Your loop sets the learning rate: reset its schedule to the returned step.
        """
        self.space.write(self.net, self._start().project(self.mask))
        if self.optimizer is not None:
            self.optimizer.state.clear()
        self.step_count = self.rewind_step
        return self.rewind_step

    def ticket(self, **about: Any) -> Ticket:
        """The ticket of the current level: the mask, the rewind point, and the current point as its end."""
        about = {"level": self.level, "rewind": self.rewind_step, "steps": self.step_count, **about}
        points = {"start": self._start(), "end": self._point()}
        constants = {name: p.detach().cpu().clone() for name, p in self.net.named_parameters() if not p.requires_grad}
        return Ticket(self.mask, points, self.space, constants, about, network=lambda: copy.deepcopy(self.net))

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint of the loop: tensors and numbers."""
        start = None if self.start is None else {"theta": self.start.theta, "buffers": dict(self.start.buffers)}
        return {"mask": self.mask, "start": start, "step_count": self.step_count, "level": self.level}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a `state_dict`. Raises ConfigError for one of another network."""
        if len(state["mask"]) != self.space.dim:
            raise ConfigError(f"the state has {len(state['mask'])} weights, and this network {self.space.dim}")
        start = state["start"]
        self.start = None if start is None else Point(start["theta"], dict(start["buffers"]))
        self.mask, self.step_count, self.level = state["mask"], state["step_count"], state["level"]
        self._hold()
        self._mask_gradients()

    def _point(self) -> Point:
        """The network's current point, as a copy on the CPU."""
        return self.space.point(self.net).to("cpu")

    def _start(self) -> Point:
        if self.start is None:
            raise ConfigError(
                f"the rewind point is that of step {self.rewind_step}, and only {self.step_count} were taken: "
                "call step() after every optimizer step, or set a smaller rewind"
            )
        return self.start

    @torch.no_grad()
    def _hold(self) -> None:
        """Set pruned weights, their gradients and their optimizer state to exactly 0."""
        if self.level == 0:
            return
        for parameter, mask in self._masked():
            state = {} if self.optimizer is None else self.optimizer.state.get(parameter, {})
            for tensor in (parameter, parameter.grad, *state.values()):
                if isinstance(tensor, Tensor) and tensor.shape == parameter.shape:
                    tensor.masked_fill_(~mask, 0)

    def _mask_gradients(self) -> None:
        """Mask gradients as they are computed, so that gradient clipping excludes pruned weights."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = [p.register_hook(lambda gradient, m=mask: gradient * m) for p, mask in self._masked()]

    def _masked(self) -> Sequence[tuple[nn.Parameter, Tensor]]:
        """Every prunable weight with its mask, on its device."""
        parameters = dict(self.net.named_parameters())
        found = []
        for layer in self.space.prunable_layers:
            weight = parameters[layer.name]
            found.append((weight, self.mask[layer.coordinates].view(layer.shape).to(weight.device)))
        return found


def _steps(rewind: int | str | Duration) -> int:
    if isinstance(rewind, int) and not isinstance(rewind, bool) and rewind >= 0:
        return rewind
    try:
        given = Duration.parse(rewind)
    except ValueError:
        given = None
    if given is None or given.unit != "it":
        raise ConfigError(f"rewind is a number of optimizer steps, such as 500 or '500it'; got {rewind!r}")
    return int(given.count)
