"""Colours and marker shapes: one look for each branch, the same in every figure.

The colours come from the Okabe-Ito family, moved to a middle lightness so that they hold on white and on
black; neighbours in hue differ in shape and dash, so that no distinction rests on colour alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain, cycle


@dataclass(frozen=True)
class Style:
    """A colour (``#rrggbb``), a marker's name in plotly's words, a dash (``solid``, ``dash``, ``dot``)."""

    colour: str
    marker: str = "circle"
    dash: str = "solid"


PLAIN = Style("#767676")

OWN = Style("", "", "")
"""The look of the branch that a series is of, put in when all figures of a study are known."""

BRANCHES: dict[str, Style] = {
    "dense": PLAIN,
    "imp": Style("#1f78c8", "circle"),
    "oneshot": Style("#d9601a", "square"),
    "finetune": Style("#0a9b74", "diamond"),
    "finetune-mask": Style("#8a9a1c", "triangle-up", "dash"),
    "lr-rewind": Style("#35a7cf", "triangle-down", "dash"),
    "reinit": Style("#c7559b", "x"),
    "random-prune": Style("#8667bd", "star"),
    "random-imp": Style("#a66a2c", "hexagon", "dash"),
    "reinit-signs": Style("#dd6f78", "cross", "dot"),
    "shuffle-weights": Style("#6489a0", "pentagon", "dot"),
}

SPARE = (
    Style("#b08900", "star-triangle-up"),
    Style("#4f7d3a", "bowtie", "dash"),
    Style("#b3475c", "hourglass", "dot"),
    Style("#5a6fd0", "diamond-tall", "dash"),
)

POLICIES: dict[str, Style] = {
    "none": Style("#1f78c8", "circle"),
    "stored": Style("#d9601a", "square"),
    "recomputed": Style("#1f78c8", "circle"),
    "averaged": Style("#0a9b74", "diamond"),
    "batch": Style("#8667bd", "triangle-up"),
}

RAMP = ("#3b5fae", "#2f8fb0", "#35a57c", "#93a52f", "#d08c22", "#cf5a2e")
"""From the first level to the last: cold to warm, readable on white and on black."""

HEAT = ("#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725")
"""The colours of a map from its lowest to its highest value (viridis)."""

OUTSIDE = ("#f1eee8", "#b9b8b5", "#59616b")
"""What lies above the height of a sublevel set, from its border upwards."""


def known_first(names: Iterable[str]) -> list[str]:
    """Distinct names, those with a fixed look first in its order, then the rest by name.

    >>> known_first(["mine", "oneshot", "dense", "oneshot"])
    ['dense', 'oneshot', 'mine']
    """
    known = list(BRANCHES)
    return sorted(set(names), key=lambda n: (known.index(n) if n in BRANCHES else len(known), n))


def styles(names: Iterable[str], others: Iterable[str] = ()) -> dict[str, Style]:
    """The look of every branch in a study, then of ``others``, each its own.

    A name not known here takes a spare look, then one that no branch of the study has, then the colour of one look with
    the marker and the dash of another.

    >>> looks = styles(["imp", *map(str, range(50))])
    >>> len(set(looks.values()))
    51
    """
    every = list(dict.fromkeys([*known_first(names), *known_first(others)]))
    looks = [*(look for name, look in BRANCHES.items() if name != "dense"), *SPARE]
    unused = (look for name, look in BRANCHES.items() if name not in ("dense", *every))
    shifts = (zip(looks, looks[i:] + looks[:i], strict=True) for i in range(1, len(looks)))
    mixed = [replace(of, colour=colour.colour) for pairs in shifts for colour, of in pairs]
    free = chain(SPARE, unused, cycle(mixed))
    return {name: BRANCHES.get(name) or next(free) for name in every}


def policy(name: str) -> Style:
    """The look of a buffer policy."""
    return POLICIES.get(name, SPARE[0])


def dashed(style: Style, dash: str) -> Style:
    """The same look with another dash."""
    return replace(style, dash=dash)


def ramp(index: int, count: int) -> str:
    """Colour ``index`` of ``count`` along the ramp from first to last level.

    >>> ramp(0, 5), ramp(4, 5)
    ('#3b5fae', '#cf5a2e')
    """
    place = index / max(count - 1, 1) * (len(RAMP) - 1)
    left = min(int(place), len(RAMP) - 2)
    share = place - left
    pairs = zip(_rgb(RAMP[left]), _rgb(RAMP[left + 1]), strict=True)
    return "#" + "".join(f"{round(a + share * (b - a)):02x}" for a, b in pairs)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
