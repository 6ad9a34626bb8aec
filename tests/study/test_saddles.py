"""A saddle is a reason in every table that shows a top-k volume, and a minimum is not."""

from __future__ import annotations

import pytest

from sublevel.study.catalogue import KINDS

LABELS = {"operator": "hessian", "space": "all"}


def spectrum(negative, lowest):
    row = {"buffers": "stored", "dimension": 9, "converged": True, "negative_count": negative, "smallest": lowest}
    pair = {"end": "largest", "index": 1, "eigenvalue": 2.0, "residual": 1e-9, "converged": True}
    return {"values": {"row": row, "pairs": [pair], "slopes": [0.0]}}


def volume(entry):
    rows = KINDS["spectrum"].rows({"geometry": {"spectra": None}}, LABELS, entry)
    return next(row for table, row in rows if table == "volumes")


def test_the_volumes_of_a_spectrum():
    assert volume(spectrum(0, 1e-9))["reason"] == ""
    found = volume(spectrum(2, -0.25))
    assert found["reason"] == "a saddle: 2 negative eigenvalues or more, the lowest -0.25"
    assert found["log_volume"] == volume(spectrum(0, 1e-9))["log_volume"]


def pair(kind, seen, **more):
    """The rows of a pair of volumes, of whose second point ``seen`` is known."""
    side = {"loss": 0.1, "weight_norm": 1.0, "values": [2.0], "slopes": [0.0], "error": 1e-9, "converged": True}
    values = {"buffers": "stored", "moved": 0.0, "excluded": 0, "reason": "", "sides": [side, {**side, **seen}]}
    return list(
        KINDS["volume-pair"].rows({"geometry": {"pairs": None}}, {**LABELS, "pair": kind}, {"values": values | more})
    )


SEEN = [({"negative": 1, "lowest": -3.0}, True), ({"negative": 0, "lowest": 0.1}, False), ({}, False)]


@pytest.mark.parametrize(("seen", "said"), SEEN)
def test_a_pair_of_volumes(seen, said):
    """An entry of an older store does not hold how many there were: it stays readable."""
    for kind, name, more in (("matched-loss", "dense", {"steps": [30, 20]}), ("prune", "theta", {})):
        ((_, row),) = pair(kind, seen, **more)
        assert row["reason"] == (f"{name}: a saddle: 1 negative eigenvalue or more, the lowest -3" if said else "")


def test_losses_that_were_matched_on_a_segment_are_no_row():
    """As an older store holds them."""
    assert [pair("matched-loss", seen) for seen, _ in SEEN] == [[], [], []]
