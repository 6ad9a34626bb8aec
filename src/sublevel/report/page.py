"""The page: one HTML file with its styles, its script, plotly.js and all its data.

It opens offline: a content security policy forbids every request. The template escapes text from a study, and data
inside ``<script>`` is JSON without any ``<``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from importlib.resources import files
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup
from plotly.offline import get_plotlyjs
from scipy.special import stdtrit

from sublevel.claims.findings import findings
from sublevel.claims.margins import FEWEST_SEEDS, INTERVAL
from sublevel.report.answer import answered
from sublevel.report.describe import Figure, View, words
from sublevel.report.figures import NOTHING, UNMEASURED, Drawn, figures
from sublevel.report.findings import failures, nested, studied
from sublevel.report.guide import next_steps, terms
from sublevel.report.health import faults
from sublevel.report.latex import levels_table, verdicts_table
from sublevel.report.methods import methods
from sublevel.report.palette import known_first, styles
from sublevel.report.prepare import clean, only_measured, without_sweep
from sublevel.report.render_plotly import payload
from sublevel.report.setup import setup
from sublevel.report.text import numbers
from sublevel.report.verdicts import verdicts

SCRIPTS = ("series.js", "legend.js", "page.js", "save.js", "controls.js")
FIRST = (
    ("accuracy", "checkpoints-densities", "checkpoints-eigenvalues", "checkpoints-accuracy"),
    ("landscape", "disconnectivity", "paths-to-dense", "paths-successive", "membership", "spectra"),
)
"""Keys of the figures for the first screen: numbers of each network, and where solutions lie."""


def render(
    tables: Mapping[str, pd.DataFrame],
    summary: dict[str, Any],
    drawn: Drawn | None = None,
    stems: Mapping[str, list[str]] | None = None,
    stills: Mapping[str, str] | None = None,
) -> str:
    """The whole page as text.

    ``stems`` names the print files of the first views of each figure. ``stills`` are images of the `pictures` by key,
    as data URIs: they are seen until the script has drawn.
    """
    whole = clean(tables, summary.get("tables"))
    ready = without_sweep(whole)
    drawn = figures(whole) if drawn is None else drawn
    found = verdicts(ready["verdicts"], ready["claims"], {f.key for f in drawn.all})
    levels = ready["levels"]
    measured = only_measured(levels)
    branches, seeds = known_first(levels["branch"]), sorted(levels["seed"].dropna().unique().tolist())
    first = pictures(drawn)[:: -1 if measured else 1]
    shown = [*first, *drawn.all]
    payloads = {f.key: payload(f, branches) for f in shown}
    for key, files_of in (stems or {}).items():
        for view, stem in zip(payloads[key]["views"], files_of, strict=False):
            view["file"] = stem
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        loader=jinja2.FunctionLoader(asset),
    )  # fmt: skip
    written = methods(ready, summary)
    return environment.get_template("page.html").render(
        name=str(summary.get("name") or "study"),
        version=str(summary.get("sublevel") or ""),
        studied=studied(whole, summary),
        answer=answered(ready) if measured else None,
        findings=findings(ready, nested(summary, "study") or {}),
        steps=next_steps(ready, summary),
        terms=terms(levels, summary),
        pictures=first,
        stills=stills or {},
        methods=written,
        pastes=[
            ("tex-levels", "LaTeX table of the levels", "" if measured else levels_table(levels)),
            ("tex-verdicts", "LaTeX table of the verdicts", "" if measured else verdicts_table(ready["verdicts"])),
            ("tex-methods", "Methods in LaTeX", written.latex),
            ("bibtex", "BibTeX", written.bibtex),
        ],
        failures=failures(ready["failures"]),
        failed=max(len(ready["failures"]), int((summary.get("cells") or {}).get("failed") or 0)),
        faults=faults(ready),
        notes=[str(n) for n in summary.get("notes") or []],
        setup=setup(summary, measured=measured),
        verdicts=found,
        titles={f.key: f.title for f in drawn.all},
        sections=[(slug(k), k, v) for k, v in drawn.sections.items()],
        numbers={f.key: i for i, f in enumerate(shown, start=1)},
        absent=", ".join(m.name for m in drawn.missing if m.why in (UNMEASURED, NOTHING)),
        broken=[m for m in drawn.missing if m.why not in (UNMEASURED, NOTHING)],
        branches=branches,
        seeds=[f"{s:g}" for s in seeds],
        study=json_for_script(_study(branches, seeds)),
        payloads={key: json_for_script(value) for key, value in payloads.items()},
        words={f.key: [words(p) for p in f.views[0].panels] for f in shown},
        style=Markup("\n".join(asset(n) for n in ("page.css", "claims.css", "print.css"))),
        script=Markup("\n".join(asset(n) for n in SCRIPTS)),
        plotly=Markup(get_plotlyjs().replace("</script", "<\\/script")),  # ends no script element early
    )


def pictures(drawn: Drawn) -> list[Figure]:
    """The two pictures of the first screen, each the first panel of a figure of the page.

    Of each list of `FIRST` it is the figure that comes first and is drawn.
    """
    here, found = {f.key: f for f in drawn.all}, []
    for keys in FIRST:
        if whole := next((here[k] for k in keys if k in here), None):
            panel = View(panels=whole.views[0].panels[:1])
            found.append(replace(whole, key=f"first-{whole.key}", views=[panel], columns=1))
    return found


def asset(name: str) -> str:
    """A file of the folder ``assets`` as text."""
    return (files("sublevel.report") / "assets" / name).read_text(encoding="utf-8")


def _study(branches: list[str], seeds: list[float]) -> dict[str, Any]:
    """Data for the bar of branches and seeds: looks, and t quantiles for intervals over the seeds that stay on."""
    looks = [
        {"name": name, "colour": look.colour, "dash": look.dash, "marker": "" if name == "dense" else look.marker}
        for name, look in styles(branches).items()
    ]
    return {
        "branches": looks,
        "seeds": numbers(seeds),
        "fewest": FEWEST_SEEDS,
        "t": numbers(stdtrit(df, (1 + INTERVAL) / 2) for df in range(1, max(2, len(seeds)))),
    }


def json_for_script(value: Any) -> Markup:
    r"""JSON that is safe between ``<script>`` tags.

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
