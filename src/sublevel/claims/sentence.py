"""The sentence about a claim that may be quoted."""

from __future__ import annotations

from sublevel.claims.combine import Combined
from sublevel.claims.parts import Tested
from sublevel.claims.words import effect, listed, seeds_text, title


def quotable(verdict: str, outcome: Combined, shown: Tested, family: str, *, mixed: bool = False) -> str:
    """One sentence: the verdict and where it holds, and the effect of the part shown, with interval and seeds.

    ``mixed`` says that the claim is shown at some densities and its opposite at others.
    """
    if verdict == "not measured":
        return "Not measured."
    aside = " Exploratory: not corrected for the number of claims." if family == "exploratory" else ""
    if verdict == "supported":
        return f"Supported{_where(outcome.beyond)}: {effect(shown)}.{aside}"
    if verdict == "contradicted":
        where = outcome.against_words or listed([p.where for p in outcome.opposed])
        return f"Contradicted{_where(where)}: {effect(shown)}.{aside}"
    if mixed:
        held, opposed = (listed([p.where for p in found]) for found in (outcome.holding, outcome.opposed))
        return f"Inconclusive over all densities: it holds at {held}, and the opposite at {opposed}.{aside}"
    if not outcome.deciding:
        where = listed([x.where for x in outcome.levels])
        return f"Inconclusive: the ticket is not shown to match at {where}. There, {effect(shown)}.{aside}"
    missing = [t for p in outcome.deciding for t in p.deciding if not t.n]
    if missing:
        return f"Inconclusive: {title(missing[0])} was not measured. {capital(effect(shown))}.{aside}"
    return f"Inconclusive with {seeds_text(shown)}: {effect(shown, seeds=False)}.{aside}"


def _where(words: str) -> str:
    """Words for where a verdict holds, as the sentence goes on.

    >>> _where("25% of the weights"), _where("down to 25% of the weights"), _where("level 1"), _where("")
    (' at 25% of the weights', ' down to 25% of the weights', ' at level 1', '')
    """
    if not words:
        return ""
    if words[0].isdigit() or words.startswith("level "):
        return f" at {words}"
    return f" {words}" if words.startswith("down") else f": {words}"


def capital(text: str) -> str:
    """A text with its first letter in upper case."""
    return text[:1].upper() + text[1:]
