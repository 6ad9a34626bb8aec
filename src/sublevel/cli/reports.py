"""The commands report and compare: write the report of a finished run again, and compare finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.table import Table

from sublevel.cli.options import folder
from sublevel.cli.output import say


def report(run: Path, *, figures: bool = True, views: Literal["first", "all"] = "first") -> None:
    """Write the tables, figures and report of a finished run again.

    Parameters
    ----------
    run
        The folder of a run, or its name in sublevel-runs.
    figures
        Also write every figure for print, as SVG and PDF.
    views
        Of each figure the first view, or all that its menus offer (half a second each).
    """
    from sublevel.study.result import Result

    result = Result(folder(run))
    result.write(force=True, figures=figures, views=views)
    say(f"report: {result.folder / 'report.html'}")


def compare(*runs: Path, html: Path | None = None) -> None:
    """Compare finished runs: their settings, test errors and verdicts.

    Parameters
    ----------
    runs
        Two or more runs: their folders, or their names in sublevel-runs.
    html
        Write the comparison as a page instead of printing it.
    """
    from sublevel.files import write_text
    from sublevel.study.compare import compare as side_by_side

    found = side_by_side(*map(folder, runs))
    if html is not None:
        write_text(html, found.html())
        say(f"comparison: {html}")
        return
    for title, (says, frame) in found.tables.items():
        table = Table(*map(str, frame.columns), title=title, title_justify="left", caption=says)
        for row in frame.itertuples(index=False):
            table.add_row(*map(str, row))
        say(table)
