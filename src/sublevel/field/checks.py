"""Checks that an object is a field and that its value does not change from call to call."""

from __future__ import annotations

from math import isclose, isnan

from sublevel.errors import ModelError
from sublevel.field.base import Evaluation, Field, PointLike, Stochastic
from sublevel.space import as_point

ROUNDING = 1e-5
"""Relative difference allowed between two evaluations by kernels that add in no fixed order (not on the CPU)."""


class NotDeterministic(ModelError, ValueError):
    """A field whose value at one point changes from call to call."""


def require_field(field: object, who: str) -> None:
    """Require a deterministic field, not a `Stochastic`.

    Raises TypeError with the type of the object.
    """
    if not isinstance(field, Field):
        why = ": its value changes from call to call" if isinstance(field, Stochastic) else ""
        raise TypeError(f"{who} needs a field (a deterministic function of a point), got {type(field).__name__}{why}")


def check_deterministic(field: Field, at: PointLike, *, tolerance: float | None = None) -> Evaluation:
    """Evaluate a field twice at one point, require equal losses and errors, and return the evaluation.

    A network that draws random numbers in evaluation mode is not a function of theta: its barriers, curvature and
    volumes would be noise. ``tolerance`` is relative; the default is 0 on the CPU and `ROUNDING` elsewhere.

    Raises ValueError (`NotDeterministic`) with both values, TypeError if ``field`` is not a field.
    """
    require_field(field, "check_deterministic")
    allowed = (0.0 if as_point(at).theta.device.type == "cpu" else ROUNDING) if tolerance is None else tolerance
    one, two = field.evaluate(at), field.evaluate(at)
    for what, a, b in (("loss", one.loss, two.loss), ("error", one.error, two.error)):
        if not (isclose(a, b, rel_tol=allowed) or (isnan(a) and isnan(b))):
            raise NotDeterministic(
                f"two evaluations at one point give a {what} of {a!r} and of {b!r}: the network draws random numbers "
                "in evaluation mode, so it is no function of its weights; make it deterministic in evaluation mode"
            )
    return one
