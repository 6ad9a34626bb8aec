"""What every result has in common: one line at a prompt, a table in a notebook, a figure on request.

A class inherits `Shown` and lists its `_facts`. The figure is found by the type of the object in `sublevel.plot`, which
is imported when it is asked for.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any


class Shown:
    """An object with a one-line ``repr``, a table for notebooks, and `plot`."""

    def _facts(self) -> Mapping[str, object]:
        """What it is, the numbers that matter, and how sure they are, by name; an empty value is left out."""
        raise NotImplementedError

    def _lines(self) -> list[tuple[str, str]]:
        lines = [(name, short(value)) for name, value in self._facts().items()]
        return [(name, "".join(c if c.isprintable() else " " for c in text)) for name, text in lines if text]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join(f'{n} {t}'.strip() for n, t in self._lines())}>"

    def _repr_html_(self) -> str:
        row = '<tr><th style="text-align:left">{}</th><td style="text-align:left">{}</td></tr>'
        rows = "".join(row.format(html.escape(n), html.escape(t)) for n, t in self._lines())
        return f"<table><caption>{type(self).__name__}</caption><tbody>{rows}</tbody></table>"

    def plot(self, **how: Any) -> Any:
        """The figure of this object, as the report draws it; see `sublevel.plot.draw` for the arguments."""
        return import_module("sublevel.plot").draw(self, **how)


def short(value: object, digits: int = 4) -> str:
    """A fact as text: numbers to four digits, sequences joined, None and nan empty.

    >>> short(0.123456), short(1234567), short([1.0, 2.5]), short(None), short(True)
    ('0.1235', '1,234,567', '1, 2.5', '', 'yes')
    """
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.{digits}g}"
    if isinstance(value, list | tuple):
        return ", ".join(short(v, digits) for v in value)
    return str(value)


def decimals(error: float) -> int:
    """Decimals that keep two significant digits of an error.

    >>> decimals(0.0123), decimals(1.3), decimals(25.0), decimals(0.1 * 3 - 0.2)
    (3, 1, 0, 2)
    """
    if not math.isfinite(error) or error <= 0:
        return 4
    return min(max(1 - math.floor(math.log10(error) + 1e-9), 0), 8)


def with_error(value: float, se: float = math.nan, unit: str = "") -> str:
    """A value with its standard error, ``3.2 ± 0.1 nats``; the value alone where the error is 0 or unknown.

    >>> with_error(3.21, 0.1, "nats"), with_error(2.0, 0.0)
    ('3.21 ± 0.1 nats', '2')
    """
    error = f" ± {short(float(se), 2)}" if math.isfinite(se) and se > 0 else ""
    return f"{short(float(value))}{error} {unit}".strip() if math.isfinite(value) else "not defined"
