"""Data as people hold them in Python: the same data set, or one sentence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from sublevel.data import own
from sublevel.errors import DataError

X, Y = torch.arange(24.0).view(6, 4) / 7, torch.arange(6) % 3


@pytest.mark.parametrize(
    "given",
    [
        (X.tolist(), Y.tolist()),
        (tuple(map(tuple, X.tolist())), tuple(Y.tolist())),
        (X.tolist(), Y),
        (list(X), Y),
        (list(X.numpy()), Y.tolist()),
        (list(X), list(Y)),
        (pd.DataFrame(X.numpy()), pd.Series(Y.numpy())),
        list(zip(X, Y, strict=True)),
        {"x": X, "y": Y},
        DataLoader(TensorDataset(X, Y), batch_size=4),
    ],
    ids=[
        *("lists", "tuples", "list and tensor", "list of tensors", "list of arrays", "lists of tensors"),
        *("frame", "list of pairs", "dict", "loader"),
    ],
)  # fmt: skip
def test_every_form_is_the_same_data(given):
    found = own.dataset(given, (X, Y))
    torch.testing.assert_close(found.train_x, X, rtol=0, atol=0)
    assert torch.equal(found.train_y, Y)


@pytest.mark.parametrize("n", [2, 4])
def test_as_many_examples_as_a_pair_or_an_example_has_parts(n):
    """Where lengths agree by chance, a list of rows stays rows, and tensors with a row per example stay inputs."""
    x, y = torch.randn(n, 4), torch.arange(n) % 2
    assert torch.equal(own.dataset((x.tolist(), y.tolist()), (x, y)).train_x, x)
    assert torch.equal(own.dataset(tuple(zip(x, y, strict=True)), (x, y)).train_x, x)
    two = own.dataset(([x[:, :2]] * 2, y), ([x[:, :2]] * 2, y))
    assert two.layout is not None
    assert len(two.layout.unpack(two.train_x)) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((X.to_sparse(), Y), r"train data must be numbers: a tensor is sparse; give a dense one \(x.to_dense\(\)\)"),
        ((torch.nested.nested_tensor(list(X), layout=torch.jagged), Y), "a tensor is nested"),
        ((X.to("meta"), Y), "a tensor is without values"),
        ((np.array(X.tolist(), dtype=object), Y), r"an array holds objects; convert it by x.astype\('float32'\)"),
        (TensorDataset(X.to(torch.complex64), Y), "train data must be numbers: inputs are torch.complex64"),
        ((X.tolist(), ["a", "b"] * 3), "the labels are text; number the classes 0, 1"),
        (([[1.0, 2.0], [1.0]], [0, 1]), "the inputs have rows of different lengths"),
        ((X, [None] * 6), "train data must be numbers: "),
        ((X, Y.float()), "the train labels are real numbers, the test labels classes; they must be alike"),
        (X, r"an example is one array; give the data as a pair \(inputs, labels\)"),
        ((X, Y, Y), r"give the data as a pair \(inputs, labels\)"),
        ("data", "must be a pair of tensors or arrays, .* got str"),
        (iter([(X, Y)]), "got list_iterator that can be read once"),
    ],
)
def test_what_cannot_be_taken_is_one_sentence(given, message):
    with pytest.raises(DataError, match=message):
        own.dataset(given, (X, Y))
