"""A study whose names and messages are markup, LaTeX and templates."""

from __future__ import annotations

import pandas as pd
import synthetic

EVIL = "</script><img src=x onerror=alert(1)><b>&amp;$x$ %{y}"


def evil(tables: dict[str, pd.DataFrame], branch: str) -> tuple[dict[str, pd.DataFrame], dict[str, object]]:
    """The tables with a branch, a layer, classes, claims and errors of that name."""
    changed = {k: f.replace({"branch": {branch: EVIL}}) if "branch" in f else f for k, f in tables.items()}
    changed["layers"] = changed["layers"].replace({"layer": {"fc.weight": EVIL}})
    changed["failures"] = changed["failures"].assign(error=EVIL)
    for table, column in (("tree", "name"), ("joins", "a"), ("joins", "b"), ("landmarks", "name"), ("planes", "plane")):
        if table in changed:
            names = changed[table][column].str.replace(branch, EVIL).str.replace("random:", EVIL)
            changed[table] = changed[table].assign(**{column: names})
    changed["claims"] = changed["claims"].assign(statement=EVIL, reading=EVIL)
    if "verdicts" in changed:
        changed["verdicts"] = changed["verdicts"].assign(
            statement=EVIL, why=EVIL, sentence=EVIL, unit=EVIL, figure=EVIL
        )
    summary = synthetic.summary(EVIL) | {"notes": [EVIL], "data": {"classes": [EVIL]}, "study": {EVIL: EVIL}}
    return changed, summary
