"""A user's own network, data and loss, joined: what is taken, what is refused and how it is named."""

from __future__ import annotations

import functools
import json
import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import own_net
from sublevel.errors import ConfigError, DataError, ModelError, SublevelError
from sublevel.problem import Problem, importable
from sublevel.problem.spec import ProblemSpec
from sublevel.space import Point
from sublevel.study.study import Study


def samples(n, seed, classes=3):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(n, 6, generator=rng), torch.randint(0, classes, (n,), generator=rng)


def own(**changes):
    given = {"model": own_net.build, "train": samples(60, 0), "test": samples(20, 1), "validation": 10}
    return Problem(**(given | changes))


class Pairs(torch.utils.data.Dataset):
    def __init__(self, n, seed, noise=0.0):
        self.x, self.y = samples(n, seed)
        self.noise = noise

    def __len__(self):
        return len(self.x)

    def __getitem__(self, i):
        return self.x[i] + self.noise * torch.rand(6), int(self.y[i])


def test_tensors_and_a_factory():
    problem = own(options={"width": 5})
    assert problem.space.dim == 6 * 5 + 5 + 5 * 3 + 3
    assert [len(problem.part(s)) for s in ("train", "validation", "test")] == [50, 10, 20]
    assert problem.splits.classes == ("0", "1", "2")
    field = problem.field("test")
    at = problem.init(0)
    x, y = samples(20, 1)
    outputs = problem.space.call(problem.module.eval(), at.theta, at.buffers, x)
    want = nn.functional.cross_entropy(outputs, y)
    assert field.loss(at) == pytest.approx(float(want.detach()), rel=1e-6)
    assert field.evaluate(at).examples == 20


def test_a_dataset_is_the_tensors_it_gives():
    by_tensor, by_item = own(), own(train=Pairs(60, 0), test=Pairs(20, 1))
    assert by_item.splits.digest == by_tensor.splits.digest
    listed = [(x, int(y)) for x, y in zip(*samples(60, 0), strict=True)]
    assert own(train=listed).splits.digest == by_tensor.splits.digest


def test_a_dataset_that_reads_differently_twice_is_refused():
    with pytest.raises(DataError, match="two readings of the train data differ"):
        own(train=Pairs(60, 0, noise=0.1)).splits
    with pytest.raises(DataError, match="two readings of the test data differ"):
        own(test=Pairs(20, 1, noise=1e-6)).splits


class Batches:
    """What a DataLoader is: batches, the last one smaller, every time from the start."""

    def __init__(self, n, seed, again=None):
        self.pair, self.ends, self.read = samples(n, seed), (n, n if again is None else again), 0

    def __iter__(self):
        end = self.ends[self.read % 2]
        self.read += 1
        return ((self.pair[0][i : i + 7][: end - i], self.pair[1][i : i + 7][: end - i]) for i in range(0, end, 7))


def test_an_iterable_of_batches_is_the_tensors_it_gives():
    loader = torch.utils.data.DataLoader(Pairs(60, 0), batch_size=7)
    assert own(train=loader, test=Batches(20, 1)).splits.digest == own().splits.digest


def test_an_iterable_that_gives_other_batches_the_second_time_is_refused():
    with pytest.raises(DataError, match="two readings of the train data differ: 60 examples, then 30"):
        own(train=Batches(60, 0, again=30)).splits
    shuffled = torch.utils.data.DataLoader(Pairs(60, 0), batch_size=7, shuffle=True)
    with pytest.raises(DataError, match="two readings of the train data differ: remove shuffling"):
        own(train=shuffled).splits
    with pytest.raises(DataError, match=r"train data must give pairs.*there is no batch"):
        own(train=Batches(0, 0)).splits


def test_arrays_are_taken_as_tensors_are():
    arrays = tuple(t.numpy() for t in samples(60, 0))
    assert own(train=arrays).splits.digest == own().splits.digest


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (iter([1]), "train data must be a pair of tensors .*; got list_iterator that can be read once"),
        (3, "train data must be a pair of tensors or arrays, a map-style Dataset, or an iterable .*; got int"),
        ([(torch.zeros(6), 0), (torch.zeros(5), 0)], "train data must give pairs .*one shape"),
        ([torch.zeros(6), torch.zeros(6)], "train data must give pairs"),
        ([(torch.zeros(6), 0, "extra")], "train data must give pairs"),
        ((torch.zeros(4, 6), torch.tensor([0, 1, 2, -1])), "label -1 at index 3"),
        ((torch.zeros(4, 6), torch.tensor([0, 1, 2])), "4 samples but 3 labels"),
        ((torch.full((4, 6), float("nan")), torch.tensor([0, 1, 2, 0])), "sample 0 .*not finite"),
    ],
)
def test_data_that_are_none_are_refused(train, message):
    with pytest.raises(DataError, match=message):
        own(train=train).splits


