"""What reports say of a branch stands where it is registered."""

from __future__ import annotations

from sublevel.report.references import WORKS
from sublevel.study.branches import about
from sublevel.study.builder import ABOUT, BRANCHES, OPTIONS, branch


def test_every_branch_but_imp_has_words_and_cites_a_work_that_is_known():
    assert {name for name, found in about(BRANCHES).items() if not found["summary"]} == {"imp"}
    assert {found["cite"] for found in ABOUT.values()} - {""} <= set(WORKS)


def test_a_branch_of_ones_own_brings_its_words_and_they_are_no_option():
    branch("mine", summary="what I do", rate=0.5)(lambda b, level: b.dense())
    try:
        assert about(["mine", "nobody"]) == {"mine": {"summary": "what I do", "cite": ""}}
        assert OPTIONS["mine"] == {"rate": 0.5}
    finally:
        for registry in (BRANCHES, OPTIONS, ABOUT):
            del registry["mine"]
