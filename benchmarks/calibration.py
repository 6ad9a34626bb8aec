"""How often the verdicts are wrong, and how often they see what is there, on tables whose truth is known.

For every claim: null tables, in which one part lies exactly on the bound that it must clear while the others hold by
six standard deviations, and in which all do; tables in which every part holds by two standard deviations of what one
seed gives, with five seeds; the same with three and with two. Equivalence is looked at from both of its margins, and
at a mean of 0. Then all twelve claims in one study, under Holm's correction.

    python benchmarks/calibration.py             # 1,000 tables each
    python benchmarks/calibration.py 100 C1 C8   # fewer, of some claims
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

import numpy as np

from common import record
from sublevel.claims import verdicts
from sublevel.claims.margins import ALPHA, ERROR_MARGIN, LOSS_BARRIER
from sublevel.claims.synthetic import KEYS, SD, Shift, study

HOLDS, EFFECT, SEEDS = 6.0, 2.0, 5
MIXED = {"C11": {"match": (1, 1, -1), "error barrier shared": (1, 1, -1)}}
"""Signs of the shifts by level: an "if and only if" needs levels at which both fail."""

EQUIVALENCES = {"small error": ("C12", ERROR_MARGIN / SD["error"]), "small barrier": ("C12", LOSS_BARRIER / SD["loss"])}
"""Parts whose mean can be on either side of 0: their claim, and how many standard deviations 0 is from the margin."""

ALL = {"match": (4.0, 4.0, -2.0), "error barrier shared": (4.0, 4.0, -2.0)}
"""With these every claim is true in one study, no mean over its levels closer than two standard deviations."""


def truth(claim: str, shift: float) -> dict[str, Shift]:
    """Shifts under which every part of a claim holds by as much."""
    signs = MIXED.get(claim, {})
    return {key: tuple(s * shift for s in signs[key]) if key in signs else shift for key in KEYS[claim]}


def nulls(claim: str) -> dict[str, dict[str, Shift]]:
    """Shifts with one part on its bound, and with all."""
    if claim == "C11":
        return {"barrier on its bound at level 2": truth(claim, HOLDS) | {"error barrier shared": (HOLDS, 0.0, -HOLDS)},
                "match on its bound at level 3": truth(claim, HOLDS) | {"match": (HOLDS, HOLDS, 0.0)},
                "all on their bounds": truth(claim, 0.0)}  # fmt: skip
    one = {f"{key} on its bound": truth(claim, HOLDS) | {key: 0.0} for key in KEYS[claim]}
    return one | ({"all on their bounds": truth(claim, 0.0)} if len(one) > 1 else {})


def shares(claim: str, shifts: Mapping[str, Shift], tables: int, seeds: int, stream: int) -> dict[str, float]:
    """The share of each verdict."""
    rng = np.random.default_rng([stream, seeds, int(claim[1:])])
    drawn = (study(rng, shifts, seeds=seeds, claims=(claim,)) for _ in range(tables))
    found = [verdicts(each, [claim])["verdict"].item() for each in drawn]
    return {name: found.count(name) / tables for name in sorted(set(found))}


def calibrated(claim: str, tables: int) -> dict:
    """Everything about one claim read alone."""
    began = time.perf_counter()
    null = {name: shares(claim, shifts, tables, SEEDS, i) for i, (name, shifts) in enumerate(nulls(claim).items())}
    edges = {
        f"{key}: mean {words}": shares(claim, truth(claim, HOLDS) | {key: shift}, tables, SEEDS, 100)
        for key, (of, zero) in EQUIVALENCES.items() if of == claim
        for words, shift in (("on the lower margin", 2 * zero), ("0", zero))
    }  # fmt: skip
    return {
        "worst share supported on null tables": max(s.get("supported", 0.0) for s in null.values()),
        "share supported at 2 sd, 5 seeds": shares(claim, truth(claim, EFFECT), tables, 5, 200).get("supported", 0.0),
        "share supported at 2 sd, 3 seeds": shares(claim, truth(claim, EFFECT), tables, 3, 300).get("supported", 0.0),
        "share decided with 2 seeds at 6 sd": decided(shares(claim, truth(claim, HOLDS), tables, 2, 400)),
        "null tables": null,
        **({"equivalence": edges} if edges else {}),
        "seconds": time.perf_counter() - began,
    }


def decided(found: Mapping[str, float]) -> float:
    """The share that is supported or contradicted."""
    return found.get("supported", 0.0) + found.get("contradicted", 0.0)


def together(tables: int, seeds: int, effect: float) -> dict[str, float]:
    """The share of each claim supported where all are true in one study, Holm over the twelve."""
    rng = np.random.default_rng([500, seeds])
    shifts = {key: tuple(s * effect / EFFECT for s in shift) for key, shift in ALL.items()}
    count = dict.fromkeys(KEYS, 0)
    for _ in range(tables):
        found = verdicts(study(rng, shifts, seeds=seeds, others=effect), list(KEYS))
        for name in found.loc[found["verdict"] == "supported", "claim"]:
            count[name] += 1
    return {name: n / tables for name, n in count.items()}


def false_of_family(tables: int) -> float:
    """The share of studies that support any claim, where each has all its parts on their bounds."""
    rng = np.random.default_rng(600)
    count = 0
    for _ in range(tables):
        count += bool((verdicts(study(rng, seeds=SEEDS, others=0.0), list(KEYS))["verdict"] == "supported").any())
    return count / tables


def seconds_per_study(n: int = 20) -> float:
    """Wall time of the verdicts of one study on all twelve claims."""
    drawn = [study(np.random.default_rng(i)) for i in range(n)]
    began = time.perf_counter()
    for tables in drawn:
        verdicts(tables)
    return (time.perf_counter() - began) / n


def main(arguments: list[str]) -> None:
    """Calibrate, and record if all was done."""
    tables = int(arguments[0]) if arguments else 1000
    names = arguments[1:] or list(KEYS)
    began = time.perf_counter()
    claims: dict[str, dict] = {}
    for name in names:
        claims[name] = calibrated(name, tables)
        print(name, {k: v for k, v in claims[name].items() if k != "null tables"}, flush=True)
    if arguments[1:]:
        return
    worst = max(c["worst share supported on null tables"] for c in claims.values())
    singles = [
        s.get("supported", 0.0) for c in claims.values() for name, s in c["null tables"].items() if "all" not in name
    ]
    se = (ALPHA * (1 - ALPHA) / tables) ** 0.5
    least = min(c["share supported at 2 sd, 5 seeds"] for c in claims.values())
    result = {
        "tables of each kind": tables,
        "alpha, one-sided": ALPHA,
        "standard error of a share of 5%": se,
        "targets": "family of one: supported <= 5% on null tables, >= 80% at 2 sd with 5 seeds, never with 2 seeds",
        "worst share supported on null tables": worst,
        "mean share supported on null tables with one part on its bound": float(np.mean(singles)),
        "null tables of that kind above 5% by more than 2.6 standard errors": sum(s > 0.05 + 2.6 * se for s in singles),
        "kinds of them": len(singles),
        "least share supported at 2 sd, 5 seeds": least,
        "all twelve claims true in one study, share supported after Holm": {
            "2 sd, 5 seeds": together(tables, 5, 2.0),
            "2 sd, 10 seeds": together(tables, 10, 2.0),
            "3 sd, 5 seeds": together(tables, 5, 3.0),
        },
        "share of studies that support any of twelve, all on their bounds": false_of_family(tables),
        "milliseconds for the twelve verdicts of one study": 1000 * seconds_per_study(),
        "claims": claims,
        "seconds": time.perf_counter() - began,
    }
    record("calibration", __file__, result)


if __name__ == "__main__":
    main(sys.argv[1:])