def test_one_of_two_parts_is_refused():
    with pytest.raises(DataError, match="need both train and test"):
        own(test=None).splits


def test_an_output_that_does_not_fit_the_labels():
    with pytest.raises(ModelError, match=r"own_net:build gives outputs of shape \[7\].*3 classes; expected \[3\]"):
        own(options={"outputs": 7}).space
    with pytest.raises(ModelError, match=r"fails on inputs of shape \[6\]"):
        own(model=lambda: nn.Linear(5, 3)).space


def test_regression():
    x = torch.randn(40, 6)
    for y, outputs in ((x.sum(1), 1), (x[:, :2] * 2, 2)):
        problem = own(train=(x, y), test=(x[:9], y[:9]), loss="squared", options={"outputs": outputs})
        at = problem.init(0)
        got = problem.field("test").evaluate(at)
        z = problem.space.call(problem.module, at.theta, {}, x[:9])
        assert got.loss == pytest.approx(
            float(((z.squeeze(1) if outputs == 1 else z) - y[:9]).square().mean() / 2), rel=1e-5
        )
        assert got.error != got.error
        assert problem.splits.classes == ()


def test_regression_does_not_broadcast():
    x = torch.randn(40, 6)
    with pytest.raises(ModelError, match=r"outputs of shape \[3\] for one example, but its target has shape \[\]"):
        own(train=(x, x.sum(1)), test=(x, x.sum(1)), loss="squared").space


def test_squared_loss_on_class_labels_is_refused():
    with pytest.raises(ModelError, match=r"expected one output for each label; for regression give y.float\(\)"):
        own(loss="squared")


def test_the_same_seed_is_the_same_point_and_the_global_generator_is_not_touched():
    problem = own()
    state = torch.get_rng_state()
    one, two, other = problem.init(0), problem.init(0), problem.init(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.theta, two.theta)
    assert not torch.equal(one.theta, other.theta)
    assert not torch.equal(problem.init(0, "init:again").theta, one.theta)


def test_in_double_precision():
    problem = own().on("cpu", "float64")
    at = problem.init(0)
    assert at.theta.dtype == torch.float64
    torch.testing.assert_close(at.theta, own().init(0).theta.double())
    assert problem.field().grad(at).dtype == torch.float64


def test_a_subset_is_stratified_and_fixed():
    x, _ = samples(300, 0)
    y = torch.tensor([0] * 150 + [1] * 100 + [2] * 50)
    problem = own(train=(x, y), validation=0)
    part = problem.part("train", 60)
    assert torch.bincount(part.y).tolist() == [30, 20, 10]
    again = own(train=(x, y), validation=0).part("train", 60)
    assert torch.equal(part.x, again.x)
    assert torch.equal(part.y, again.y)
    assert problem.part("train", 300) is problem.part("train")
    assert len(problem.part("train", 10**6)) == 300
    assert len(problem.field("train", size=60).x) == 60


def test_recomputed_statistics_of_the_test_field_come_from_training_examples():
    def build():
        return nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))

    problem = own(model=build)
    at = problem.init(0)
    settled = problem.field("test", policy="recomputed").settle(at)
    views = problem.space.views(at.theta)
    first = problem.part("train").x @ views["0.weight"].T + views["0.bias"]
    torch.testing.assert_close(settled.buffers["1.running_mean"], first.mean(0), rtol=1e-5, atol=1e-6)


# --- Names for the store.


def test_the_fingerprint_is_stable_and_sees_what_matters():
    one = own().fingerprint()
    assert one == own().fingerprint() == own(device="cpu").fingerprint()
    assert json.loads(json.dumps(one)) == one
    differing = [
        own(train=samples(60, 5)),
        own(validation=11),
        own(options={"width": 5}),
        own(version="2"),
        own(prunable=lambda name, owner, parameter: name == "0.weight"),
    ]
    texts = {json.dumps(p.fingerprint(), sort_keys=True) for p in [own(), *differing]}
    assert len(texts) == 6
    x = torch.randn(30, 6)
    squared = {"train": (x, x[:, :3]), "test": (x, x[:, :3]), "loss": "squared"}
    assert own(**squared).fingerprint()["loss"] == "squared"


