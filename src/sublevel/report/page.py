"""The page: one HTML file that holds its styles, its script, plotly.js and all its data.

It opens from a disk with no network: a content security policy in its head forbids every request. Text
from a study is escaped by the template; data inside ``<script>`` is JSON in which no ``<`` is left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from scipy.special import stdtrit

from sublevel.claims.margins import FEWEST_SEEDS
from sublevel.report.describe import words
from sublevel.report.figures import Drawn, figures
from sublevel.report.findings import comparisons, failures, headline, key_numbers
from sublevel.report.frame import Tables
from sublevel.report.guide import guide
from sublevel.report.health import absent, faults
from sublevel.report.latex import levels_table, verdicts_table
from sublevel.report.methods import methods
from sublevel.report.palette import known_first, styles
from sublevel.report.prepare import clean, without_sweep
from sublevel.report.render_plotly import payload
from sublevel.report.setup import setup
from sublevel.report.text import numbers
from sublevel.report.verdicts import Verdicts, verdicts

SCRIPTS = ("series.js", "legend.js", "page.js", "controls.js")
APPENDIX = "Appendix"


def render(
    tables: Mapping[str, pd.DataFrame],
    summary: dict[str, Any],
    drawn: Drawn | None = None,
    stems: Mapping[str, list[str]] | None = None,
) -> str:
    """The whole page as text. ``stems`` names the print files of the first views of each figure."""
    ready = without_sweep(clean(tables))
    drawn = figures(tables) if drawn is None else drawn
    found = verdicts(ready["verdicts"], {f.key for f in drawn.all}, ready["claims"])
    levels = ready["levels"]
    branches, seeds = known_first(levels["branch"]), sorted(levels["seed"].dropna().unique().tolist())
    payloads = {f.key: payload(f, branches) for f in drawn.all}
    for key, files_of in (stems or {}).items():
        for view, stem in zip(payloads[key]["views"], files_of, strict=False):
            view["file"] = stem
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.FunctionLoader(asset),
    )  # fmt: skip
    return environment.get_template("page.html").render(
        **_texts(ready, summary, found),
        verdicts=found,
        titles={f.key: f.title for f in drawn.all},
        claims=comparisons(ready["claims"]),
        rows=len(ready["claims"]),
        sections=[(slug(k), k, v) for k, v in drawn.sections.items() if k != APPENDIX],
        appendix=drawn.sections.get(APPENDIX, []),
        absent=absent(drawn.missing),
        branches=branches,
        seeds=[f"{s:g}" for s in seeds],
        study=json_for_script(_study(branches, seeds)),
        payloads={key: json_for_script(value) for key, value in payloads.items()},
        words={f.key: [words(p) for p in f.views[0].panels] for f in drawn.all},
        style=Markup("\n".join(asset(n) for n in ("page.css", "claims.css", "print.css"))),
        script=Markup("\n".join(asset(n) for n in SCRIPTS)),
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),  # ends no script element early
    )


def _texts(ready: Tables, summary: dict[str, Any], found: Verdicts) -> dict[str, Any]:
    """What the page says beside figures and claims."""
    written = methods(ready, summary)
    return {
        "name": str(summary.get("name") or "study"),
        "version": str(summary.get("sublevel") or ""),
        "headline": headline(ready, summary),
        "numbers": key_numbers(ready, summary),
        "guide": guide(ready, summary, found),
        "methods": written,
        "pastes": [
            ("tex-levels", "LaTeX table of the levels", levels_table(ready["levels"])),
            ("tex-verdicts", "LaTeX table of the verdicts", verdicts_table(ready["verdicts"])),
            ("tex-methods", "Methods in LaTeX", written.latex),
            ("bibtex", "BibTeX", written.bibtex),
        ],
        "failures": failures(ready["failures"]),
        "failed": max(len(ready["failures"]), int((summary.get("cells") or {}).get("failed") or 0)),
        "faults": faults(ready),
        "notes": [str(n) for n in summary.get("notes") or []],
        "setup": setup(summary),
    }


def asset(name: str) -> str:
    """A file of the folder ``assets`` as text."""
    return (files("sublevel.report") / "assets" / name).read_text(encoding="utf-8")


def _study(branches: list[str], seeds: list[float]) -> dict[str, Any]:
    """What the bar of branches and seeds needs: looks, and t quantiles for intervals over the seeds that are left."""
    looks = [
        {"name": name, "colour": look.colour, "dash": look.dash, "marker": "" if name == "dense" else look.marker}
        for name, look in styles(branches).items()
    ]
    return {
        "branches": looks,
        "seeds": numbers(seeds),
        "fewest": FEWEST_SEEDS,
        "t": numbers(stdtrit(df, 0.975) for df in range(1, max(2, len(seeds)))),
    }


def json_for_script(value: Any) -> Markup:
    r"""JSON that is safe between ``<script>`` tags: no markup can begin or end inside it.

    >>> json_for_script({"a": "</script>"})
    Markup('{"a":"\\u003c/script>"}')
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escaped in (("<", "\\u003c"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(character, escaped)
    return Markup(text)


def slug(name: str) -> str:
    """The anchor of a section; figures have their keys.

    >>> slug("Paths and barriers")
    'section-paths-and-barriers'
    """
    return "section-" + name.lower().replace(" ", "-")
