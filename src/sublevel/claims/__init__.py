"""Claims about a study: hypothesis, query, test, verdict.

A claim is one function under one line of registration. It reads a number for each level and seed from the tables and
sets bounds for its mean. Test, correction over claims, text and verdict are the same for all claims.

>>> import pandas as pd
>>> from sublevel.claims import ClaimPart, claim, compared, verdicts
>>> @claim("X1", "Pruning at random is as good as imp.", figure="accuracy")
... def random_is_as_good(tables):
...     measured = compared(tables, "random-prune", "imp", "test error")
...     yield ClaimPart(name="random-prune - imp", unit="test error", measured=measured, high=0.005,
...                holds="as good as imp", fails="worse than imp")
>>> lines = [{"branch": branch, "level": 4, "seed": seed, "density": 0.3, "test_error": error}
...          for branch, errors in {"imp": [0.150, 0.158, 0.161], "random-prune": [0.203, 0.214, 0.209]}.items()
...          for seed, error in enumerate(errors)]
>>> verdicts({"levels": pd.DataFrame(lines)}, ["X1"])["verdict"].item()
'contradicted'
>>> del CLAIMS["X1"]
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from sublevel.claims.accuracy import compared
from sublevel.claims.combine import agreement, intersection, sequence, tickets
from sublevel.claims.decide import claims, verdicts
from sublevel.claims.parts import ClaimPart
from sublevel.claims.query import Measured, look
from sublevel.claims.registry import CLAIMS, Claim, claim

for found in iter_modules(__path__):  # every module of claims registers its own
    import_module(f"{__name__}.{found.name}")

__all__ = [
    "CLAIMS",
    "Claim",
    "ClaimPart",
    "Measured",
    "agreement",
    "claim",
    "claims",
    "compared",
    "intersection",
    "look",
    "sequence",
    "tickets",
    "verdicts",
]
