"""A wrong shape fails a test: at the first calls of a function, and at some of the later ones."""

from __future__ import annotations

import pytest
import torch
from jaxtyping import TypeCheckError

import shapes
from sublevel.space import project

THETA, LONG = torch.ones(3), torch.ones(3, dtype=torch.bool)
WRONG = torch.ones(1, dtype=torch.bool)  # PyTorch would take it: it broadcasts


@pytest.mark.parametrize("before", [0, shapes.FIRST - 1, shapes.EVERY - 1, 5 * shapes.EVERY - 1])
def test_a_wrong_shape_is_seen(before):
    for _ in range(before):
        project(THETA, LONG)
    with pytest.raises(TypeCheckError):
        project(THETA, WRONG)


def test_other_calls_are_not_checked():
    for _ in range(shapes.FIRST):
        project(THETA, LONG)
    assert torch.equal(project(THETA, WRONG), THETA)
