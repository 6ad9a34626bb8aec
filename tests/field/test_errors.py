"""The error as a field: sets of known size, and refusals."""

from __future__ import annotations

import math

import pytest
import torch

from sublevel.field import Autograd, ErrorRate, Evaluation, Quadratic
from sublevel.geometry.paths import segment
from sublevel.geometry.volume import log_unit_ball, log_volume

F64 = torch.float64


class Shells(Autograd):
    """Ten examples; the i-th is wrong outside the ellipsoid |x / axes| = i, so {error <= e} is an ellipsoid."""

    def __init__(self, axes: torch.Tensor) -> None:
        self.axes = axes
        super().__init__(lambda theta: (theta / axes).square().sum(), len(axes))

    def evaluate(self, at: torch.Tensor) -> Evaluation:
        radius = (self.point(at).theta / self.axes).norm()
        wrong = sum(float(radius) > i for i in range(1, 11))
        return Evaluation(super().evaluate(at).loss, wrong / 10, 10)


@pytest.mark.parametrize(("eps", "shell"), [(0.05, 1), (0.15, 2), (0.3, 4)])
def test_rays_find_the_volume_of_a_set_of_the_error(eps: float, shell: int) -> None:
    axes = torch.tensor([1.0, 2.0, 0.5], dtype=F64)
    found = log_volume(
        ErrorRate(Shells(axes)), torch.zeros(3, dtype=F64), method="radial", eps=eps + 1e-9, radius=1e3, samples=300
    )
    true = log_unit_ball(3) + 3 * math.log(shell) + float(axes.log().sum())
    assert found.log_volume == pytest.approx(true, abs=4 * found.se)
    assert found.se < 0.2


def test_a_segment_and_its_barrier_are_those_of_the_error() -> None:
    field = Shells(torch.ones(2, dtype=F64))
    a, b = torch.tensor([3.5, 0.0], dtype=F64), torch.tensor([0.0, 3.5], dtype=F64)
    path = segment(ErrorRate(field), a, b)
    assert path.barrier("loss") == path.barrier("error") == segment(field, a, b).barrier("error")


def test_what_has_no_error_or_no_slope_is_refused() -> None:
    with pytest.raises(ValueError, match="Quadratic has no error"):
        ErrorRate(Quadratic(torch.ones(2))).loss(torch.zeros(2))
    field = ErrorRate(Shells(torch.ones(2, dtype=F64)))
    for call in (lambda: field.grad(torch.zeros(2)), lambda: field.hvp(torch.zeros(2), torch.zeros(2))):
        with pytest.raises(TypeError, match="step function"):
            call()
