"""Numbers for readers, with the digits that their error allows."""

from __future__ import annotations

import math

from sublevel.claims.parts import SCALES
from sublevel.display import decimals


def estimate(value: float, low: float = math.nan, high: float = math.nan, scale: float = 1.0) -> str:
    """A value with its interval, rounded from the half-width; without one, to four significant digits.

    >>> estimate(0.123456, 0.1201, 0.1268)
    '0.1235 [0.1201, 0.1268]'
    >>> estimate(0.1234, scale=100)
    '12.34'
    >>> estimate(math.nan)
    ''
    """
    if not math.isfinite(value):
        return ""
    if not (math.isfinite(low) and math.isfinite(high)):
        return plain(value * scale)
    places = decimals(abs(high - low) / 2 * scale)
    shown = [f"{v * scale:z.{places}f}" for v in (value, low, high)]
    return f"{shown[0]} [{shown[1]}, {shown[2]}]".replace("-", "\u2212")


def plain(value: float, digits: int = 4) -> str:
    """A number to some significant digits, with a thousands separator and a true minus sign.

    >>> plain(266200.0), plain(0.00012345), plain(-3.0), plain(-172431.7)
    ('266,200', '0.0001234', '−3', '−172,400')
    """
    if not math.isfinite(value):
        return ""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "\u2212")
    if 10**digits <= abs(value) < 1e15:
        value = float(f"{value:.{digits}g}")
        return f"{value:,.0f}".replace("-", "\u2212")
    return f"{value:.{digits}g}".replace("-", "\u2212")


def percent(fraction: float) -> str:
    """A density as a percentage of three significant digits.

    >>> percent(1.0), percent(0.10737), percent(0.00868)
    ('100%', '10.7%', '0.868%')
    """
    return f"{100 * fraction:.3g}%" if math.isfinite(fraction) else ""


def in_points(unit: str) -> tuple[float, str]:
    """The factor and the name under which a unit of the tables is shown.

    >>> in_points("test error"), in_points("train loss")
    ((100.0, 'points (test error)'), (1.0, 'train loss'))
    """
    scale, word = SCALES.get(unit, (1.0, ""))
    return scale, f"{word} ({unit})" if word == "points" else word or unit


def probability(p: float) -> str:
    """A p value: three decimals, or below 0.001.

    >>> probability(0.03125), probability(0.00001)
    ('0.031', '< 0.001')
    """
    if not math.isfinite(p):
        return ""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """Seconds in the units of a person.

    >>> duration(4.2), duration(184), duration(9000)
    ('4.2 s', '3 min 4 s', '2 h 30 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    if seconds < 3600:
        return f"{int(seconds) // 60} min {int(seconds) % 60} s"
    return f"{int(seconds) // 3600} h {int(seconds) % 3600 // 60} min"
