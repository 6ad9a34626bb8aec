"""The words that the glossary in CONTRIBUTING.md has replaced occur nowhere in src, docs and README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("src/**/*.py")]

PHRASES = (
    "cannot be meant",
    "come to rest",
    "for want of",
    "goes on where it was",
    "held against",
    "images of clothes",
    "which no number depends on",
    "Memory that is kept",
    "of one's own",
    "somebody else's",
    "user's own",
    "whose rules a study follows",
    "worth while",
)
NAMES = ("Keeper", "Sight", "Slope", "Standing", "sight", "told")


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    return {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in FILES}


@pytest.mark.parametrize("phrase", PHRASES)
def test_a_phrase_that_was_replaced_does_not_return(texts: dict[str, str], phrase: str) -> None:
    pattern = re.compile(r"\s+".join(map(re.escape, phrase.split())), re.IGNORECASE)
    assert [path for path, text in texts.items() if pattern.search(text)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_was_replaced_does_not_return(texts: dict[str, str], name: str) -> None:
    pattern = re.compile(rf"\b(class|def|import) {name}\b")
    assert [path for path, text in texts.items() if pattern.search(text)] == []
