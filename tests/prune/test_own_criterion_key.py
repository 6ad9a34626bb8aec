"""A criterion of one's own is part of its masks' keys: edited, it makes new masks and keeps the dense run."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from sublevel import Study
from sublevel.prune.registry import SCORES

TEXT = """from sublevel.prune import score

@score("mine")
def mine(point, field, generator):
    return point.theta.abs() * {factor}
"""


@pytest.fixture(autouse=True)
def _leave_no_criterion():
    yield
    SCORES.pop("mine", None)


def masks(folder: Path, factor: str) -> list[object]:
    """What the mask cells of a small study by this criterion are given."""
    file = folder / f"criterion_{factor.replace('.', '_').replace('-', 'minus')}.py"
    file.write_text(TEXT.format(factor=factor))
    spec = importlib.util.spec_from_file_location("own_criterion", file)
    assert spec
    assert spec.loader
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
    study = Study("demo", out=folder, criterion="mine", branches=["imp"], levels=2, seeds=1, geometry={})
    return [node.inputs for node in study.cells[0].nodes.values() if node.kind == "mask"]


def test_the_text_counts_and_the_same_text_is_the_same_key(tmp_path):
    first, again, edited = (masks(tmp_path, factor) for factor in ("1.0", "1.0", "-1.0"))
    assert first == again
    assert all(a != b for a, b in zip(first, edited, strict=True))


def test_criteria_of_the_package_are_known_by_name_alone(tmp_path):
    study = Study("demo", out=tmp_path, branches=["imp"], levels=1, seeds=1, geometry={})
    (mask,) = (node for node in study.cells[0].nodes.values() if node.kind == "mask")
    assert "code" not in mask.inputs
