"""What users bring is computed as they compute it, or refused with the remedy: data, losses, networks, filters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import sublevel as sl
from networks import kinds
from sublevel.errors import ConfigError, DataError, ModelError
from sublevel.geometry.curvature.subspaces import filter_norms
from sublevel.probes import Probe

pytestmark = pytest.mark.full
X, Y = kinds.VECTORS, kinds.BITS


def problem(net=kinds.perceptron, train=(X, Y), **options):
    return sl.Problem(net, train=train, test=train, validation=0, **options)


class Noisy(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 2)

    def forward(self, x):
        return self.a(F.dropout(x, 0.1))


class Behind(Noisy):
    def forward(self, x):
        x.data -= 1.0
        return self.a(x)


class Complex(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 2, dtype=torch.cfloat))

    def forward(self, x):
        return (torch.fft.rfft(x) @ self.w).abs()


class Hidden(Noisy):
    def forward(self, x):
        return {"hidden": self.a(x)}


class Coupled(Noisy):
    def forward(self, x):
        return self.a(x - x.mean(0))


class Turned(Noisy):
    def __init__(self):
        super().__init__()
        self.inner = nn.LSTM(4, 4)  # without batch_first

    def forward(self, x):
        return self.a(self.inner(x)[0][:, -1])


class Greedy(Noisy):
    """It takes any input by name, and one of them by another way than its signature."""

    def forward(self, x, **others):
        return self.a(x * others["scale"])


def uncounted():
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6, track_running_stats=False), nn.ReLU(), nn.Linear(6, 2))


def mixed():
    return nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2).double())


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (Noisy, r"the network draws random numbers in evaluation mode, .* make it depend on self\.training"),
        (Behind, r"writes into its input by \.data or numpy, .* x = x\.clone\(\)"),
        (Complex, "parameter 'w' of Complex is complex, .* torch.view_as_real"),
        (
            Hidden,
            r"gives a dict of hidden for a batch; expected a tensor, .* \.logits, or a dict with 'logits' or 'out'",
        ),
        (Coupled, "depends on the other examples of its batch, so the loss is no mean over examples"),
        (lambda: kinds.perceptron().bfloat16(), r"half precision \('0.weight' bfloat16\) .* return net\.float\(\)"),
        (mixed, "mixed precision"),
        (lambda: nn.Linear(4, 1), "one output for each label of two classes; take loss='binary-cross-entropy'"),
    ],
)
def test_networks_that_are_refused_where_they_are_first_built(net, message):
    with pytest.raises(ModelError, match=message):
        problem(net).field("train")


def test_a_batch_in_the_place_of_time_is_refused():
    with pytest.raises(ModelError, match=r"depends on the other examples .* without batch_first=True"):
        problem(Turned, (kinds.SERIES, Y)).field("train")


def test_batchnorm_without_running_statistics_has_those_of_its_batch():
    p = problem(uncounted)
    net = p.build(0, "init").eval()
    assert p.field("train").loss(p.point(net)) == pytest.approx(F.cross_entropy(net(X), Y).item(), rel=1e-6)
    parts = [F.cross_entropy(net(X[i : i + 8]), Y[i : i + 8]).item() for i in range(0, len(X), 8)]
    assert p.field("train", batch_size=8).loss(p.point(net)) == pytest.approx(sum(parts) / len(parts), rel=1e-6)


def test_an_input_by_name_that_the_network_ignores_is_named():
    used = {"x": X, "scale": X[:, :1]}
    p = problem(Greedy, (used, Y))
    own = F.cross_entropy(p.build(0, "init")(**used), Y).item()
    assert p.field("train").loss(p.init(0)) == pytest.approx(own, rel=1e-6)
    with pytest.raises(ModelError, match="ignores the input 'weights': leave it out"):
        problem(Greedy, ({**used, "weights": X}, Y)).field("train")


def test_labels_in_other_forms_have_a_remedy():
    for y, match in (
        (F.one_hot(Y, 2), r"give y\.argmax\(1\) if the labels are one-hot"),
        (Y.float(), r"labels of classes are whole numbers: give y\.long\(\)"),
    ):
        with pytest.raises(ModelError, match=match):
            problem(train=(X, y)).field("train")
    with pytest.raises(DataError, match="an example has 3 parts; expected two, the input and the label"):
        _ = problem(train=[(x, y, 0) for x, y in zip(X, Y, strict=True)]).splits


def test_a_network_in_place_of_its_factory_is_copied():
    net = kinds.perceptron()
    p = problem(net)
    truth = F.cross_entropy(net(X), Y).item()
    with torch.no_grad():
        net[0].weight.zero_()
    assert p.field("train").loss(p.init(3)) == pytest.approx(truth, rel=1e-6)
    with pytest.raises(ConfigError, match="a study trains from the fresh weights of every seed"):
        _ = sl.Study(p, levels=1, branches=["imp"]).cells
    with pytest.raises(ConfigError, match="a built network has no options, got width"):
        problem(net, options={"width": 3}).build(0, "init")


@pytest.mark.parametrize(
    ("loss", "own"),
    [
        (nn.CrossEntropyLoss(), F.cross_entropy),
        (nn.CrossEntropyLoss, F.cross_entropy),
        (F.cross_entropy, F.cross_entropy),
        (nn.CrossEntropyLoss(label_smoothing=0.1), lambda z, y: F.cross_entropy(z, y, label_smoothing=0.1)),
        (nn.NLLLoss(), F.nll_loss),
        (nn.MultiMarginLoss(), F.multi_margin_loss),
    ],
)
def test_losses_of_torch(loss, own):
    p = problem(loss=loss)
    at = p.init(0)
    net = p.build(0, "init")
    assert p.field("train", batch_size=7).loss(at) == pytest.approx(own(net(X), Y).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (nn.CrossEntropyLoss(reduction="sum"), "grows with the batch; give reduction='mean'"),
        (nn.CrossEntropyLoss(weight=torch.ones(2)), "is no mean over examples; give reduction='none'"),
        (lambda z, y: F.cross_entropy(z, y), "expected one loss for each example .*reduction='none'"),
    ],
)
def test_losses_that_are_no_mean_over_examples(loss, message):
    with pytest.raises(ModelError, match=message):
        problem(loss=loss).field("train")


IMAGES = torch.randint(0, 256, (12, 6, 6, 3), dtype=torch.uint8)
LABELS = (torch.arange(12) % 2).tolist()


class Dicts(torch.utils.data.Dataset):
    def __len__(self):
        return len(X)

    def __getitem__(self, i):
        return {"features": X[i], "label": int(Y[i])}


def test_the_same_data_in_every_form():
    first = sl.Problem(kinds.perceptron, train=(X, Y), test=(X, Y)).splits.digest
    loader = torch.utils.data.DataLoader(Dicts(), batch_size=5)
    for train in (
        (X, Y.tolist()), (X.numpy(), Y[:, None].numpy()), Dicts(), loader, {"x": X, "y": Y.tolist()},
    ):  # fmt: skip
        assert sl.Problem(kinds.perceptron, train=train, test=train).splits.digest == first


def test_images_get_their_channels_first():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(108, 2))
    p = problem(flat, (IMAGES.numpy(), LABELS))
    assert torch.equal(p.splits.train.x, IMAGES.permute(0, 3, 1, 2))
    grey = problem(nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), (IMAGES[..., 0], np.array(LABELS)))
    assert tuple(grey.splits.train.x.shape) == (12, 1, 6, 6)
    small = torch.zeros(12, 3, 6, 3, dtype=torch.uint8)
    with pytest.raises(DataError, match="since the shape does not tell which axis C is"):
        _ = problem(flat, (small, LABELS)).splits
    with pytest.raises(ModelError, match="are the channels last"):
        problem(lambda: nn.Sequential(nn.Conv2d(3, 2, 3)), (IMAGES.float(), LABELS)).field("train")


def test_what_no_network_takes_is_named():
    texts = [{"text": "a word", "label": 1}, {"text": "another", "label": 0}]
    with pytest.raises(DataError, match="'text' of an example is text"):
        _ = problem(train=texts).splits
    with pytest.raises(DataError, match="it needs inputs, and the label under one of labels, label"):
        _ = problem(train=[{"x": X[0]}, {"x": X[1]}]).splits
    with pytest.raises(DataError, match="and -100 for labels that do not count"):
        _ = problem(train=(X, torch.where(Y == 0, -1, Y))).splits


def test_ignored_labels_count_nowhere():
    y = torch.where(torch.arange(len(Y)) % 3 == 0, -100, Y)
    p = problem(train=(X, y))
    net, field, at = p.build(0, "init"), p.field("train", batch_size=5), p.init(0)
    assert field.loss(at) == pytest.approx(F.cross_entropy(net(X), y).item(), rel=1e-6)
    counts = y != -100
    assert field.evaluate(at).error == pytest.approx((net(X).argmax(1) != y)[counts].double().mean().item())


def test_float64_data_are_kept_where_that_is_computed_in():
    fine = 1.0 + 1e-12 * torch.arange(24, dtype=torch.float64)[:, None] * torch.ones(4, dtype=torch.float64)
    assert len(problem(train=(fine, Y), dtype="float64").splits.train.x.unique()) == 24
    assert problem(train=(fine, Y)).splits.train.x.dtype == torch.float32
    y = fine[:, 0]
    assert (
        problem(lambda: nn.Linear(4, 1), (fine, y), loss="mse", dtype="float64").splits.train.y.dtype == torch.float64
    )


@pytest.mark.parametrize("groups", [1, 2])
def test_filters_of_a_transposed_convolution_are_its_output_channels(groups):
    torch.manual_seed(1)
    layer = nn.ConvTranspose2d(4, 6, 3, groups=groups, bias=False)
    space = sl.Space.of(layer)
    dead = 6 // groups + 1 if groups > 1 else 4
    mask = torch.ones_like(layer.weight, dtype=torch.bool)
    group, inside = divmod(dead, 6 // groups)
    mask[group * 4 // groups : (group + 1) * 4 // groups, inside] = False
    assert torch.equal(space.dead(mask.reshape(-1)).view_as(mask), ~mask)
    scale = torch.rand(6) + 0.5
    before = filter_norms(space, space.point(layer)).view_as(layer.weight)
    with torch.no_grad():
        by_group = layer.weight.view(groups, 4 // groups, 6 // groups, 3, 3)
        by_group.mul_(scale.view(groups, 1, 6 // groups, 1, 1))
    after = filter_norms(space, space.point(layer)).view_as(layer.weight)
    ratio = (after / before).view(groups, 4 // groups, 6 // groups, 3, 3)
    torch.testing.assert_close(ratio, scale.view(groups, 1, 6 // groups, 1, 1).expand_as(ratio))
    assert space.layers[0].fan_in == 4 // groups * 9


def test_matching_gives_back_the_same_function_or_nothing():
    for net in (kinds.Residual, kinds.lstm):
        p = problem(net, (kinds.SERIES if net is kinds.lstm else X, Y))
        with pytest.raises(ModelError, match="declare"):
            sl.paths.weight_matching(p.space, p.init(0), p.init(1))
    p = problem()
    a, b, field = p.init(0), p.init(1), p.field("train")
    assert field.loss(sl.paths.weight_matching(p.space, a, b).point) == pytest.approx(field.loss(b), rel=1e-5)
    assert isinstance(p.space.probe, Probe)


def test_what_is_prunable_is_said():
    p = problem(kinds.lstm, (kinds.SERIES, Y))
    assert "12 of 302 trainable parameters are prunable (LSTM 0 of 288, Linear 12 of 14)" in repr(p)
    study = sl.Study(p, levels=1, branches=["imp"])
    assert any(note.startswith("only 12 of 302") and "matrices" in note for note in study.notes())
    assert not any("prunable" in note for note in sl.Study(problem(), levels=1, branches=["imp"]).notes())
    unused = sl.Study(problem(kinds.Unused), levels=1, branches=["imp"]).notes()
    assert any("does not depend on aux.weight, aux.bias" in note for note in unused)
    whole = problem(kinds.lstm, (kinds.SERIES, Y), prunable="matrices").space
    assert int(whole.prunable.sum()) == 4 * 6 * (4 + 6) + 12
