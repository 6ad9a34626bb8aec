"""Numbers and text from data for the page's JSON: short, and without markup."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape


def numbers(values: Iterable[float]) -> list[float | None]:
    """Numbers for JSON: six significant digits, ``null`` for others than finite ones.

    >>> numbers([1.0, float("nan"), 0.123456789])
    [1, None, 0.123457]
    """
    found: list[float | None] = []
    for value in map(float, values):
        short = float(f"{value:.6g}") if math.isfinite(value) else None
        found.append(int(short) if short is not None and short == int(short) and abs(short) < 1e9 else short)
    return found


def safe(text: str) -> str:
    """Text from data, escaped where plotly would read markup or a template.

    >>> safe("<b>x</b> %{y}")
    '&lt;b&gt;x&lt;/b&gt; %&#123;y}'
    """
    return escape(text, quote=False).replace("%{", "%&#123;")
