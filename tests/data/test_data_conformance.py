"""Every registered source, on a tiny one of its kind: shapes, types, the same bytes on a second reading."""

import pytest
import torch
from tiny_sources import BUILD

from sublevel import data
from sublevel.errors import ConfigError


@pytest.fixture(params=data.names())
def case(request, tmp_path):
    assert request.param in BUILD, f"add a tiny {request.param!r} to tiny_sources.BUILD"
    return request.param, *BUILD[request.param](tmp_path)


def test_what_a_source_gives(case):
    name, root, options = case
    dataset = data.load(name, root=root, **options)
    assert dataset.name == name
    for x, y in ((dataset.train_x, dataset.train_y), (dataset.test_x, dataset.test_y)):
        assert len(x) == len(y) > 0
        assert (x.dtype, x.dim()) == ((torch.int64, 2) if name == "tokens" else (torch.uint8, 4))
        assert y.dtype == torch.int64
        assert 0 <= int(y.min()) <= int(y.max()) < len(dataset.classes)
    assert dataset.train_x.shape[1:] == dataset.test_x.shape[1:]
    assert dataset.origin
    assert str(root) not in dataset.origin


def test_a_second_reading_is_the_same(case):
    name, root, options = case
    first, second = (data.load(name, root=root, **options) for _ in range(2))
    for field in ("train_x", "train_y", "test_x", "test_y"):
        assert torch.equal(getattr(first, field)[:], getattr(second, field)[:])
    assert (first.classes, first.origin) == (second.classes, second.origin)
    assert data.split(first).digest == data.split(second).digest


def test_an_unknown_option_is_refused(case):
    name, root, _ = case
    with pytest.raises(ConfigError, match=f"unknown option of data source '{name}'.*'colour'"):
        data.load(name, root=root, colour=True)


def test_an_unknown_name_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match=r"unknown data source 'cifar-10' \(data.name\); did you mean 'cifar10'"):
        data.load("cifar-10")


def test_a_new_source_is_one_decorated_function(monkeypatch):
    from sublevel.data import sources

    monkeypatch.setattr(sources, "_SOURCES", dict(sources._SOURCES))

    @data.source("two-points")
    def two_points(root):
        x, y = torch.tensor([[0.0], [1.0]]), torch.tensor([0, 1])
        return data.Dataset("two-points", x, y, x, y, ("a", "b"), "made up")

    assert "two-points" in data.names()
    assert len(data.load("two-points").train_x) == 2
