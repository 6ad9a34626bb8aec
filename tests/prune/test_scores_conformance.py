"""Every registered criterion: its definition, and what any criterion is held to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scored import CHECKS, NAIVE, at_mask, context, look, refused

from cases import CASES, Case, named
from sublevel.errors import ConfigError
from sublevel.field import Quadratic
from sublevel.prune import SCORES, ScoreContext, prune, score, score_function
from sublevel.prune.sensitivity import hessian_diagonal
from sublevel.space import Point, Space

every = pytest.mark.parametrize("name", sorted(SCORES))
SMALL = ("normalised", "tied", "regression")
"""Statistics of batches, shared weights, another loss; the other networks are for the longer run."""


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict:
    """The registry, put back afterwards."""
    monkeypatch.setattr("sublevel.prune.registry.SCORES", dict(SCORES))
    return SCORES


def test_every_criterion_has_its_definition() -> None:
    assert set(NAIVE) == set(SCORES)


@every
@pytest.mark.parametrize(
    ("case", "mask"), [*((case, "all") for case in CASES), *((named(case), "random") for case in SMALL)], ids=str
)
def test_it_is_its_definition(name: str, case: Case, mask: str) -> None:
    """To 1e-10 of the largest score, at the dense point and at one where half of the weights are gone already."""
    there = at_mask(case, mask)
    mine = look(name, case, mask).double()
    want = NAIVE[name](there, context(case, mask).mask)
    left = case.space.prunable & context(case, mask).mask
    scale = float(want[left].abs().max())
    assert scale > 0
    torch.testing.assert_close(mine[left], want[left], rtol=1e-10, atol=1e-10 * scale)


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[] if str(case) in SMALL else pytest.mark.full) for case in CASES], ids=str
)
@every
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_is_held_to(name: str, case: Case, check) -> None:
    check(name, case)


@every
@settings(max_examples=8)
@given(st.data())
def test_masks_are_exact_whatever_the_ties(name: str, data: st.DataObject) -> None:
    """Weights of a few values only, zeros among them: scores tie in large groups, and counts stay exact and nested."""
    case = named("perceptron")
    space = case.space
    few = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=space.dim, max_size=space.dim)
    at = Point(torch.tensor(data.draw(few), dtype=torch.float64))
    seen = replace(context(case), start=Point(torch.tensor(data.draw(few), dtype=torch.float64)))
    total = space.remaining(seen.mask)
    keep = data.draw(st.integers(0, total))
    one = prune(name, at, case.field(), torch.Generator().manual_seed(1), seen, [keep])
    assert space.remaining(one.mask) == keep
    fewer = data.draw(st.integers(0, keep))
    two = prune(name, at, case.field(), torch.Generator().manual_seed(1), replace(seen, mask=one.mask), [fewer])
    assert space.remaining(two.mask) == fewer
    assert not bool((two.mask & ~one.mask).any())


# --- One function and one line.


def test_a_new_criterion_is_one_function_and_one_line(registry: dict) -> None:
    @score("shrunk")
    def shrunk(point, field, generator, *, start):
        return start.theta.abs() - point.theta.abs()

    assert score_function("shrunk").needs == ("start",)
    for case in map(named, SMALL):
        for check in CHECKS:
            check("shrunk", case)


def test_the_checks_catch_what_is_wrong(registry: dict) -> None:
    """Each of them refuses a criterion that breaks what it stands for."""
    case, calls = named("perceptron"), []

    @score("short")
    def short(point, field, generator):
        return point.theta[1:]

    @score("restless")
    def restless(point, field, generator):
        calls.append(1)
        return point.theta * len(calls)

    @score("writes")
    def writes(point, field, generator):
        point.theta.mul_(1.0000001)
        return point.theta.abs()

    @score("by-batch")
    def by_batch(point, field, generator):
        return point.theta * field.batch_size

    for name, check in (("short", 0), ("restless", 1), ("by-batch", 2)):
        with pytest.raises((AssertionError, ConfigError)):
            CHECKS[check](name, case)
    fresh = Case("fresh", case.build)
    with pytest.raises(AssertionError):
        CHECKS[3]("writes", fresh)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda theta: theta[:3], "gave 3 scores for the 83 coordinates of the network"),
        (lambda theta: theta.where(theta != theta[5], torch.nan), "gave nan for 1 of the weights of 0.weight"),
        (lambda theta: theta > 0, "must give a vector of real numbers, got a tensor torch.bool of shape [83]"),
        (lambda theta: theta[None], "must give a vector of real numbers, got a tensor torch.float64 of"),
        (lambda theta: 3, "must give a vector of real numbers, got <class 'int'>"),
    ],
)  # fmt: skip
def test_scores_that_are_none(registry: dict, answer, said: str) -> None:
    @score("bad")
    def bad(point, field, generator):
        return answer(point.theta)

    assert refused("bad", named("perceptron")).startswith(f"criterion 'bad' {said}")


def test_nan_where_nothing_is_left_is_no_matter(registry: dict) -> None:
    case = named("perceptron")
    seen = context(case, "random")
    hole = int((~seen.mask).nonzero()[0])

    @score("holes")
    def holes(point, field, generator):
        return point.theta.abs().index_fill(0, torch.tensor([hole]), torch.nan)

    look("holes", case, "random")


def test_what_a_criterion_lacks_is_named() -> None:
    case, rng = named("perceptron"), torch.Generator()
    bare = ScoreContext(case.space, case.space.full_mask())
    said = {
        "movement": "criterion 'movement' needs the point that training started from, which is not known here",
        "synflow": "criterion 'synflow' needs the network's response to ones, which is not known here",
        "taylor": "criterion 'taylor' needs the loss, but got no field",
        "woodfisher": "criterion 'woodfisher' needs the loss, but got no field",
    }
    for name, message in said.items():
        with pytest.raises(ConfigError, match=message):
            prune(name, case.point, None, rng, bare, [3])
    smooth = Quadratic(torch.ones(case.space.dim))
    with pytest.raises(ConfigError, match="'fisher' needs the gradient of every example, which Quadratic lacks"):
        prune("fisher", case.point, smooth, rng, bare, [3])
    with pytest.raises(ConfigError, match="the point has 83 and the mask 2 coordinates; the network has 83"):
        prune("magnitude", case.point, None, rng, ScoreContext(case.space, torch.ones(2, dtype=torch.bool)), [3])


def test_what_cannot_be_asked_for(registry: dict) -> None:
    with pytest.raises(ConfigError, match="unknown parameter of criterion 'x' 'starts'; did you mean 'start'"):
        score("x")(lambda point, field, generator, *, starts: point.theta)

    @score("moves")
    def moves(point, field, generator):
        from sublevel.prune import Scores

        return Scores(point.theta.abs(), lambda mask: point.theta)

    assert "'moves' is registered with updates=False" in refused("moves", named("perceptron"))


# --- The diagonal of a Hessian that is too large for its columns.


def test_the_estimated_diagonal_is_unbiased_with_the_stated_variance(monkeypatch: pytest.MonkeyPatch) -> None:
    """A dense quadratic of 40 dimensions: bias within 4 standard errors of 2000 estimates, variance within 15%."""
    rng = torch.Generator().manual_seed(0)
    root = torch.randn(40, 40, generator=rng, dtype=torch.float64)
    h = root @ root.T / 40
    monkeypatch.setattr("sublevel.prune.sensitivity.EXACT", 0)
    monkeypatch.setattr("sublevel.prune.sensitivity.PROBES", 4)
    at, whole = Point(torch.zeros(40, dtype=torch.float64)), torch.ones(40, dtype=torch.bool)
    drawn = torch.stack([hessian_diagonal(Quadratic(h), at, rng, whole) for _ in range(2000)])
    variance = (h.square().sum(1) - h.diagonal().square()) / 4
    assert bool(((drawn.mean(0) - h.diagonal()).abs() < 4 * (variance / 2000).sqrt()).all())
    assert torch.allclose(drawn.var(0), variance, rtol=0.15)
    half = whole.clone()
    half[::2] = False
    inside = hessian_diagonal(Quadratic(h), at, rng, half)
    assert bool((inside[::2] == 0).all())
    assert bool((inside[1::2] != 0).all())


def test_a_diagonal_hessian_is_exact_by_any_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    h = torch.linspace(-1, 3, 20, dtype=torch.float64)
    monkeypatch.setattr("sublevel.prune.sensitivity.EXACT", 0)
    at, whole = Point(torch.zeros(20, dtype=torch.float64)), torch.ones(20, dtype=torch.bool)
    assert torch.allclose(hessian_diagonal(Quadratic(h), at, torch.Generator(), whole), h, rtol=1e-14)


def test_space_is_what_layers_are_told_by() -> None:
    """LAMP on one layer of 1, 2, 3: 1/14, 4/13, 9/9."""
    space = Space.of(torch.nn.Linear(3, 1, bias=False))
    at = Point(torch.tensor([2.0, 3.0, -1.0]))
    found = SCORES["lamp"](at, None, torch.Generator(), space=space)
    assert torch.allclose(found, torch.tensor([4 / 13, 1.0, 1 / 14], dtype=torch.float64))
