"""The page: one HTML file that holds its styles, its script, plotly.js and all its data.

It opens from a disk with no network: a content security policy in its head forbids every request. Text
from a study is escaped by the template; data inside ``<script>`` is JSON in which no ``<`` is left.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
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
from sublevel.report.findings import claims, failures, headline, key_numbers
from sublevel.report.frame import Frame
from sublevel.report.guide import guide
from sublevel.report.health import absent, faults
from sublevel.report.latex import levels_table, verdicts_table
from sublevel.report.methods import methods
from sublevel.report.palette import known_first, styles
from sublevel.report.prepare import clean, without_sweep
from sublevel.report.render_plotly import payload
from sublevel.report.setup import setup
from sublevel.report.text import numbers
from sublevel.report.verdicts import verdicts

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
    written = methods(ready, summary)
    branches = known_first(ready["levels"]["branch"])
    return _template().render(
        name=str(summary.get("name") or "study"),
        headline=headline(ready, summary),
        numbers=key_numbers(ready, summary),
        verdicts=found,
        titles={f.key: f.title for f in drawn.all},
        claims=claims(ready["claims"]),
        rows=len(ready["claims"]),
        guide=guide(ready, summary, found),
        methods=written,
        pastes=[
            ("tex-levels", "LaTeX table of the levels", levels_table(ready["levels"])),
            ("tex-verdicts", "LaTeX table of the verdicts", verdicts_table(ready["verdicts"])),
            ("tex-methods", "Methods in LaTeX", written.latex),
            ("bibtex", "BibTeX", written.bibtex),
        ],
        failures=failures(ready["failures"]),
        failed=max(len(ready["failures"]), int((summary.get("cells") or {}).get("failed") or 0)),
        faults=faults(ready),
        notes=[str(n) for n in summary.get("notes") or []],
        sections=[(slug(k), k, v) for k, v in drawn.sections.items() if k != APPENDIX],
        appendix=drawn.sections.get(APPENDIX, []),
        absent=absent(drawn.missing),
        branches=branches,
        seeds=[f"{s:g}" for s in _seeds(ready)],
        study=json_for_script(_study(ready, branches)),
        payloads={f.key: _data(payload(f, branches), (stems or {}).get(f.key)) for f in drawn.all},
        words={f.key: [words(p) for p in f.views[0].panels] for f in drawn.all},
        setup=setup(summary),
        version=str(summary.get("sublevel") or ""),
        style=Markup("\n".join(asset(n) for n in ("page.css", "claims.css", "print.css"))),
        script=Markup("\n".join(asset(n) for n in SCRIPTS)),
        plotly=_library(),
    )


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.FunctionLoader(asset),
    )  # fmt: skip
    return environment.get_template("page.html")


def asset(name: str) -> str:
    """A file of the folder ``assets`` as text."""
    return (files("sublevel.report") / "assets" / name).read_text(encoding="utf-8")


def _seeds(tables: dict[str, Frame]) -> list[float]:
    return sorted(tables["levels"]["seed"].dropna().unique().tolist())


def _study(tables: dict[str, Frame], branches: list[str]) -> dict[str, Any]:
    """What the bar of branches and seeds needs: looks, and t quantiles for intervals over the seeds that are left."""
    seeds = _seeds(tables)
    look = styles(branches)
    return {
        "branches": [
            {
                "name": b,
                "colour": look[b].colour,
                "dash": look[b].dash,
                "marker": "" if b == "dense" else look[b].marker,
            }
            for b in branches
        ],
        "seeds": numbers(seeds),
        "fewest": FEWEST_SEEDS,
        "t": numbers(stdtrit(df, 0.975) for df in range(1, max(2, len(seeds)))),
    }


def _data(value: dict[str, Any], stems: list[str] | None) -> Markup:
    if stems:
        for view, stem in zip(value["views"], stems, strict=False):
            view["file"] = stem
    return json_for_script(value)


def json_for_script(value: Any) -> Markup:
    r"""JSON that is safe between ``<script>`` tags: no markup can begin or end inside it.

    >>> json_for_script({"a": "</script>"})
    Markup('{"a":"\\u003c/script>"}')
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character, escaped in (("<", "\\u003c"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029")):
        text = text.replace(character, escaped)
    return Markup(text)


@cache
def _library() -> Markup:
    """plotly.js, as text that ends no script element early."""
    return Markup(get_plotlyjs().replace("</script", "<\\/script"))


def slug(name: str) -> str:
    """The anchor of a section; figures have their keys.

    >>> slug("Paths and barriers")
    'section-paths-and-barriers'
    """
    return "section-" + name.lower().replace(" ", "-")
