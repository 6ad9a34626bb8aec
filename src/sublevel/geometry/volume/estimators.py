"""What every volume estimator shares: the result, the unit ball, and the registry.

An estimator does first what does not depend on the height eps (a spectrum, a preconditioner, directions), and gives a
function of eps: `sweep` asks it several times, `log_volume` once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter, signature
from math import exp, isfinite, lgamma, log, nan, pi

from sublevel.errors import ConfigError, unknown
from sublevel.field import Field, PointLike


def log_unit_ball(n: int) -> float:
    """Log omega_n, the volume of the unit ball in R^n.

    >>> round(exp(log_unit_ball(3)) / pi, 6)
    1.333333
    """
    return n / 2 * log(pi) - lgamma(n / 2 + 1)


@dataclass(frozen=True)
class Volume:
    """A volume in nats with what is needed to trust it.

    ``log_volume`` is nan where the estimator is undefined, and ``reason`` then says why; ``reason`` also warns of a
    value that is defined but not to be trusted. ``n`` is the dimension that the volume is measured in (k for the
    top-k estimator). ``effective_radius`` = (V / omega_n)^(1/n). ``se`` is a standard error in nats (0 where the
    estimator draws nothing). ``diagnostics`` name the ``measure`` and what the estimator ``assumes``.
    """

    log_volume: float
    effective_radius: float
    n: int
    eps: float
    se: float = 0.0
    reason: str = ""
    diagnostics: Mapping[str, object] = field(default_factory=dict)


VolumeAtHeight = Callable[[float], Volume]
Estimator = Callable[..., VolumeAtHeight]
METHODS: dict[str, Estimator] = {}


def estimator(name: str) -> Callable[[Estimator], Estimator]:
    """Register a volume estimator ``f(field, theta, *, mask, **options) -> (eps -> Volume)``."""

    def register(function: Estimator) -> Estimator:
        METHODS[name] = function
        return function

    return register


def prepared(field: Field, theta: PointLike, method: str, options: Mapping[str, object]) -> VolumeAtHeight:
    """The estimator of a name, made ready for any eps.

    Raises ConfigError for a name or an option that it does not know, or one that it needs and was not given.
    """
    if method not in METHODS:
        raise unknown("volume estimator", method, METHODS)
    function, where = METHODS[method], f"volume estimator {method!r}"
    known = {name: p for name, p in signature(function).parameters.items() if p.kind is Parameter.KEYWORD_ONLY}
    for name in options:
        if name not in known:
            raise unknown("option", name, known, where)
    missing = [name for name, p in known.items() if p.default is Parameter.empty and name not in options]
    if missing:
        raise ConfigError(f"{where} needs the option {missing[0]!r}: the answer depends on it")
    return function(field, theta, **options)


def ball_radius(log_v: float, n: int) -> float:
    """The radius of the n-ball of a log-volume, (V / omega_n)^(1/n)."""
    return exp((log_v - log_unit_ball(n)) / n)


def undefined(n: int, eps: float, reason: str, **diagnostics: object) -> Volume:
    """The volume that an estimator cannot give, and why."""
    return Volume(nan, nan, n, eps, nan, reason, diagnostics)


def positive(**numbers: float) -> None:
    """Refuse what is not a positive finite number.

    Raises ValueError with the name of the first.
    """
    for name, number in numbers.items():
        if not (isfinite(number) and number > 0):
            raise ValueError(f"{name} must be positive and finite, got {number}")


def because(reasons: Mapping[str, object]) -> str:
    """The reasons that hold, in order, as one text.

    >>> because({"too few": True, "too many": False})
    'too few'
    """
    return "; ".join(text for text, holds in reasons.items() if text and holds)
