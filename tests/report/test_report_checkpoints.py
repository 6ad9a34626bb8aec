"""The report of checkpoints that were trained elsewhere: its answer first, names on the axes, only what was done."""

from __future__ import annotations

import re

import pytest

from sublevel.report.figures import Drawn
from sublevel.report.methods import methods
from sublevel.report.page import render
from sublevel.report.prepare import clean, only_measured

SUMMARY = {
    "name": "mine", "model": {"name": "my_nets:net", "parameters": 866, "prunable": 850},
    "study": {"data": {"name": "digits"}, "levels": 10, "fraction": 0.2, "train": {"epochs": 160, "lr": 0.1}},
    "checkpoints": [{"name": "first", "file": "a.pt", "sha256": "ab" * 32, "of": "file"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def text(given, measured) -> str:
    return re.sub(r"<script.*?</script>", "", render(given, SUMMARY, measured), flags=re.S)


def test_a_study_is_told_from_measured_checkpoints_by_a_column(given, tables):
    assert only_measured(clean(given)["levels"])
    assert not only_measured(clean(tables)["levels"])
    assert not only_measured(clean({})["levels"])


def test_the_answer_comes_first_and_no_claims_and_no_tickets(text):
    answer = text.index("Do they share a basin?")
    assert answer < text.index("<figure")
    assert 'id="claims"' not in text
    assert "ticket" not in text[: text.index('id="protocol"')].lower()
    assert "weights remaining" not in text
    assert "dense network is missing" not in text
    assert "What next" not in text
    for name in ("first", "pruned", "other"):
        assert f"<td>{name}</td>" in text


def test_the_methods_say_only_what_was_done(given):
    found = methods(clean(given), SUMMARY)
    said = (
        "We measured 3 checkpoints of my_nets:net, on digits, trained elsewhere: first (a.pt, SHA-256 of the file abab"
    )
    assert found.text.startswith(said)
    for word in ("We trained", "SGD", "pruning removed", "levels", "repeated", "Saleem"):
        assert word not in found.text, word
    assert "saleem2024insights" not in found.bibtex


def test_every_checkpoint_has_its_place_and_its_line(measured: Drawn):
    figures = {f.key: f for f in measured.all}
    assert {"checkpoints-accuracy", "checkpoints-segments", "checkpoints-eigenvalues", "checkpoints-densities"} <= set(
        figures
    )
    assert not {"accuracy", "sharpness", "spectra", "densities", "barriers"} & set(figures)
    error = figures["checkpoints-accuracy"].views[0].panels[0]
    assert [name for _, name in error.x.ticks] == ["first", "pruned", "other"]
    assert [(s.label, s.x) for s in error.series] == [("first", [1.0]), ("pruned", [2.0]), ("other", [3.0])]
    for key in ("checkpoints-eigenvalues", "checkpoints-densities"):
        lines = figures[key].views[0].panels[0].series
        assert list(dict.fromkeys(s.label for s in lines)) == ["first", "pruned", "other"]
        assert len({s.style.colour for s in lines}) == 3
