"""A limit on a worker's memory: the vectors and the batch that fit, what is left out, and what a plan says of it."""

from __future__ import annotations

import pytest
import torch

import own_net
import sublevel as sl
from sublevel.errors import ConfigError
from sublevel.study import costs
from sublevel.study.cells import KEEP
from sublevel.study.memory_limit import limited


@pytest.fixture(scope="module")
def problem() -> sl.Problem:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    y = torch.arange(40) % 3
    return sl.Problem(own_net.build, train=(x, y), test=(x, y), validation=0, options={"width": 8})


def study(problem: sl.Problem, tmp_path, memory: int | str | None, **spectra) -> sl.Study:
    checkpoint = tmp_path / "a.pt"
    torch.save(problem.module.state_dict(), checkpoint)
    blocks = {"spectra": {"k": 2, "negative": 0, "spaces": ["all"], **spectra}, "density": {"spaces": ["all"]}}
    given = [{"name": "a", "path": str(checkpoint)}]
    return sl.Study(problem, name="m", given=given, geometry=blocks, out=tmp_path, memory=memory and str(memory))


def test_the_vectors_that_fit_and_what_is_left_out(problem: sl.Problem, tmp_path):
    free = study(problem, tmp_path, None)
    vector, each = costs.vector_bytes(problem, free.spec.train), costs.batch_bytes(problem, free.spec.train, 1)
    fixed = costs.process(problem) + costs.PRODUCT_VECTORS * vector
    tight = fixed + problem.field_batch * each + 6 * vector
    found = limited(free.spec, problem, tight)
    spec, notes = found.spec, found.notes
    assert (spec.geometry.spectra.rows, spec.geometry.spectra.batch) == (6, None)
    assert spec.geometry.density is None
    assert len(notes) == 1
    assert notes[0].startswith("density is left out: it needs ")
    assert problem.field_batch == 40  # all examples; those of a network of this size are 1,000
    smaller = limited(free.spec, problem, fixed + 7 * each + 5 * vector).spec.geometry.spectra
    assert (smaller.rows, smaller.batch) == (5, 7)
    wide = limited(free.spec, problem, 10**10)
    assert (wide.spec.geometry, wide.notes, wide.keep_bytes) == (free.spec.geometry, [], KEEP)
    between = limited(free.spec, problem, fixed + problem.field_batch * each + 500 * vector)
    assert (between.spec.geometry, between.keep_bytes) == (free.spec.geometry, 20 * vector)
    with pytest.raises(
        ConfigError, match=r"2 eigenvalues of this network do not fit in .* 6 vectors of .* 5 for the eig"
    ):
        limited(free.spec, problem, fixed)


def test_a_plan_says_what_its_memory_is_made_of_and_a_run_keeps_to_it(problem: sl.Problem, tmp_path):
    fixed = costs.process(problem) + costs.batch_bytes(problem, study(problem, tmp_path, None).spec.train, 40)
    memory = fixed + (costs.PRODUCT_VECTORS + 6) * 4 * problem.space.dim
    chosen = study(problem, tmp_path, memory)
    plan = chosen.plan(jobs=1)
    assert plan.memory == sum(plan.memory_parts.values()) <= memory
    assert plan.memory_parts["6 vectors of Lanczos"] == 6 * 4 * problem.space.dim
    assert "a batch of 40 examples" in plan.memory_parts  # the data have no more
    assert any(note.startswith("density is left out") for note in plan.notes)
    result = chosen.run(jobs=1, listener=lambda event: None, figures=False, report=False)
    found, field = result.tables["curvature"].iloc[0], problem.field("train")
    own = sl.curvature.top_eigenvalues(field, problem.point(problem.module), k=2)
    assert float(found["largest"]) == pytest.approx(float(own.values[0]), rel=1e-3)


def test_without_need_the_keys_are_those_without_a_limit(problem: sl.Problem, tmp_path):
    nodes = [study(problem, tmp_path, memory).cells[0].nodes for memory in (None, "100GB")]
    assert {name: node.inputs for name, node in nodes[0].items()} == {
        name: node.inputs for name, node in nodes[1].items()
    }


@pytest.mark.parametrize("text", ["much", "16XB", "-3GB", "0GB", ""])
def test_a_limit_that_is_no_size_is_refused(problem: sl.Problem, text: str, tmp_path):
    with pytest.raises(ConfigError, match="memory is written as 16GB or 16GiB"):
        sl.Study(problem, name="m", memory=text)
