"""Mutated study files, tickets, store entries and data files: refused in a sentence, or read for what they are."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

FAULTS = Path(__file__).parent.parent / "benchmarks" / "faults"


@pytest.mark.parametrize(
    "share", [pytest.param(0.02, id="short"), pytest.param(1.0, id="long", marks=pytest.mark.full)]
)
def test_nothing_mutated_leads_to_a_traceback_a_hang_a_wrong_result_or_code_run(share, monkeypatch):
    monkeypatch.syspath_prepend(FAULTS)
    import fuzz

    found = fuzz.fuzz(share, seed=1)
    assert fuzz.wrong(found) == {}
    for kind, counts in found.items():
        assert sum(counts.values()) >= share * fuzz.COUNTS[kind]
        assert counts["refused"] > counts["understood"], kind
    sys.modules.pop("fuzz", None)


def test_what_is_wrong_is_told():
    sys.path.insert(0, str(FAULTS))
    try:
        import fuzz

        def hang():
            while True:
                pass

        fuzz.SECONDS = 0.2
        assert fuzz.tried(hang) == "more than 0.2 s"
        assert fuzz.tried(lambda: 1 // 0).startswith("ZeroDivisionError")
        assert fuzz.wrong({"x": {"refused": 3, "understood": 1, "no cells": 2}}) == {"x": {"no cells": 2}}
    finally:
        sys.path.remove(str(FAULTS))
        sys.modules.pop("fuzz", None)
