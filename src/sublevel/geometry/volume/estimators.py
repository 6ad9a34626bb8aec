"""Volume estimators: their result, the unit ball, and the registry.

An estimator first computes everything that does not depend on the height eps (a spectrum, a preconditioner, directions)
and returns a function of eps. `sweep` calls that function several times, `log_volume` once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from inspect import Parameter, signature
from math import exp, isfinite, lgamma, log, nan, pi
from typing import Any

from sublevel.display import Shown, with_error
from sublevel.errors import ConfigError, unknown
from sublevel.field import Field, PointLike


def log_unit_ball(n: int) -> float:
    """Log omega_n, the volume of the unit ball in R^n.

    >>> round(exp(log_unit_ball(3)) / pi, 6)
    1.333333
    """
    return n / 2 * log(pi) - lgamma(n / 2 + 1)


@dataclass(frozen=True, repr=False)
class Volume(Shown):
    """A volume in nats with its diagnostics.

    ``log_volume`` is nan if the estimator is undefined. ``reason`` says why, and also warns of a value that is defined
    but not reliable. ``n`` is the dimension of the volume (k for the top-k estimator), ``effective_radius`` =
    (V / omega_n)^(1/n). ``se`` is a standard error in nats (0 if nothing is drawn). ``diagnostics`` name the
    ``measure`` and what the estimator ``assumes``.
    """

    log_volume: float
    effective_radius: float
    n: int
    eps: float
    se: float = 0.0
    reason: str = ""
    diagnostics: Mapping[str, object] = field(default_factory=dict)

    def _facts(self) -> dict[str, object]:
        return {
            "log volume": with_error(self.log_volume, self.se, "nats"),
            "radius": self.effective_radius,
            "dimension": self.n,
            "eps": self.eps,
            "caution:": self.reason,
        }


VolumeAtHeight = Callable[[float], Volume]
Method = Callable[..., VolumeAtHeight]
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Option:
    """An option that a study may set: its default there, its least value (a fraction must be larger), and the
    estimator's own name for it.
    """

    default: int | float
    least: int = 0
    argument: str = ""


@dataclass(frozen=True, kw_only=True)
class Estimator:
    """A volume estimator, and what a study asks of it.

    ``function`` passes the options that it does not name to ``forwards``, if given. ``options`` are those that a study
    may set, by their keys in ``geometry.volumes`` (None: no study uses the
    estimator); ``fixed`` is asked for always. ``derived(options, n, examples)`` are options that follow from others,
    the dimension n, and the number of training examples. ``cost(options, heights)`` is the time of a sweep over
    ``heights`` heights, in forward and backward passes over the examples; no number depends on it.
    """

    function: Method
    forwards: Callable[..., Any] | None = None
    options: Mapping[str, Option] | None = None
    fixed: Options = field(default_factory=dict)
    derived: Callable[[Options, int, int], Options] = lambda options, n, examples: {}
    cost: Callable[[Options, int], float] = lambda options, heights: 0.0

    @property
    def takes(self) -> dict[str, Parameter]:
        """The options that the estimator takes."""
        taken = dict(signature(self.forwards or self.function).parameters) | dict(signature(self.function).parameters)
        return {name: p for name, p in taken.items() if p.kind is Parameter.KEYWORD_ONLY}


METHODS: dict[str, Estimator] = {}


def estimator(name: str, **study: Any) -> Callable[[Method], Method]:
    """Register a volume estimator ``f(field, theta, *, mask, **options) -> (eps -> Volume)``.

    ``study`` holds the other fields of `Estimator`.
    """

    def register(function: Method) -> Method:
        METHODS[name] = Estimator(function=function, **study)
        return function

    return register


def prepared(field: Field, theta: PointLike, method: str, options: Mapping[str, object]) -> VolumeAtHeight:
    """The estimator of a name, prepared for any eps.

    Raises ConfigError for an unknown name or option, or a missing option without a default.
    """
    if method not in METHODS:
        raise unknown("volume estimator", method, METHODS)
    function, where = METHODS[method].function, f"volume estimator {method!r}"
    known = METHODS[method].takes
    for name in options:
        if name not in known:
            raise unknown("option", name, known, where)
    missing = [name for name, p in known.items() if p.default is Parameter.empty and name not in options]
    if missing:
        raise ConfigError(f"{where} needs the option {missing[0]!r}: the answer depends on it")
    return function(field, theta, **options)


def ball_radius(log_v: float, n: int) -> float:
    """The radius of the n-ball with a log-volume, (V / omega_n)^(1/n)."""
    return exp((log_v - log_unit_ball(n)) / n)


def undefined(n: int, eps: float, reason: str, **diagnostics: object) -> Volume:
    """An undefined volume with its reason."""
    return Volume(nan, nan, n, eps, nan, reason, diagnostics)


def check_positive(**numbers: float) -> None:
    """Require positive finite numbers.

    Raises ValueError with the name of the first other one.
    """
    for name, number in numbers.items():
        if not (isfinite(number) and number > 0):
            raise ValueError(f"{name} must be positive and finite, got {number}")
