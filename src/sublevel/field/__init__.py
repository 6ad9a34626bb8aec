"""Fields: functions on points with a loss, an error, a gradient and Hessian products.

Geometry sees nothing else. A field over a network and a set of examples is an `EmpiricalRisk`; closed forms
(`Quadratic`, `Wells`) have known answers and prove the estimators. Weight decay is no part of a field unless it is
added with `plus_weight_decay`: it adds wd * I to the Hessian and moves the stationary point.
"""

from sublevel.field.base import PointLike, Evaluation, Field, Likelihood, Stochastic
from sublevel.field.checks import NotDeterministic, check_deterministic, require_field
from sublevel.field.closed import Autograd, Quadratic, Wells
from sublevel.field.combined import EveryExample, Restricted, Sum
from sublevel.field.products import hessian_products

__all__ = [
    "At",
    "Autograd",
    "Evaluation",
    "EveryExample",
    "Field",
    "Likelihood",
    "NotDeterministic",
    "Quadratic",
    "Restricted",
    "Stochastic",
    "Sum",
    "Wells",
    "check_deterministic",
    "hessian_products",
    "require_field",
]
