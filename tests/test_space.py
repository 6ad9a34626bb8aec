"""The way between modules and R^D: nothing lost, nothing counted twice, masks exact."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import nn

from cases import CASES, Tied, convolution, frozen, named, perceptron
from sublevel.errors import ModelError
from sublevel.rng import derive, generator, seeded
from sublevel.space import Point, Space, as_point, check_mask, lerp, project

lengths = st.shared(st.integers(1, 10), key="n")
vectors = arrays("float64", lengths, elements=st.floats(-1e6, 1e6)).map(torch.from_numpy)
masks = arrays("bool", lengths).map(torch.from_numpy)
every = pytest.mark.parametrize("case", CASES, ids=str)


@every
def test_round_trip_through_the_module(case):
    theta = torch.randn(case.space.dim, dtype=torch.float64)
    net = case.build().double()
    constants = {n: p.clone() for n, p in net.named_parameters() if not p.requires_grad}
    buffers = {n: b + 1 for n, b in case.point.buffers.items()}
    case.space.write(net, Point(theta, buffers))
    back = case.space.point(net)
    assert torch.equal(back.theta, theta)
    assert back.buffers.keys() == buffers.keys()
    assert all(torch.equal(back.buffers[n], b) for n, b in buffers.items())
    assert all(torch.equal(dict(net.named_parameters())[n], p) for n, p in constants.items())
    with torch.no_grad():
        case.space.write(net, Point(theta + 1, buffers))
    assert torch.equal(back.theta, theta), "a point is a copy"


@every
def test_coordinates_stand_in_the_order_of_named_parameters(case):
    names = [n for n, p in case.module.named_parameters() if p.requires_grad]
    assert [layer.name for layer in case.space.layers] == names
    assert case.space.dim == sum(p.numel() for p in case.module.parameters() if p.requires_grad)
    ends = [layer.start + layer.size for layer in case.space.layers]
    assert [layer.start for layer in case.space.layers] == [0, *ends[:-1]]
    theta = torch.arange(case.space.dim, dtype=torch.float64)
    for layer in case.space.layers:
        view = case.space.views(theta)[layer.name]
        assert view.shape == layer.shape == dict(case.module.named_parameters())[layer.name].shape
        assert torch.equal(view.reshape(-1), theta[layer.coordinates])
        assert view.data_ptr() == theta[layer.start :].data_ptr(), "a view, not a copy"


@every
def test_the_call_is_the_module(case):
    net = case.build().double().eval()
    case.space.write(net, case.point)
    mode = case.module.training
    case.module.eval()
    x, _ = case.data
    try:
        if case.name != "frozen":  # constants are the module's own
            assert torch.equal(case.space.call(case.module, case.point.theta, case.point.buffers, x), net(x))
    finally:
        case.module.train(mode)


@every
def test_the_gradient_arrives_flat(case):
    theta = case.point.theta.clone().requires_grad_()
    buffers = {n: b.clone() for n, b in case.point.buffers.items()}
    out = case.space.call(case.module, theta, buffers, case.data[0]).square().sum()
    (gradient,) = torch.autograd.grad(out, theta)
    assert gradient.shape == theta.shape
    assert gradient.is_contiguous()


def test_a_tied_parameter_counts_once_and_moves_both_layers():
    space = Space.of(Tied())
    assert [layer.name for layer in space.layers] == [
        "first.weight",
        "first.bias",
        "second.bias",
        "out.weight",
        "out.bias",
    ]
    assert space.dim == 36 + 6 + 6 + 18 + 3
    net = Tied().double()
    at = space.point(net)
    theta = at.theta.clone()
    theta[:36] = 0
    x = torch.randn(4, 6, dtype=torch.float64)
    want = torch.tanh(net.second.bias).expand(4, 6) @ net.out.weight.T + net.out.bias
    torch.testing.assert_close(space.call(net, theta, {}, x), want)
    space.write(net, Point(theta))
    assert net.second.weight is net.first.weight
    assert bool((net.second.weight == 0).all())


def test_frozen_parameters_are_constants():
    net = frozen()
    space = Space.of(net)
    assert [layer.name for layer in space.layers] == ["0.weight", "0.bias", "4.weight", "4.bias"]
    before = net[2].weight.clone()
    space.write(net, Point(torch.zeros(space.dim)))
    assert torch.equal(net[2].weight, before)
    assert not any(layer.name.startswith("2") for layer in space.prunable_layers)


def test_buffers_are_listed_and_statistics_found():
    space = Space.of(convolution())
    assert space.statistics == ("1", "4")
    assert set(space.buffers) == {
        f"{n}.{b}" for n in "14" for b in ("running_mean", "running_var", "num_batches_tracked")
    }
    still = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    assert Space.of(still).statistics == ()
    assert Space.of(still).buffers == ()


@pytest.mark.parametrize(
    ("chosen", "want"),
    [
        ("7.weight", ["7.weight"]),
        (["7.*", "0.weight"], ["0.weight", "7.weight", "7.bias"]),
        ("Conv2d", ["0.weight", "3.weight"]),
        (("Linear", "0.*"), ["0.weight", "7.weight"]),
    ],
)
def test_what_is_prunable_by_name_and_by_class(chosen, want):
    assert [layer.name for layer in Space.of(convolution(), chosen).prunable_layers] == want


def test_a_name_that_matches_nothing_is_refused():
    with pytest.raises(ModelError, match=r"prunable: 'conv\.\*' matches no parameter and no module class; .* 0.weight"):
        Space.of(convolution(), ["7.weight", "conv.*"])


def test_what_is_prunable():
    space = Space.of(convolution())
    assert [layer.name for layer in space.prunable_layers] == ["0.weight", "3.weight", "7.weight"]
    assert int(space.prunable.sum()) == 27 + 108 + 48
    chosen = Space.of(convolution(), lambda name, owner, parameter: isinstance(owner, nn.Linear))
    assert [layer.name for layer in chosen.prunable_layers] == ["7.weight", "7.bias"]
    assert not any(layer.prunable for layer in Space.of(Tied()).layers if layer.name.endswith("bias"))


def test_nothing_to_train_or_prune_is_refused():
    with pytest.raises(ModelError, match="Flatten has no trainable parameter"):
        Space.of(nn.Flatten())
    with pytest.raises(ModelError, match=r"LayerNorm has no prunable weight.*weight, bias"):
        Space.of(nn.LayerNorm(3))


# --- Masks.


def test_projection_gives_plus_zero_whatever_was_there():
    theta = torch.tensor([-1.0, -0.0, math.nan, math.inf, -math.inf, -3.0])
    mask = torch.tensor([False, False, False, False, False, True])
    out = project(theta, mask)
    assert out.tolist() == [0.0] * 5 + [-3.0]
    assert not torch.signbit(out[:5]).any()
    assert torch.equal(theta[:2], torch.tensor([-1.0, -0.0])), "nothing is written in place"


@given(vectors, masks, masks)
def test_masks_are_commuting_projections(theta, a, b):
    assert torch.equal(project(project(theta, a), a), project(theta, a))
    assert torch.equal(project(project(theta, a), b), project(theta, a & b))
    assert torch.equal(project(project(theta, a), b), project(project(theta, b), a))
    assert torch.equal(project(theta, a) + project(theta, ~a), theta + 0.0)
    assert float(project(theta, a) @ project(theta, ~a)) == 0.0
    assert project(theta, a).norm() <= theta.norm() * (1 + 1e-15)


@given(vectors, vectors, masks, st.floats(0, 1))
def test_a_segment_stays_in_the_subspace_of_its_ends(a, b, mask, alpha):
    point = lerp(Point(project(a, mask)), Point(project(b, mask)), alpha)
    assert bool((point.theta[~mask] == 0).all())


@given(vectors, vectors, st.floats(0, 1))
def test_lerp(a, b, alpha):
    one, two = Point(a, {"mean": a, "count": torch.tensor(3)}), Point(b, {"mean": b, "count": torch.tensor(9)})
    between = lerp(one, two, alpha)
    want = (1 - alpha) * a + alpha * b
    scale = float(torch.maximum(a.abs(), b.abs()).max()) + 1e-300
    torch.testing.assert_close(between.theta, want, rtol=0, atol=1e-14 * scale)
    torch.testing.assert_close(between.buffers["mean"], want, rtol=0, atol=1e-14 * scale)
    assert between.buffers["count"] == (9 if alpha == 1 else 3)
    low, high = torch.minimum(a, b), torch.maximum(a, b)
    assert bool(((between.theta >= low - 1e-14 * scale) & (between.theta <= high + 1e-14 * scale)).all())


@given(vectors, vectors)
def test_the_ends_of_a_path_are_its_points(a, b):
    one, two = Point(a), Point(b)
    assert lerp(one, two, 0.0) is one
    assert lerp(one, two, 1.0) is two
    assert lerp(one, two, 0) is one


@every
def test_counts_of_a_mask(case):
    space, mask = case.space, case.masks()["random"]
    full = space.full_mask()
    assert space.density(full) == 1.0
    assert space.remaining(full) == sum(layer.size for layer in space.prunable_layers)
    assert space.remaining(mask) == sum(int(mask[layer.coordinates].sum()) for layer in space.prunable_layers)
    assert space.density(~space.prunable) == 0.0
    assert bool(mask[~space.prunable].all())


@every
def test_dead_filters(case):
    space, masks_ = case.space, case.masks()
    first = next(space.prunable_layers)
    row = first.size // first.shape[0]
    dead = space.dead(masks_["dead"])
    assert bool(dead[first.start : first.start + row].all())
    assert not bool((dead & masks_["dead"]).any())
    alive = {layer.name: rows for layer, rows in space.filters(masks_["dead"])}
    assert not alive[first.name][0]
    views = space.views(masks_["dead"].double())
    for name, rows in alive.items():
        assert rows.tolist() == [bool(views[name][i].any()) for i in range(len(rows))]
        assert int(dead[next(la.coordinates for la in space.layers if la.name == name)].sum()) == int((~rows).sum()) * (
            views[name][0].numel()
        )
    assert not bool(space.dead(space.full_mask()).any())
    assert not bool(space.dead(masks_["dead"])[~space.prunable].any())


def test_invariants_of_a_mask_are_named_when_broken():
    space = Space.of(perceptron())
    full, n = space.full_mask(), 72
    child = full.clone()
    child[0] = False
    check_mask(space, child, full, n - 1)
    with pytest.raises(ModelError, match="leaves 71 prunable weights where 70"):
        check_mask(space, child, full, n - 2)
    grown = child.clone()
    grown[0], grown[1] = True, False
    with pytest.raises(ModelError, match="not nested"):
        check_mask(space, grown, child, n - 1)
    bias = child.clone()
    bias[48] = False
    with pytest.raises(ModelError, match="not prunable"):
        check_mask(space, bias, full, n - 1)


# --- Points and randomness.


def test_point_to_another_type_keeps_integers():
    point = named("convolution").point
    single = point.to(dtype=torch.float32)
    assert single.theta.dtype == single.buffers["1.running_var"].dtype == torch.float32
    assert single.buffers["1.num_batches_tracked"].dtype == torch.int64
    assert point.theta.dtype == torch.float64


def test_a_plain_vector_is_a_point_without_buffers():
    theta = torch.zeros(3)
    assert as_point(theta).theta is theta
    assert as_point(theta).buffers == {}
    point = Point(theta)
    assert as_point(point) is point
    with pytest.raises(TypeError, match=r"got Linear: .* space.point\(module\) give points"):
        as_point(nn.Linear(2, 2))


@given(st.integers(-5, 10**9), st.text(max_size=12), st.integers(0, 10**6))
def test_a_draw_is_named_by_seed_stream_and_epoch(seed, stream, epoch):
    assert 0 <= derive(seed, stream, epoch) < 2**63
    one, two = (torch.rand(3, generator=generator(seed, stream, epoch)) for _ in range(2))
    assert torch.equal(one, two)


def test_neighbouring_names_are_different_draws():
    seeds = {derive(s, stream, e) for s in range(20) for stream in ("order", "order:a", "init") for e in range(20)}
    assert len(seeds) == 20 * 3 * 20


def test_the_global_generator_is_put_back():
    torch.manual_seed(7)
    want = torch.rand(2)
    torch.manual_seed(7)
    with seeded(0, "init"):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), want)
    with seeded(0, "init"):
        assert torch.equal(torch.rand(2), inside)
    torch.manual_seed(7)
    with pytest.raises(ZeroDivisionError), seeded(0, "init"):
        1 / torch.rand(2).int()[0].item()
    assert torch.equal(torch.rand(2), want)
