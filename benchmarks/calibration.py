"""How often the verdicts are wrong, and how often they see what is there, on tables whose truth is known.

For every claim: null tables, in which one part lies exactly on the bound that it must clear at every density while the
others hold by six standard deviations, and in which all do; tables in which every part holds by two standard deviations
of what one seed gives, with five seeds and with three. Then what the field varies: exact zeros, thresholds that have to
be estimated (the dense threshold of C7 always is), noisy end points, volumes that are flagged because a curvature is
not positive, lost seeds, effects of opposite sign over the densities, and another test set. Then all claims in one
study, under Holm's correction.

    python benchmarks/calibration.py             # 1,000 tables each
    python benchmarks/calibration.py 100 C1 C8   # fewer, of some claims
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from common import record

sys.path.insert(0, str(Path(__file__).parent.parent / "tests" / "claims"))
from known_effects import KEYS, SD, Field, Shift, study, with_examples

from sublevel.claims import verdicts
from sublevel.claims.decide import judged
from sublevel.claims.margins import ALPHA, ERROR_MARGIN

HOLDS, FAR, EFFECT, SEEDS = 6.0, 12.0, 2.0, 5
WORKERS = 4
MIXED = {"C11": {"match": (1, 1, -1), "error barrier shared": (1, 1, -1)}}
"""Signs of the shifts by density: an "if and only if" needs densities at which both fail."""

ALL = {"match": (4.0, 4.0, -2.0), "error barrier shared": (4.0, 4.0, -2.0), "inside": 4.0}
"""With these every claim is true in one study."""

SIDES = {"small error": ERROR_MARGIN / SD["error"]}
"""A part whose mean can be on either side of 0, and how many standard deviations 0 is from its margin."""


def truth(claim: str, shift: float) -> dict[str, Shift]:
    """Shifts under which every part of a claim holds by as much."""
    signs = MIXED.get(claim, {})
    return {key: scaled(signs[key], shift) if key in signs else shift for key in KEYS[claim]}


def scaled(signs: tuple[float, float, float], by: float) -> tuple[float, float, float]:
    """Three shifts, all multiplied."""
    return signs[0] * by, signs[1] * by, signs[2] * by


def holding(claim: str) -> dict[str, Shift]:
    """Shifts under which a claim surely holds: what is compared with an estimated threshold lies farther from it."""
    return truth(claim, FAR if claim == "C7" else HOLDS)


def nulls(claim: str) -> dict[str, dict[str, Shift]]:
    """Shifts with one part on its bound at every density, and with all."""
    if claim == "C11":
        return {"barrier on its bound at 10%": truth(claim, HOLDS) | {"error barrier shared": (HOLDS, 0.0, -HOLDS)},
                "match on its bound at 3%": truth(claim, HOLDS) | {"match": (HOLDS, HOLDS, 0.0)},
                "all on their bounds": truth(claim, 0.0)}  # fmt: skip
    keys = [k for k in KEYS[claim] if (claim, k) not in (("C6", "steep before"), ("C6", "steep retrained"))]
    one = {f"{key} on its bound": holding(claim) | {key: 0.0} for key in keys}
    return one | ({"all on their bounds": truth(claim, 0.0)} if len(one) != 1 else {})


def varied(claim: str) -> dict[str, tuple[dict[str, Shift], dict[str, Any]]]:
    """Null tables, as shifts and field, in which something else varies too."""
    true = holding(claim)
    found: dict[str, tuple[dict[str, Shift], dict[str, Any]]] = {}
    heights = {"C7": ("path", "start"), "C12": ("small rise",),
               "C8": ("error barrier shared", "error barrier independent")}  # fmt: skip
    on_bound = {"C7": "inside", "C12": "large error", "C8": "loss rise shared", "C5": "volume apart",
                "C9": "prune volume"}  # fmt: skip
    key = on_bound.get(claim, KEYS[claim][0])
    if claim in heights:
        found[f"heights exactly 0, {key} on its bound"] = true | {key: 0.0}, {"zeros": heights[claim]}
        found[f"end points four times as noisy, {key} on its bound"] = true | {key: 0.0}, {"end_sd": 8e-3}
    if claim in ("C5", "C9"):
        found[f"a fifth of the volumes flagged, {key} on its bound"] = true | {key: 0.0}, {"flagged": 0.2}
    if claim in ("C2", "C3", "C4a"):
        found[f"a tenth of the errors lost, {key} on its bound"] = true | {key: 0.0}, {"lost": 0.1}
        found["held at two densities, opposed at one"] = true | {key: (-HOLDS, HOLDS, HOLDS)}, {}
    if claim in ("C7", "C8", "C9"):
        beyond = {"match": (HOLDS, -HOLDS, -HOLDS), key: (0.0, FAR, FAR)}
        found["held only where the ticket does not match"] = true | beyond, {}
    return found


def shares(claim: str, shifts: Mapping[str, Shift], tables: int, seeds: int, stream: int, **field: Any):
    """The share of each verdict."""
    rng = np.random.default_rng([stream, seeds, *map(ord, claim)])
    drawn = (
        study(rng, shifts, seeds=seeds, others=HOLDS, claims=(claim,), field=Field(**field)) for _ in range(tables)
    )
    found = [judged(each, [claim])[0].verdict for each in drawn]
    return {name: found.count(name) / tables for name in sorted(set(found))}


def calibrated(claim: str, tables: int) -> dict:
    """Everything about one claim read alone."""
    began = time.perf_counter()
    null = {name: shares(claim, shifts, tables, SEEDS, i) for i, (name, shifts) in enumerate(nulls(claim).items())}
    more = {
        name: shares(claim, shifts, tables, SEEDS, 50 + i, **field)
        for i, (name, (shifts, field)) in enumerate(varied(claim).items())
    }
    for key, zero in SIDES.items() if claim == "C12" else ():
        on = holding(claim) | {key: 2 * zero}
        null[f"{key}: mean on the lower margin"] = shares(claim, on, tables, SEEDS, 100)
    worst = max(s.get("supported", 0.0) for s in (*null.values(), *more.values()))
    return {
        "worst share supported on null tables": worst,
        "share supported at 2 sd, 5 seeds": shares(claim, truth(claim, EFFECT), tables, 5, 200).get("supported", 0.0),
        "share supported at 2 sd, 3 seeds": shares(claim, truth(claim, EFFECT), tables, 3, 300).get("supported", 0.0),
        "share supported where it surely holds": shares(claim, holding(claim), tables, 5, 350).get("supported", 0.0),
        "share decided with 2 seeds": decided(shares(claim, holding(claim), min(tables, 100), 2, 400)),
        "null tables": null,
        "null tables in which the field varies": more,
        "seconds": time.perf_counter() - began,
    }


def decided(found: Mapping[str, float]) -> float:
    """The share that is supported or contradicted."""
    return found.get("supported", 0.0) + found.get("contradicted", 0.0)


def new_test_sets(tables: int) -> dict[str, dict[str, float]]:
    """C1 at a true difference on its margin, 2,000 examples and 5% disagreement: the share supported, both ways."""
    found = {}
    for seeds in (3, 5, 10):
        rng = np.random.default_rng([700, seeds])
        count = {"seeds crossed with examples": 0, "seeds alone": 0}
        for _ in range(tables):
            drawn = with_examples(study(rng, seeds=seeds, claims=("C1",)), rng, difference=ERROR_MARGIN)
            alone = {"levels": drawn["levels"]}
            for name, each in zip(count, (drawn, alone), strict=True):
                count[name] += judged(each, ["C1"])[0].verdict == "supported"
        found[f"{seeds} seeds"] = {name: n / tables for name, n in count.items()}
    return found


def together(tables: int, seeds: int, effect: float) -> dict[str, float]:
    """The share of each claim supported where all are true in one study, Holm over all but C1."""
    rng = np.random.default_rng([500, seeds])
    shifts = {k: scaled(v, effect / EFFECT) if isinstance(v, tuple) else v for k, v in ALL.items()}
    count = dict.fromkeys(KEYS, 0)
    for _ in range(tables):
        for each in judged(study(rng, shifts, seeds=seeds, others=effect), list(KEYS)):
            count[each.claim.name] += each.verdict == "supported"
    return {name: n / tables for name, n in count.items()}


def false_of_family(tables: int) -> float:
    """The share of studies that support any claim, where each has all its parts on their bounds."""
    rng = np.random.default_rng(600)
    count = 0
    for _ in range(tables):
        found = judged(study(rng, seeds=SEEDS, others=0.0), list(KEYS))
        count += any(each.verdict == "supported" for each in found)
    return count / tables


def seconds_per_study(n: int = 20) -> float:
    """Wall time of the verdicts of one study on all claims."""
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
    with ProcessPoolExecutor(WORKERS) as pool:
        studies = [] if arguments[1:] else [
            pool.submit(new_test_sets, max(tables // 2, 1)), pool.submit(false_of_family, tables),
            *(pool.submit(together, tables, seeds, effect) for seeds, effect in ((5, 2.0), (10, 2.0), (5, 3.0))),
        ]  # fmt: skip
        for name, found in zip(names, pool.map(calibrated, names, [tables] * len(names)), strict=True):
            claims[name] = found
            print(name, {k: v for k, v in found.items() if "null tables" not in k[:11]}, flush=True)
        whole = [future.result() for future in studies]
    if arguments[1:]:
        return
    every = [c["null tables"] | c["null tables in which the field varies"] for c in claims.values()]
    singles = [s.get("supported", 0.0) for c in every for name, s in c.items() if "on its bound" in name]
    se = (ALPHA * (1 - ALPHA) / tables) ** 0.5
    result = {
        "tables of each kind": tables,
        "alpha, one-sided": ALPHA,
        "standard error of a share of 5%": se,
        "targets": "family of one: supported <= 5% on null tables, never with 2 seeds; power told claim by claim",
        "worst share supported on null tables": max(c["worst share supported on null tables"] for c in claims.values()),
        "mean share supported on null tables with one part on its bound": float(np.mean(singles)),
        "null tables of that kind above 5% by more than 2.6 standard errors": sum(s > 0.05 + 2.6 * se for s in singles),
        "kinds of them": len(singles),
        "C1 on its margin, another test set each": whole[0],
        "all claims true in one study, share supported after Holm": {
            "2 sd, 5 seeds": whole[2],
            "2 sd, 10 seeds": whole[3],
            "3 sd, 5 seeds": whole[4],
        },
        "share of studies that support any claim, all on their bounds": whole[1],
        "milliseconds for the verdicts of one study": 1000 * seconds_per_study(),
        "claims": claims,
        "seconds": time.perf_counter() - began,
    }
    record("calibration", __file__, result)


if __name__ == "__main__":
    main(sys.argv[1:])
