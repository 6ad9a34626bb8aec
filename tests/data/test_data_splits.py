"""Splits: exact counts in proportion, exact moments, a digest that sees every byte."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sublevel.data import Dataset, Part, split
from sublevel.data.splits import moments, stratified
from sublevel.errors import DataError
from sublevel.rng import generator


def made(n=100, classes=4):
    x = torch.randint(0, 256, (n, 3, 4, 4), generator=generator(0, "test"), dtype=torch.uint8)
    x[:, 0, 0, 0] = torch.arange(n)
    y = torch.arange(n) % classes
    return Dataset("made", x, y, x[:40], y[:40], tuple("abcdefgh"[:classes]), "made up")


def test_known_quotas():
    y = torch.tensor([0] * 5 + [1] * 3 + [2] * 2)
    chosen = stratified(y, 4, generator(0, "split"))  # shares 2.0, 1.2, 0.8
    assert torch.bincount(y[chosen], minlength=3).tolist() == [2, 1, 1]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=60), st.data())
def test_exact_total_and_no_class_off_by_one(labels, data):
    y = torch.tensor(labels)
    count = data.draw(st.integers(0, len(labels)))
    chosen = stratified(y, count, generator(0, "split"))
    assert int(chosen.sum()) == count
    shares = torch.bincount(y) * count / len(y)
    assert ((torch.bincount(y[chosen], minlength=len(shares)) - shares).abs() < 1).all()


@pytest.mark.parametrize(("validation", "count"), [(0, 0), (0.0, 0), (20, 20), (0.2, 20), (99, 99)])
def test_parts_are_disjoint_complete_and_in_order(validation, count):
    parts = split(made(), validation=validation)
    marks = [part.x[:, 0, 0, 0].tolist() for part in (parts.train, parts.validation)]
    assert len(parts.validation) == count
    assert sorted(marks[0] + marks[1]) == list(range(100))
    assert all(mark == sorted(mark) for mark in marks)
    assert parts.input_shape == (3, 4, 4)


def test_labels_stay_with_their_samples_and_shares_are_kept():
    parts = split(made(), validation=20, train_size=40, test_size=8)
    for part, each in ((parts.train, 10), (parts.validation, 5), (parts.test, 2)):
        assert torch.equal(part.y, part.x[:, 0, 0, 0].long() % 4)
        assert torch.bincount(part.y).tolist() == [each] * 4


def test_train_size_does_not_move_the_validation_part():
    a, b = split(made()), split(made(), train_size=10)
    assert torch.equal(a.validation.x, b.validation.x)


def test_float_targets_are_split_too():
    dataset = replace(made(), train_y=torch.rand(100), test_y=torch.rand(40), classes=())
    parts = split(dataset, validation=30, train_size=50)
    assert (len(parts.train), len(parts.validation)) == (50, 30)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation": 100}, "validation is 100 with 100 training samples .* allowed: 0 to 99"),
        ({"validation": 1.0}, "validation is 1.0 with"),
        ({"validation": -0.1}, "validation is -0.1 with"),
        ({"validation": True}, "validation is True with"),
        ({"validation": 10, "train_size": 91}, "train_size is 91 .*1 to 90.*after 10 of 100 were held out"),
        ({"train_size": 0}, "train_size is 0"),
        ({"test_size": 41}, r"test_size is 41 \(data.test_size\); allowed: 1 to 40"),
    ],
)
def test_impossible_sizes(options, message):
    with pytest.raises(DataError, match=message):
        split(made(), **options)


def test_known_moments_and_a_constant_channel():
    x = torch.zeros(2, 2, 1, 2, dtype=torch.uint8)
    x[0, 0], x[:, 1] = 255, 51
    mean, std = moments(x)
    assert mean == (0.5, 0.2)
    assert std == (0.5, 1.0)


def test_moments_agree_with_torch_in_float64():
    x = made().train_x
    slow = (x.double() / 255).transpose(0, 1).reshape(3, -1)
    mean, std = moments(x)
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), slow.mean(1), rtol=1e-14, atol=0)
    torch.testing.assert_close(torch.tensor(std, dtype=torch.float64), slow.std(1, correction=0), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_prepare_is_the_formula(dtype, tolerance):
    parts = split(made())
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (parts.mean, parts.std))
    slow = (parts.train.x.double() / 255 - mean) / std
    fast = parts.prepare(parts.train.x, dtype)
    assert fast.dtype == dtype
    torch.testing.assert_close(fast.double(), slow, rtol=0, atol=tolerance)


def test_floats_pass_unchanged():
    x = torch.rand(10, 3)
    y = torch.arange(10) % 2
    parts = split(Dataset("f", x, y, x, y, ("a", "b"), ""), validation=2)
    assert (parts.mean, parts.std) == ((), ())
    assert torch.equal(parts.prepare(parts.train.x), parts.train.x)


def test_digest_sees_every_part_and_survives_a_move():
    parts = split(made(), validation=10)
    assert parts.digest == split(made(), validation=10).digest == parts.to("cpu").digest
    seen = {parts.digest, split(made(), validation=11).digest, replace(parts, mean=(0.0, 0.0, 0.0)).digest}
    for name in ("train", "validation", "test"):
        part = getattr(parts, name)
        x, y = part.x.clone(), part.y.clone()
        x[-1, -1, -1, -1] ^= 1
        y[-1] ^= 1
        seen |= {replace(parts, **{name: changed}).digest for changed in (Part(x, part.y), Part(part.x, y))}
    assert len(seen) == 9
