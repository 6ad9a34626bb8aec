"""Refusals: what is no field, and what says that it is one but changes from call to call."""

from __future__ import annotations

from math import isclose, isnan

from sublevel.errors import ModelError
from sublevel.field.base import PointLike, Evaluation, Field, Stochastic
from sublevel.space import as_point

ROUNDING = 1e-5
"""Relative difference of two evaluations that is left to kernels which add in no fixed order (not the CPU's)."""


class NotDeterministic(ModelError, ValueError):
    """A field whose value at one point changes from call to call."""


def require_field(field: object, who: str) -> None:
    """Refuse what is not a deterministic field, a `Stochastic` above all.

    Raises TypeError naming what was got.
    """
    if not isinstance(field, Field):
        why = ": its value changes from call to call" if isinstance(field, Stochastic) else ""
        raise TypeError(f"{who} needs a field (a deterministic function of a point), got {type(field).__name__}{why}")


def check_deterministic(field: Field, at: PointLike, *, tolerance: float | None = None) -> Evaluation:
    """Evaluate a field twice at one point, and refuse it where losses or errors differ; return the evaluation.

    A network whose forward pass draws random numbers, whatever its mode, is no function of theta: its differences are
    noise, and so are barriers, curvature and volumes. ``tolerance`` is relative; by default 0 on the CPU and
    `ROUNDING` elsewhere.

    Raises ValueError (`NotDeterministic`) with both values, TypeError for what is no field.
    """
    require_field(field, "check_deterministic")
    allowed = (0.0 if as_point(at).theta.device.type == "cpu" else ROUNDING) if tolerance is None else tolerance
    one, two = field.evaluate(at), field.evaluate(at)
    for what, a, b in (("loss", one.loss, two.loss), ("error", one.error, two.error)):
        if not (isclose(a, b, rel_tol=allowed) or (isnan(a) and isnan(b))):
            raise NotDeterministic(
                f"two evaluations at one point give a {what} of {a!r} and of {b!r}: the network draws random numbers "
                "in evaluation mode too, so it is no function of its weights; make it deterministic there"
            )
    return one
