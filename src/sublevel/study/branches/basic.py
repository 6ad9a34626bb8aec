"""Branches with one-shot or iterative pruning, rewinding or fine-tuning, and controls with random masks and weights."""

from __future__ import annotations

from sublevel.errors import ConfigError
from sublevel.study.builder import Builder, Solution, branch


@branch("imp", fraction=0.0, criterion="", rewind="")
def imp(b: Builder, level: int) -> Solution:
    """Iterative magnitude pruning: remaining weights are rewound to step k of the dense run (Frankle et al.
    1912.05671).

    ``fraction`` is the share that each level prunes, if it differs from the study's. ``criterion`` replaces the study's
    (also in `oneshot`, `finetune` and `lr-rewind`). ``rewind`` is another rewind step (also in `oneshot`), which must
    be in ``train.checkpoints``.
    """
    if not 0 <= b.options["fraction"] < 1:
        raise ConfigError(f"imp: fraction must lie between 0 and 1, got {b.options['fraction']}")
    before = b.solve("imp", level - 1)
    mask = b.prune(before.end, before.mask, level, b.label)
    return b.train(level, start={"point": b.rewound}, mask=mask, pruned=before.end)


@branch("oneshot", summary="one-shot pruning to the same number of weights", criterion="", rewind="")
def oneshot(b: Builder, level: int) -> Solution:
    """The dense end point pruned at once to the count of `imp`; remaining weights are rewound."""
    mask = b.prune(b.dense().end, None, level, b.label)
    return b.train(level, start={"point": b.rewound}, mask=mask, pruned=b.dense().end)


@branch("oneshot-cyclic", summary="one-shot pruning trained for as long as imp")
def oneshot_cyclic(b: Builder, level: int) -> Solution:
    """The one-shot mask, trained for as many cycles of the schedule from step k as `imp` takes to that level.

    It has the total training cost of `imp`: the control for comparing iterative with one-shot pruning at equal cost.
    """
    mask = b.solve("oneshot", level).mask
    start = b.rewound
    for cycle in range(1, level):
        start = b.train(level, start={"point": start}, mask=mask, cycle=cycle).end
    return b.train(level, start={"point": start}, mask=mask, pruned=b.dense().end)


@branch("finetune", summary="iterative pruning with fine-tuning", cite="renda2020comparing", criterion="")
def finetune(b: Builder, level: int) -> Solution:
    """Iterative pruning without rewinding: training continues from the pruned end point at a small constant rate."""
    before = b.solve("finetune", level - 1)
    mask = b.prune(before.end, before.mask, level, b.label)
    start = b.updated(mask, before.end)
    return b.train(level, start={"point": start}, mask=mask, pruned=before.end, lr=finetune_lr(b))


@branch("lr-rewind", summary="learning-rate rewinding", cite="renda2020comparing", criterion="")
def lr_rewind(b: Builder, level: int) -> Solution:
    """Iterative pruning that rewinds the learning rate to step k, but not the weights (Renda et al. 2003.02389)."""
    before = b.solve("lr-rewind", level - 1)
    mask = b.prune(before.end, before.mask, level, b.label)
    return b.train(level, start={"point": b.updated(mask, before.end)}, mask=mask, pruned=before.end)


@branch("finetune-mask", summary="fine-tuning with imp's own mask")
def finetune_mask(b: Builder, level: int) -> Solution:
    """The mask of `imp`, trained from the pruned end point of `imp`; only the start differs from `imp`."""
    before = b.solve("imp", level - 1).end
    mask = b.solve("imp", level).mask
    return b.train(level, start={"point": before}, mask=mask, pruned=before, lr=finetune_lr(b))


@branch("reinit", summary="imp's mask from a new initialisation", from_step="0it")
def reinit(b: Builder, level: int) -> Solution:
    """The mask of `imp` on a new initialisation; ``from_step`` = ``rewind`` starts its schedule at k instead of 0."""
    first = {"0it": 0, "rewind": b.rewind}.get(b.options["from_step"])
    if first is None:
        raise ConfigError(f"reinit: from_step must be '0it' or 'rewind', got {b.options['from_step']!r}")
    mask = b.solve("imp", level).mask
    return b.train(level, start={"init": f"reinit:{level}"}, mask=mask, first=first, marks=[first])


@branch("random-prune", summary="random masks with imp's count", per_layer=False)
def random_prune(b: Builder, level: int) -> Solution:
    """A random mask with the count of `imp` (``per_layer``: its count in each layer); remaining weights are rewound."""
    mask = b.random_mask(level, b.solve("imp", level).mask if b.options["per_layer"] else None)
    return b.train(level, start={"point": b.rewound}, mask=mask)


@branch("random-imp", summary="iterative random pruning")
def random_imp(b: Builder, level: int) -> Solution:
    """`imp` with a random criterion: nested masks with its counts; remaining weights are rewound and trained.

    The masks do not depend on weights, so levels do not wait for one another.
    """
    mask = None
    for n in range(1, level + 1):
        mask = b.random_mask(n, parent=mask)
    return b.train(level, start={"point": b.rewound}, mask=mask)


def finetune_lr(b: Builder) -> float:
    """The study's rate for fine-tuning, or the schedule's last rate that is not zero."""
    return b.spec.finetune_lr or next(r for r in reversed(b.spec.train.rates(b.examples)) if r > 0)
