"""Documents with right checksums and wrong types, depths and sizes: read or refused, with nothing else touched."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).parent.parent / "benchmarks" / "faults"


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(FAULTS)
    import documents

    yield documents
    for name in ("documents", "mutations", "fuzz"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    "cases", [pytest.param(60, id="short"), pytest.param(5_000, id="long", marks=pytest.mark.full)]
)
def test_no_shape_leads_to_a_traceback_a_hang_or_out_of_the_folder(faults, cases: int) -> None:
    found = faults.shapes(cases, seed=3)
    assert {name: bad for name, bad in faults.wrong(found).items() if name != "memory"} == {}
    for kind in faults.KINDS[:4]:
        assert found["cases"][kind]["refused"] > 0, kind
        assert cases < 1_000 or found["cases"][kind]["understood"] > 0, kind


def test_changes_are_changes(faults) -> None:
    import mutations

    document, rng = {"a": [1, {"b": "c"}], "d": None}, random.Random(0)
    assert list(mutations.places(document)) == [("a",), ("a", 0), ("a", 1), ("a", 1, "b"), ("d",)]
    texts = {repr(mutations.changed(document, rng)) for _ in range(50)}
    assert len(texts) > 40
    assert document == {"a": [1, {"b": "c"}], "d": None}


def test_what_is_wrong_is_told(faults) -> None:
    good = {"cases": {"x": {"refused": 1, "understood": 2}}, "slowest": 1.0, "memory": 1, "touched": False}
    assert faults.wrong(good) == {}
    bad = {**good, "cases": {"x": {"KeyError: 1": 2}}, "slowest": 11.0, "touched": True}
    assert faults.wrong(bad) == {"x": {"KeyError: 1": 2}, "slowest": 11.0, "touched": True}
