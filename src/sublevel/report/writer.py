"""Write the report of a study: ``report.html`` and ``figures/*.svg, *.pdf``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from sublevel.files import replacing
from sublevel.foreign import LARGEST, opened, plain_all, read_json
from sublevel.report.describe import Figure
from sublevel.report.figures import Drawn
from sublevel.report.figures import figures as describe_figures
from sublevel.report.page import pictures, render
from sublevel.report.prepare import clean
from sublevel.tables import declared


def write(
    tables: Mapping[str, pd.DataFrame],
    summary: dict[str, Any],
    out: Path,
    *,
    figures: bool = True,
    views: str = "first",
    page: str = "report.html",
) -> Path:
    """Write the report of a study and return the path of its page, ``out / page``.

    ``tables`` are those of a run (see ``sublevel.tables``); any may be missing or empty. ``summary`` is the run's
    ``summary.json``: it has the schema of every table, and what it lacks is left out of the page. With
    ``figures=False`` only the page is written; else each figure's first view (of planes the contours and the surface)
    as SVG and PDF, or with ``views="all"`` every branch and split too (about half a second each). The same input gives
    the same bytes, page and figures alike, with the same versions of the drawing libraries.
    """
    out, summary = Path(out), plain_all(summary)
    plain = clean(tables, summary.get("tables"))
    for name, table in plain.items():  # text may be untrusted: no control characters
        plain[name] = table.assign(**{str(c): table[c].map(plain_all) for c in table.select_dtypes(object)})
    out.mkdir(parents=True, exist_ok=True)
    drawn = describe_figures(plain)
    whole = {"first": False, "all": True}[views]
    stems = {f.key: names(f)[: None if whole else f.printed] for f in drawn.all} if figures else {}
    if figures:
        write_figures(drawn, stems, out / "figures")
    stills = {}
    if figures:
        from sublevel.report.render_mpl import still

        stills = {f.key: still(f.views[0]) for f in pictures(drawn)}
    path = out / page
    with replacing(path) as beside:
        beside.write_text(render(plain, summary, drawn, stems, stills), encoding="utf-8", newline="\n")
    return path


def read(folder: Path) -> tuple[dict[str, pd.DataFrame], dict[str, Any]]:
    """The tables and the summary of a run's folder, as `write` takes them; no code of the study is run.

    A table that the summary knows and the folder lacks is empty.
    """
    summary = read_json(Path(folder) / "summary.json")
    schemas = declared(summary.get("tables") or {})
    found = {name: pd.DataFrame(columns=list(each.columns)) for name, each in schemas.items()}
    for path in sorted((Path(folder) / "tables").glob("*.csv")):
        words: Any = dict.fromkeys(schemas[path.stem].words, object) if path.stem in schemas else None
        found[path.stem] = pd.read_csv(path, dtype=words, keep_default_na=False, na_values=[""])
    return found, summary


def write_figures(drawn: Drawn, stems: Mapping[str, list[str]], folder: Path) -> list[Path]:
    """Write the views that have a name as SVG and PDF, and remove those that an earlier report left there."""
    from sublevel.report.render_mpl import save

    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # a name in a script that the font lacks
        written = [
            path
            for figure in drawn.all
            for view, stem in zip(figure.views, stems[figure.key], strict=False)
            for path in save(view, figure.titled(view), folder / stem, figure.columns)
        ]
    for path in stale(folder, written):
        path.unlink(missing_ok=True)
    return written


def stale(folder: Path, written: Collection[Path]) -> list[Path]:
    """The figures in a folder that an earlier report wrote and this one did not.

    They are known by the creator in the file, so figures of other makers stay.
    """
    from sublevel.report.render_mpl import MARK

    others = (p for ending in ("svg", "pdf") for p in sorted(folder.glob(f"*.{ending}")))
    return [p for p in others if p not in written and _says(p, MARK.encode())]


def _says(path: Path, mark: bytes) -> bool:
    try:
        with opened(path) as file:
            return mark in file.read(LARGEST)
    except OSError:
        return False


def names(figure: Figure) -> list[str]:
    """File names without ending, one for each view, distinct, safe on any file system.

    A choice that is the same in every view is not spelled out.
    """
    varying = [k for k in figure.views[0].choice if len({v.choice.get(k) for v in figure.views}) > 1]
    found: list[str] = []
    for view in figure.views:
        parts = [_safe(figure.key), *(_safe(view.choice.get(k, "")) for k in varying)]
        stem = "-".join(p for i, p in enumerate(parts) if p or not i)
        found.append(stem if stem not in found else f"{stem}-{len(found) + 1}")
    return found


def _safe(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")[:60]
