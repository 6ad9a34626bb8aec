"""Conformance of every registered network, and known parameter counts."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sublevel.errors import ConfigError, ModelError
from sublevel.models import build, names
from sublevel.models.registry import REGISTRY, TYPES, find

SMALL = {"width": 4}
SHAPES = [(1, 28, 28), (3, 32, 32)]
DEEP = ("resnet-32", "resnet-44", "resnet-56", "resnet-110")  # the same code as resnet-20, only longer
TESTED = [name for name in names() if name not in DEEP]


def small(name: str, shape: tuple[int, ...], seed: int = 0) -> nn.Module:
    """Build a narrow version where the network has a width."""
    allowed = find(name)[0].options()
    torch.manual_seed(seed)
    return build(name, input_shape=shape, classes=10, **{k: v for k, v in SMALL.items() if k in allowed})


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def weights(net: nn.Module) -> int:
    """Count what pruning may remove: the weights of convolutions and linear layers."""
    return sum(m.weight.numel() for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", names())
def test_maps_a_batch_to_one_row_of_logits_per_image(name, shape):
    assert small(name, shape)(torch.randn(2, *shape)).shape == (2, 10)


@pytest.mark.parametrize("name", TESTED)
def test_the_seed_decides_the_weights(name):
    one, two, other = (small(name, (3, 32, 32), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert any(not torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", TESTED)
def test_first_and_second_derivatives_are_finite(name, shape):
    net = small(name, shape).double()
    theta = list(net.parameters())
    inputs = torch.randn(4, *shape, dtype=torch.float64)
    loss = nn.functional.cross_entropy(net(inputs), torch.arange(4))
    grad = torch.autograd.grad(loss, theta, create_graph=True)
    assert all(g.isfinite().all() for g in grad)
    direction = [torch.randn_like(p) for p in theta]
    slope = sum((g * d).sum() for g, d in zip(grad, direction, strict=True))
    product = torch.autograd.grad(slope, theta)
    assert all(h.isfinite().all() for h in product)
    assert sum(h.abs().sum() for h in product) > 0


@pytest.mark.parametrize("name", TESTED)
def test_weights_are_kaiming_normal_and_the_rest_is_neutral(name):
    torch.manual_seed(0)
    net = build(name, input_shape=(3, 32, 32), classes=10)
    for part in net.modules():
        if isinstance(part, (nn.Conv2d, nn.Linear)):
            expected = (2 / part.weight[0].numel()) ** 0.5
            spread = 4 * (2 * part.weight.numel()) ** -0.5  # four standard errors of a standard deviation
            assert part.weight.std().item() == pytest.approx(expected, rel=spread)
            assert part.bias is None or not part.bias.any()
        if isinstance(part, nn.BatchNorm2d):
            assert (part.weight == 1).all()
            assert not part.bias.any()


@pytest.mark.parametrize("entry", REGISTRY.values(), ids=lambda entry: entry.name)
def test_options_have_a_type_and_a_default(entry):
    for option in entry.options().values():
        assert option.annotation in TYPES
        assert type(option.default) is TYPES[option.annotation]


@pytest.mark.parametrize(
    ("name", "shape", "expected_parameters", "expected_weights"),
    [
        ("lenet-300-100", (1, 28, 28), 266_610, 266_200),
        ("resnet-20", (3, 32, 32), 272_474, 270_896),
        ("conv-2", (3, 32, 32), 4_301_642, 4_300_992),
        ("conv-4", (3, 32, 32), 2_425_930, 2_425_024),
        ("conv-6", (3, 32, 32), 2_262_602, 2_261_184),
        ("vgg-16", (3, 32, 32), 14_728_266, 14_715_584),
    ],
)
def test_known_counts(name, shape, expected_parameters, expected_weights):
    net = build(name, input_shape=shape, classes=10)
    assert (parameters(net), weights(net)) == (expected_parameters, expected_weights)


def test_published_roundings_of_the_convolutions():
    """Frankle and Carbin 2019, figure 2: 38K, 260K and 1.1M weights in convolutions."""
    for name, published in [("conv-2", 38_000), ("conv-4", 260_000), ("conv-6", 1_100_000)]:
        net = build(name, input_shape=(3, 32, 32), classes=10)
        count = sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d))
        assert count == pytest.approx(published, rel=0.05)


def test_resnet_depth_counts_its_layers():
    net = build("resnet-32", input_shape=(3, 32, 32), classes=10, width=2)
    assert sum(isinstance(m, nn.Linear) or getattr(m, "kernel_size", 0) == (3, 3) for m in net.modules()) == 32


def test_names_are_listed_in_order_of_size():
    assert names()[:5] == ["conv-2", "conv-4", "conv-6", "lenet-300-100", "perceptron-32"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("lenet300", {}, "unknown model 'lenet300'; did you mean 'lenet-300-100'?"),
        ("resnet-18", {}, "depth 6n . 2 .* the nearest is 'resnet-20'"),
        ("resnet-2", {}, "the nearest is 'resnet-8'"),
        ("conv-8", {}, "unknown model 'conv-8'; allowed: conv-2, conv-4, conv-6"),
        ("resnet-20", {"widht": 8}, r"unknown option 'widht' \(model resnet-20\); did you mean 'width'"),
        ("resnet-20", {"depth": 8}, r"unknown option 'depth' \(model resnet-20\); did you mean 'width'"),
        (
            "resnet-20",
            {"width": 8.0},
            r"option 'width' \(model resnet-20\) is 8.0; it must be of type int",
        ),
        ("resnet-20", {"width": True}, "is True; it must be of type int"),
        ("vgg-16", {"width": 0}, "is 0; it must be at least 1"),
        ("lenet-300-100", {"width": 3}, r"unknown option 'width' \(model lenet-300-100\); allowed: bias_init, bn_init"),
    ],
)
def test_what_cannot_be_meant_is_refused(name, options, message):
    with pytest.raises(ConfigError, match=message):
        build(name, input_shape=(3, 32, 32), classes=10, **options)


@pytest.mark.parametrize(
    ("name", "shape", "classes", "message"),
    [
        ("conv-6", (3, 4, 4), 10, "conv-6 takes images of at least 8 x 8; the data have 4 x 4"),
        ("resnet-20", (784,), 10, r"resnet-20 takes images \(channels, height, width\); .* shape \(784,\)"),
        ("vgg-16", (3, 8, 8), 10, "at least 16 x 16"),
        ("lenet-300-100", (), 10, r"input_shape is \(\)"),
        ("lenet-300-100", (1, 0), 10, "input_shape is"),
        ("lenet-300-100", (1, 8), 0, "classes is 0"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(name, shape, classes, message):
    with pytest.raises(ModelError, match=message):
        build(name, input_shape=shape, classes=classes)


@pytest.mark.parametrize("name", ["resnet-8", "conv-6"])
def test_the_smallest_image_is_accepted(name):
    net = build(name, input_shape=(2, 8, 9), classes=3, width=2)
    assert net(torch.randn(2, 2, 8, 9)).shape == (2, 3)
