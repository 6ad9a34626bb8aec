"""Fields: functions of a point with a loss, an error, a gradient and Hessian products.

Geometry sees only fields. `EmpiricalRisk` is the field of a network and a set of examples; closed forms (`Quadratic`,
`Wells`) have known answers and test the estimators. `plus_weight_decay` adds weight decay, which no field includes by
itself: it adds wd * I to the Hessian and moves the stationary point.
"""

from sublevel.field.base import Evaluation, Field, Likelihood, PointLike, Stochastic
from sublevel.field.checks import NotDeterministic, check_deterministic, require_field
from sublevel.field.closed import Autograd, Quadratic, Wells
from sublevel.field.combined import EveryExample, Restricted, Sum, plus_weight_decay
from sublevel.field.errors import ErrorRate
from sublevel.field.products import hessian_products

__all__ = [
    "Autograd", "ErrorRate", "Evaluation", "EveryExample", "Field", "Likelihood", "NotDeterministic", "PointLike",
    "Quadratic", "Restricted", "Stochastic", "Sum", "Wells", "check_deterministic", "hessian_products",
    "plus_weight_decay", "require_field",
]  # fmt: skip