def test_code_without_source_has_no_fingerprint_unless_it_has_a_version():
    scope: dict = {"nn": nn}
    exec("def build():\n    return nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3))", scope)
    assert own(model=scope["build"]).fingerprint() is None
    assert own(model=scope["build"], version="1").fingerprint() is not None


def test_a_loss_that_is_a_function_is_known_by_its_source_and_is_not_portable():
    problem = own(loss=lambda outputs, targets: outputs.square().sum(1))
    other = own(loss=lambda outputs, targets: outputs.square().mean(1))
    assert problem.fingerprint() is not None
    assert problem.fingerprint() == problem.fingerprint() != other.fingerprint()
    scope: dict = {}
    exec("def loss(outputs, targets):\n    return outputs.square().sum(1)", scope)
    assert own(loss=scope["loss"]).fingerprint() is None
    assert own(loss=scope["loss"], version="1").fingerprint() is not None
    assert not problem.portable
    assert problem.field().loss(problem.init(0)) > 0


def test_what_another_process_finds():
    assert importable("my.nets:tiny")
    assert not importable("__main__:tiny")
    assert importable(own_net.build)
    assert not importable(own_net.Holder.nested)
    assert not importable(lambda: nn.Linear(6, 3))
    assert not importable(functools.partial(own_net.build, width=3))
    assert own().portable
    assert not own(prunable=lambda *_: True).portable
    assert own(prunable=["0.weight"]).portable


def test_a_problem_comes_back_from_its_spec():
    problem = own(options={"width": 5}, train_size=40, version="3", prunable="0.weight", mean=None)
    stored = {"d1": problem.own_tensors()}
    document = json.loads(json.dumps(problem.spec(stored="d1").document()))
    again = Problem.of(ProblemSpec.of(document), stored.__getitem__)
    assert again.model == "own_net:build"
    assert again.splits.digest == problem.splits.digest
    assert again.fingerprint() == problem.fingerprint()
    assert torch.equal(again.init(2).theta, problem.init(2).theta)


def test_the_spec_of_named_data_needs_no_tensors():
    problem = Problem("lenet-300-100", train_size=100, test_size=50, root=".")
    assert problem.own_tensors() is None
    again = Problem.of(ProblemSpec.of(json.loads(json.dumps(problem.spec().document()))))
    assert again.fingerprint() == problem.fingerprint()


def test_the_flat_form_of_earlier_runs_is_read():
    rest = {"validation": 10, "train_size": 40, "test_size": None, "mean": None, "std": None, "data_options": {},
            "options": {"width": 5}, "loss": "cross-entropy", "loop": None, "version": "3", "device": "cpu",
            "dtype": "float32"}  # fmt: skip
    flat = {**rest, "model": "own_net:build", "prunable": ["0.weight"], "data": {"object": "d1"}}
    problem = own(options={"width": 5}, train_size=40, version="3", prunable=["0.weight"])
    assert ProblemSpec.of(flat) == problem.spec(stored="d1")
    named = ProblemSpec.of({**flat, "model": "lenet-300-100", "data": {"name": "mnist", "root": "/data"}})
    assert (named.data.name, named.data.root, named.stored) == ("mnist", "/data", None)


def test_unknown_names_are_refused():
    with pytest.raises(ConfigError, match="unknown model 'lenet-300'"):
        Problem("lenet-300").space
    with pytest.raises(ConfigError, match="unknown loss 'mae'"):
        own(loss="mae").field()
    with pytest.raises(ConfigError, match="unknown option 'depth'"):
        own(options={"depth": 3}).space


def test_the_field_is_a_function_of_points_alone():
    problem = own()
    at = problem.init(0)
    before = problem.field().loss(at)
    problem.space.write(problem.module, Point(at.theta * 0))
    assert problem.field().loss(at) == before


def test_weights_that_a_factory_reads_are_part_of_the_fingerprint(tmp_path):
    """The same code, other weights: other results."""
    from safetensors.torch import load_file, save_file

    def pretrained():
        net = own_net.build()
        net.load_state_dict(load_file(tmp_path / "weights.safetensors"))
        return net

    prints = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        save_file(own_net.build().state_dict(), tmp_path / "weights.safetensors")
        prints.append(own(model=pretrained, version="1").fingerprint())
    assert prints[0]["values"] != prints[1]["values"]
    assert prints[0]["model"] == prints[1]["model"]


def test_a_factory_that_draws_elsewhere_is_refused():
    def foreign():
        net = own_net.build()
        nn.init.constant_(net[0].bias, float(np.random.default_rng().random()))
        return net

    with pytest.raises(ModelError, match=r"two builds of model .* from one seed differ"):
        own(model=foreign, version="1").fingerprint()


