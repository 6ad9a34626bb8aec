"""Pruning by a criterion: score, select, and repeat if the criterion prunes in rounds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from sublevel._types import Bool, Float, Tensor
from sublevel.errors import ConfigError
from sublevel.field import Field
from sublevel.prune.registry import Criterion, ScoreContext, Scores, score_function
from sublevel.prune.select import layer_counts, select
from sublevel.space import Point, project


@dataclass(frozen=True)
class Pruning:
    """A mask and the criterion's weights for it (exactly 0 outside the mask).

    ``looks`` is the number of times the weights were scored.
    """

    mask: Bool[Tensor, "D"]
    theta: Float[Tensor, "D"]
    looks: int


def prune(
    criterion: str | Criterion,
    point: Point,
    field: Field | None,
    generator: torch.Generator,
    context: ScoreContext,
    keep: Sequence[int],
    *,
    protect: Sequence[str] = (),
    floor: int = 0,
) -> Pruning:
    """Remove the weights of ``context.mask`` with the lowest scores, down to exactly ``keep``.

    ``keep``, ``protect`` and ``floor`` are as in `select`. An iterated criterion scores again after
    each step of `schedule`, at the point pruned so far.

    Raises ConfigError if the criterion lacks an input, or returns scores of the wrong length or nan.

    >>> from torch import nn
    >>> from sublevel.space import Space
    >>> net = nn.Linear(3, 1)
    >>> space = Space.of(net)
    >>> at = Point(torch.tensor([3.0, -1.0, 2.0, 0.5]))
    >>> prune("magnitude", at, None, torch.Generator(), ScoreContext(space, space.full_mask()), [2]).theta
    tensor([3.0000, 0.0000, 2.0000, 0.5000])
    """
    chosen = criterion if isinstance(criterion, Criterion) else score_function(criterion)
    space, mask, looks = context.space, context.mask, 0
    if len(mask) != space.dim or len(point.theta) != space.dim:
        raise ConfigError(
            f"the point has {len(point.theta)} and the mask {len(mask)} coordinates; the network has {space.dim}"
        )
    before = layer_counts(space, mask) if len(keep) > 1 else [space.remaining(mask)]
    at, found = point.project(mask), Scores(point.theta)
    for left in schedule(before, keep, chosen.rounds):
        at = point.project(mask)
        found = chosen.look(at, field, generator, replace(context, mask=mask))
        mask = select(space, found.values, mask, left, protect=protect, floor=floor)
        looks += 1
    theta = project(at.theta, mask) if found.update is None else project(found.update(mask), mask)
    return Pruning(mask, theta, looks)


def schedule(before: Sequence[int], after: Sequence[int], rounds: int) -> Iterator[list[int]]:
    """Counts that fall exponentially, ``before * (after / before)^(r / rounds)``, to exactly ``after``.

    Steps that remove nothing are omitted, except the last (Tanaka et al. 2006.05467, algorithm 1).

    >>> list(schedule([1000], [1], 3))
    [[100], [10], [1]]
    """
    last = list(before)
    for r in range(1, rounds):
        now = [math.floor(b * (a / b) ** (r / rounds) + 0.5) if b else 0 for b, a in zip(before, after, strict=True)]
        if now != last and now != list(after):
            yield now
        last = now
    yield list(after)
