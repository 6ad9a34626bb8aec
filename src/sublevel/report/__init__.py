"""The report of a study: one self-contained page, and every figure as SVG and PDF.

The report draws tables and computes no science. A function of ``report.figures`` describes a figure once (``describe``:
panels, series, axes). Two back ends render that description: ``render_plotly`` for the page, ``render_mpl`` for print.
``page`` fills the template, ``writer`` writes files.

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