def test_a_loss_that_does_not_take_the_labels_is_refused_before_anything_runs():
    x, y = samples(60, 0)
    real = {"train": (x, torch.randn(60, 3)), "test": (x[:20], torch.randn(20, 3))}
    assert own(**real, loss="squared").space.dim
    with pytest.raises(ModelError, match=r"outputs of shape|does not take"):
        own(train=(x, torch.randn(60)), test=(x[:20], torch.randn(20)), loss="cross-entropy").space
    with pytest.raises(ModelError):
        own(train=(x, y), test=(x[:20], y[:20]), loss="squared").space


@pytest.mark.parametrize("name", ["meta", "mps", "cpu:0", "cuda:x", "gpu", ""])
def test_a_device_that_numbers_are_not_computed_on_is_refused(name) -> None:
    said = f"device must be auto, cpu, cuda or cuda:N, got {name!r}"
    with pytest.raises(ConfigError, match=re.escape(said)):
        Problem("lenet-300-100", device=name)
    with pytest.raises(ConfigError, match=re.escape(said)):
        Study("demo", device=name)


X, Y = samples(30, 0)
IMAGES = torch.rand(30, 3, 8, 8)


def dense(outputs=3, inputs=6):
    return nn.Linear(inputs, outputs)


def convolution(channels=3):
    return nn.Sequential(nn.Conv2d(channels, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Changed(nn.Module):
    """A dense network whose output goes through a function."""

    def __init__(self, change):
        super().__init__()
        self.inner, self.change = dense(), change

    def forward(self, x):
        return self.change(self.inner(x))


@pytest.mark.parametrize(
    ("model", "x", "y", "loss", "message"),
    [
        (dense(), X, Y + 1, "cross-entropy", "no label is 0, and classes are numbered from 0: give y - 1"),
        (dense(2), X, Y, "cross-entropy", r"expected \[3\]; give a network with 3 outputs, or leave other labels out"),
        (dense(10), X, Y, "cross-entropy", r"classes that these data lack, give data_options={'classes': 10}"),
        (dense(), X, Y[:, None].repeat(1, 2), "cross-entropy", "shape .2. for one example: give one label"),
        (dense(), X, Y * 0, "cross-entropy", "every label is 0, and at least two classes are needed"),
        (dense(), X, ["a", "b", "c"] * 10, "cross-entropy", "the labels are text; number the classes 0, 1"),
        (dense(), X, Y.to(torch.complex64), "cross-entropy", "labels are torch.complex64"),
        (dense(), X, torch.tensor(1), "cross-entropy", "expected one label for each example"),
        (dense(), X, Y.float()[:, None], "cross-entropy", r"whole numbers: give y.flatten\(\).long\(\)"),
        (dense(1), X, X[:, :1].sigmoid(), "cross-entropy", "the cross-entropy of one class is always 0"),
        (dense(), X, X[:, :3], "cross-entropy", "probabilities from 0 to 1, got .*; for regression give loss='mse'"),
        (dense(1), X, X[:, 0].sign(), nn.BCEWithLogitsLoss(), "probabilities from 0 to 1"),
        (dense(2), X, Y % 2, "binary-cross-entropy", "one output for each; for classes take cross-entropy"),
        (dense(2), X, F.one_hot(Y, 3), "cross-entropy", r"take loss='binary-cross-entropy'.*one-hot, give y.argmax"),
        (dense(), X, Y, "mse", r"for regression give y.float\(\), for classes as targets F.one_hot\(y, 3\)"),
        (dense(3), X, X[:, 0], "mse", r"its target has shape \[\]; give a network with 1 output$"),
        (dense(), X, Y, None, "loss is None; give a name"),
        (dense(), X[:, :5], Y, "cross-entropy", "the layer takes 6 numbers: give such inputs, or a network for .5."),
        (dense(), X.view(30, 2, 3), Y, "cross-entropy", r"the layer takes 6 numbers|give x.flatten\(1\)"),
        (dense(), X[:, 0], Y, "cross-entropy", r"give numbers \[N\] as x\[:, None\]"),
        (dense(), X.long(), Y, "cross-entropy", r"whole numbers count as tokens: give x.float\(\)"),
        (dense(), X.byte(), Y, "cross-entropy", r"give tokens as x.long\(\), measurements as x.float\(\)"),
        (dense(inputs=3), X.view(30, 2, 3), Y, "cross-entropy", r"answers for each of \[2\] places: give x.flatten"),
        (convolution(), (255 * IMAGES).int(), Y, "cross-entropy", r"give x.to\(torch.uint8\) for images of 8 bits"),
        (convolution(), IMAGES[:, :1], Y, "cross-entropy", r"in layer '0'.*for grey .* x.expand\(-1, 3, -1, -1\)"),
        (convolution(1), IMAGES[:, 0], Y, "cross-entropy", r"an axis of channels: x\[:, None\]"),
        (convolution(), IMAGES.movedim(1, 3), Y, "cross-entropy", r"give x.permute\(0, 3, 1, 2\)"),
        (Changed(lambda z: z.detach()), X, Y, "cross-entropy", "no gradient with respect to the weights"),
        (Changed(lambda z: z.sum()), X, Y, "cross-entropy", r"output of shape \[\] for 30 examples"),
        (torch.jit.trace(dense(), X), X, Y, "cross-entropy", "give the network of Python that was scripted"),
        (nn.Linear(6, 3, device="meta"), X, Y, "cross-entropy", r"weight has no values .* give a network with weights"),
        (dense().state_dict(), X, Y, "cross-entropy", "the network is of type OrderedDict; give a network"),
    ],
)  # fmt: skip
def test_parts_that_do_not_fit_are_refused_at_once_with_the_remedy(model, x, y, loss, message):
    with pytest.raises(SublevelError, match=message):
        Problem(model, train=(x, y), test=(x, y), validation=0, loss=loss)


def test_a_network_may_know_classes_that_the_data_lack():
    problem = Problem(
        own_net.build, train=(X, Y), test=(X, Y), validation=0, options={"outputs": 10}, data_options={"classes": 10}
    )
    at = problem.init(0)
    truth = F.cross_entropy(problem.build(0, "init")(X), Y).item()
    assert problem.field("train").loss(at) == pytest.approx(truth, rel=1e-6)
    again = Problem.of(problem.spec("stored"), lambda digest: problem.own_tensors())
    assert (again.splits.classes, again.space.dim) == (problem.splits.classes, problem.space.dim)
    with pytest.raises(ConfigError, match=r"unknown option of own data: 'clases'.*did you mean 'classes'"):
        own(data_options={"clases": 10})


@pytest.mark.parametrize(
    ("y", "loss", "own"),
    [
        (X[:, :5].sigmoid(), "binary-cross-entropy", F.binary_cross_entropy_with_logits),
        ((X[:, :5] > 0).float(), nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits),
        ((X[:, :5] > 0).long(), nn.BCEWithLogitsLoss(), lambda z, y: F.binary_cross_entropy_with_logits(z, y.float())),
        (X[:, :5].softmax(1), "cross-entropy", F.cross_entropy),
        (X[:, :5], "mse", F.mse_loss),
        (X[:, :5].softmax(1), nn.KLDivLoss(reduction="batchmean"), nn.KLDivLoss(reduction="batchmean")),
        ((X[:, 0] > 0).long(), "binary-cross-entropy",
         lambda z, y: F.binary_cross_entropy_with_logits(z[:, 0], y.float())),
    ],
)  # fmt: skip
def test_a_factory_that_asks_for_classes_gets_the_outputs_that_the_loss_needs(y, loss, own):
    def factory(classes: int) -> nn.Module:
        return nn.Linear(6, classes)

    problem = Problem(factory, train=(X, y), test=(X, y), validation=0, loss=loss)
    at = problem.init(0)
    assert problem.space.dim == 7 * (y.shape[1] if y.ndim > 1 else 1)
    assert problem.field("train").loss(at) == pytest.approx(own(problem.build(0, "init")(X), y).item(), rel=1e-6)


@pytest.mark.parametrize("wrap", [nn.DataParallel, pytest.param(torch.compile, marks=pytest.mark.full)])
def test_a_wrapper_of_a_network_is_removed(wrap):
    wrapped = wrap(net := dense())
    problem = Problem(wrapped, train=(X, tuple(Y.tolist())), test=(X, Y), validation=0)
    assert [layer.name for layer in problem.space.layers] == ["weight", "bias"]
    truth = F.cross_entropy(net(X), Y).item()
    assert problem.field("train").loss(problem.point(wrapped)) == pytest.approx(truth, rel=1e-6)


def test_a_loss_without_a_second_derivative_says_so():
    problem = Problem(dense(), train=(X, Y), test=(X, Y), validation=0, loss=nn.MultiMarginLoss())
    field, at = problem.field("train"), problem.init(0)
    assert float(field.grad(at).norm()) > 0
    with pytest.raises(
        ModelError, match=r"no second derivative of multi_margin_loss, .* leave out what needs curvature"
    ):
        field.hvp(at, at.theta)
