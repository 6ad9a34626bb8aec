"""What the branches of a study are, in a few words each."""

from __future__ import annotations

import re
from collections.abc import Iterable

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
VARIANT = re.compile(r"(?P<base>.+?)(?:-(?P<fraction>0?\.\d+))?(?P<own>-independent)?$")


def glossary(names: Iterable[str]) -> str:
    """What the branches of a study are, for those that have words here.

    >>> glossary(["dense", "imp", "oneshot", "imp-0.9"])
    'oneshot: one-shot pruning to the same number of weights; imp-0.9: as imp, 90% of the weights at one level'
    """
    found = [(name, _told(name)) for name in known_first(list(names))]
    return "; ".join(f"{name}: {words}" for name, words in found if words)


def _told(name: str) -> str:
    if name in BRANCHES:
        return CITATION.sub("", BRANCHES[name])
    match = VARIANT.fullmatch(name)
    if not match or match["base"] == name:
        return ""
    more = [f"{100 * float(match['fraction']):g}% of the weights at one level"] if match["fraction"] else []
    more += ["each level in a data order of its own"] if match["own"] else []
    return f"as {match['base']}, {', '.join(more)}"
