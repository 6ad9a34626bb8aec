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

from sublevel.report.figures import Drawn, figures
from sublevel.report.findings import claims, failures, headline, key_numbers
from sublevel.report.prepare import clean
from sublevel.report.render_plotly import payload
from sublevel.report.setup import setup


def render(
    tables: Mapping[str, pd.DataFrame],
    summary: dict[str, Any],
    drawn: Drawn | None = None,
    stems: Mapping[str, list[str]] | None = None,
) -> str:
    """The whole page as text. ``stems`` names the print files of the first views of each figure."""
    ready = clean(tables)
    drawn = figures(tables) if drawn is None else drawn
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(_asset("page.html"))
    return template.render(
        name=str(summary.get("name") or "study"),
        headline=headline(ready, summary),
        numbers=key_numbers(ready, summary),
        claims=claims(ready["claims"]),
        failures=failures(ready["failures"]),
        failed=max(len(ready["failures"]), int((summary.get("cells") or {}).get("failed") or 0)),
        notes=[str(n) for n in summary.get("notes") or []],
        sections=[(_slug(k), k, v) for k, v in drawn.sections.items()],
        missing=sentence(drawn.missing),
        payloads={f.key: _data(payload(f), (stems or {}).get(f.key)) for f in drawn.all},
        setup=setup(summary),
        version=str(summary.get("sublevel") or ""),
        style=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
        plotly=Markup(_inside_script(get_plotlyjs())),
    )


def _asset(name: str) -> str:
    return (files("sublevel.report") / "assets" / name).read_text(encoding="utf-8")


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


def _inside_script(code: str) -> str:
    """Code that ends no script element early."""
    return code.replace("</script", "<\\/script")


def sentence(names: list[str]) -> str:
    """What is missing, in one sentence.

    >>> sentence(["spectra", "volumes"])
    'Not drawn, because this study has no data for them: spectra, volumes.'
    """
    return f"Not drawn, because this study has no data for them: {', '.join(names)}." if names else ""


def _slug(name: str) -> str:
    return name.lower().replace(" ", "-")
