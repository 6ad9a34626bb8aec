"""What the branches of a study are, in a few words each."""

from __future__ import annotations

import re

from sublevel.claims.branches import Branches as ClaimBranches
from sublevel.report.frame import Frame
from sublevel.report.palette import known_first

BRANCHES = {
    "oneshot": "one-shot pruning to the same number of weights",
    "finetune": "iterative pruning with fine-tuning [[renda2020comparing]]",
    "finetune-mask": "fine-tuning with imp's own mask",
    "lr-rewind": "learning-rate rewinding [[renda2020comparing]]",
    "reinit": "imp's mask from a new initialisation",
    "random-prune": "random masks with imp's count",
    "random-imp": "iterative random pruning",
    "oneshot-cyclic": "one-shot pruning trained for as long as imp",
    "gradual": "gradual pruning during one training run [[zhu2017prune]]",
    "at-init": "pruning before training",
    "other-order": "the ticket trained in another seed's data order",
    "other-mask": "another seed's mask on this seed's weights",
    "edge-popup": "a mask learned over frozen initial weights [[ramanujan2020hidden]]",
    "edge-popup-train": "the weights under such a mask, trained from their start",
    "continuous-sparsification": "a mask learned together with the weights [[savarese2020winning]]",
    "reinit-signs": "new weights with the signs of the rewound ones",
    "shuffle-weights": "rewound weights shuffled within each layer",
}
"""Branch -> what it does, with citations in double brackets."""

CITATION = re.compile(r" ?\[\[[a-z0-9,]+\]\]")


def glossary(levels: Frame) -> str:
    """What the branches of a table of levels are, for those that have words here or vary one that has.

    >>> import pandas as pd
    >>> rows = {"branch": ["dense", "imp", "oneshot", "mine"], "base": ["dense", "imp", "oneshot", "imp"], "level": 1}
    >>> glossary(pd.DataFrame(rows | {"density": [1, 0.8, 0.8, 0.1]}))
    'oneshot: one-shot pruning to the same number of weights; mine: as imp, 90% of the weights at a level'
    """
    known = ClaimBranches(levels)
    told = [(name, _told(known, name)) for name in known_first(known.variants)]
    return "; ".join(f"{name}: {words}" for name, words in told if words)


def _told(known: ClaimBranches, name: str) -> str:
    mine = known.variants[name]
    main = known.variants[known.label(mine.base)]
    if name == main.label or main.label == "dense":
        return CITATION.sub("", BRANCHES.get(mine.base, ""))
    more = [f"{100 * mine.fraction:.3g}% of the weights at a level"] if known.other_fraction(name) else []
    more += ["each level in a data order of its own"] * (mine.order == "independent" != main.order)
    more += [f"by {mine.criterion}"] * (mine.criterion not in ("", main.criterion))
    return f"as {mine.base}, {', '.join(more)}" if more else ""
