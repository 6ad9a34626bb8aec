"""The claims as cards: verdict, one interval, and the evidence."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from sublevel.report.frame import Column, Frame
from sublevel.report.numbers import estimate, in_points, percent, plain, probability

UNMEASURED = "not measured"
ICONS = {
    "supported": "M3.5 8.5 6.5 11.5 12.5 4.5",
    "contradicted": "M4 4 12 12M12 4 4 12",
    "undecided": "M3 8C4.5 5.5 6.5 5.5 8 8S11.5 10.5 13 8",
}
"""A path in a box of 16: a tick, a cross, a wave. A verdict is a word, a shape and a colour, never a colour alone."""


@dataclass(frozen=True)
class DrawnInterval:
    """An interval on a line from 0 to 100: its ends and its middle, zero, and the margin to both sides of zero."""

    low: float
    mid: float
    high: float
    zero: float
    margins: tuple[float, ...]
    words: str


ROLES = {"decides": "", "beyond": "not part of the verdict", "comparison": "for comparison"}
"""What a comparison is to the verdict (column ``role`` of the table ``claims``), as a heading says it."""


@dataclass(frozen=True)
class Evidence:
    """The comparisons of a claim at one density that have one role; ``rows`` are name, effect with unit, reading."""

    heading: str
    decides: bool
    rows: list[tuple[str, str, str]]


@dataclass(frozen=True)
class Card:
    """One claim as the page shows it.

    ``kind`` is the verdict as a class name, ``why`` the reasons in words, ``figure`` an anchor, or empty.
    """

    claim: str
    statement: str
    verdict: str
    kind: str
    icon: str
    why: list[str]
    evidence: list[Evidence]
    sentence: str
    effect: str
    interval: str
    unit: str
    facts: list[tuple[str, str]]
    drawn: DrawnInterval | None
    figure: str


@dataclass(frozen=True)
class Verdicts:
    """The claims that were measured, and the others with what to add."""

    cards: list[Card]
    unmeasured: list[tuple[str, str, str]]

    @property
    def counts(self) -> list[tuple[str, int]]:
        """The number of claims with each verdict, decided ones first."""
        names = [c.verdict for c in self.cards]
        order = [*ICONS, *sorted(set(names) - set(ICONS))]
        return [(name, names.count(name)) for name in order if name in names]


def verdicts(table: Frame, claims: Frame, anchors: Collection[str]) -> Verdicts:
    """The table of verdicts as cards, in its own order, with their comparisons from the table ``claims``.

    ``anchors`` are the keys of the figures on the page.
    """
    measured = table[table["verdict"] != UNMEASURED]
    missing = table[table["verdict"] == UNMEASURED]
    return Verdicts(
        [_card(row, claims[claims["claim"] == row["claim"]], anchors) for _, row in measured.iterrows()],
        [(str(r["claim"]), _sentence(str(r["statement"])), _sentence(str(r["why"]))) for _, r in missing.iterrows()],
    )


def _card(row: Column, compared: Frame, anchors: Collection[str]) -> Card:
    verdict = str(row["verdict"])
    scale, unit = in_points(str(row["unit"]))
    effect, low, high, margin = (scale * float(row[c]) for c in ("effect", "low", "high", "margin"))
    value, _, interval = estimate(effect, low, high).partition(" ")
    return Card(
        claim=str(row["claim"]), statement=str(row["statement"]), verdict=verdict or "no verdict",
        kind=verdict if verdict in ICONS else "undecided", icon=ICONS.get(verdict, ICONS["undecided"]),
        why=[w for w in str(row["why"]).split("; ") if w], evidence=_evidence(compared), sentence=str(row["sentence"]),
        effect=value, interval=interval, unit=unit, facts=_facts(row, margin, scale),
        drawn=_drawn(effect, low, high, margin, unit), figure=str(row["figure"]) if row["figure"] in anchors else "",
    )  # fmt: skip


def _evidence(compared: Frame) -> list[Evidence]:
    """The comparisons that were measured, by role, from the most weights to the fewest."""
    found = []
    for role, words in ROLES.items():
        rows = compared[(compared["role"] == role) & compared["effect"].notna()]
        densities = rows["density"].fillna(-1.0)  # a comparison over all solutions has none
        for density in sorted(densities.unique(), reverse=True):
            lines = []
            for _, r in rows[densities == density].iterrows():
                scale, unit = in_points(str(r["unit"]))
                effect = estimate(*(scale * float(r[c]) for c in ("effect", "low", "high")))
                lines.append((str(r["comparison"]), f"{effect} {unit}", str(r["reading"])))
            at = f"{percent(density)} of the weights" if density >= 0 else "over all solutions"
            found.append(Evidence(", ".join(filter(None, [at, words])), role == "decides", lines))
    return found


def _facts(row: Column, margin: float, scale: float) -> list[tuple[str, str]]:
    """Seeds, density, margin, and the p values that the verdict rests on: those of the opposite where that holds."""
    against = row["verdict"] == "contradicted"
    p, corrected = ("p_contrary", "p_contrary_holm") if against else ("p", "p_holm")
    pairs = [
        ("seeds", plain(float(row["n"]))),
        ("weights left", percent(float(row["density"]))),
        ("margin", plain(margin) if margin else ""),
        ("verdict flips at a margin of", plain(scale * float(row["margin_flip"]), 2)),
        ("p for the opposite claim" if against else "p", probability(float(row[p]))),
        ("corrected (Holm)", probability(float(row[corrected])) if row[corrected] != row[p] else ""),
        ("", "exploratory" if row["family"] == "exploratory" else ""),
    ]
    return [(name, value) for name, value in pairs if value]


def _drawn(effect: float, low: float, high: float, margin: float, unit: str) -> DrawnInterval | None:
    """The interval on a scale that holds zero, the margin and both ends; None without an effect.

    >>> shown = _drawn(1.0, 0.0, 2.0, 0.5, "points")
    >>> shown.zero, shown.mid, shown.high, shown.margins
    (50.0, 73.0, 96.0, (38.5, 61.5))
    """
    if not math.isfinite(effect):
        return None
    ends = [v if math.isfinite(v) else effect for v in (low, high)]
    edge = abs(margin) if math.isfinite(margin) else 0.0
    reach = max(*map(abs, ends), abs(effect), edge) or 1.0
    spot = [round(50 + 46 * v / reach, 1) for v in (ends[0], effect, ends[1], -edge, edge)]
    words = f"{estimate(effect, low, high)} {unit}".strip() + (f", margin {plain(margin)}" if edge else "")
    return DrawnInterval(spot[0], spot[1], spot[2], 50.0, (spot[3], spot[4]) if edge else (), words)


def _sentence(text: str) -> str:
    """A text with one full stop at its end, empty where there is none.

    >>> _sentence("no random draws"), _sentence("It is so."), _sentence("")
    ('no random draws.', 'It is so.', '')
    """
    return text if not text or text[-1] in ".!?" else f"{text}."
