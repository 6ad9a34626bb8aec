"""The report of a study: one self-contained page, and every figure as SVG and PDF.

Tables go in, drawings come out, and nothing in between computes science. A figure is *described* once
(``describe``: panels, series, axes) by a function of the tables in ``report.figures``; two back ends
render that description, ``render_plotly`` for the page and ``render_mpl`` for print, so that the two
cannot disagree. ``page`` fills the template, ``writer`` puts files in place.

>>> from sublevel.report import write                                    # doctest: +SKIP
>>> write(tables, summary, Path("sublevel-runs/demo"))                   # doctest: +SKIP
PosixPath('sublevel-runs/demo/report.html')
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sublevel.report.describe import Figure
    from sublevel.report.figures import figures
    from sublevel.report.writer import write

__all__ = ["Figure", "figures", "write"]

_HOMES = {"Figure": "describe", "figures": "figures", "write": "writer"}


def __getattr__(name: str) -> Any:
    """Import on first use: the command line should not pay for matplotlib before it draws."""
    if name in _HOMES:
        return getattr(import_module(f"sublevel.report.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
