"""Several inputs and tokens: packed and read back bit by bit, by every way that data are given, and refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, StackDataset, TensorDataset
from torch.utils.data import Dataset as TorchDataset

from sublevel.data import load, own, split
from sublevel.data.packing import pack
from sublevel.errors import DataError
from sublevel.inputs import tensors_of

IMAGE = torch.arange(6 * 12).to(torch.uint8).view(6, 3, 2, 2)
TOKENS = torch.arange(6 * 5).view(6, 5) - 7
SEEN = torch.arange(6 * 5).view(6, 5) % 3 == 0
REAL = torch.linspace(-1, 1, 6)
Y = torch.arange(6) % 2


@pytest.mark.parametrize(
    "inputs", [(IMAGE, TOKENS, SEEN, REAL), {"tokens": TOKENS, "image": IMAGE, "seen": SEEN, "real": REAL}]
)
def test_rows_of_bytes_give_back_every_bit_in_any_order_of_examples(inputs):
    rows, layout = pack(inputs)
    assert rows.shape == (6, 12 + 5 * 8 + 5 + 4)
    order = torch.tensor([4, 0, 4])
    again = layout.inputs(layout.unpack(rows[order]))
    assert type(again) is type(inputs)
    for one, two in zip(tensors_of(again), tensors_of(inputs), strict=True):
        assert one.dtype == two.dtype
        assert torch.equal(one, two[order])


def test_one_input_is_left_as_it_is():
    assert pack(IMAGE) == (IMAGE, None)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((TOKENS, IMAGE[:5]), "the inputs have 6, 5 examples"),
        ((TOKENS, torch.zeros(6, 0)), "and none may be empty"),
        ({"two words": TOKENS}, r"the names \['two words'\]"),
        ({}, r"the names \[\]"),
    ],
)
def test_inputs_that_do_not_stand_side_by_side(inputs, message):
    with pytest.raises(DataError, match=message):
        pack(inputs)


class Pairs(TorchDataset):
    """Examples one by one, each input under its name."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i):
        return {"tokens": TOKENS[i], "image": IMAGE[i]}, Y[i]


def test_every_way_to_give_several_inputs_is_the_same_data(tmp_path):
    named = {"tokens": TOKENS, "image": IMAGE}
    batches = DataLoader(Pairs(), batch_size=4)
    np.savez(
        tmp_path / "a.npz",
        **{f"{s}_x:{name}": t.numpy() for s in ("train", "test") for name, t in named.items()},
        train_y=Y.numpy(),
        test_y=Y.numpy(),
    )
    given = [own.dataset(way, way) for way in ((named, Y), Pairs(), batches)] + [
        load("arrays", root=tmp_path / "a.npz")
    ]
    prepared = []
    for dataset in given:
        parts = split(dataset, validation=2)
        assert parts.input_shape == {"tokens": (5,), "image": (3, 2, 2)}
        assert len({split(d, validation=2).digest for d in given}) == 1
        prepared.append(parts.prepare(dataset.train_x, torch.float64))
    for inputs in prepared:
        assert torch.equal(inputs["tokens"], TOKENS)  # integers count something: they are not normalised
        assert inputs["image"].dtype == torch.float64
        assert torch.equal(inputs["image"], prepared[0]["image"])
    ways = ((TOKENS, IMAGE), Y), StackDataset(StackDataset(TOKENS, IMAGE), Y), TensorDataset(TOKENS, Y)
    shapes = [split(own.dataset(way, way), validation=2).input_shape for way in ways]
    assert shapes == [((5,), (3, 2, 2)), ((5,), (3, 2, 2)), (5,)]


def test_the_way_back_from_named_tensors():
    for inputs in (TOKENS, (TOKENS, IMAGE), {"tokens": TOKENS, "image": IMAGE}):
        dataset = own.dataset((inputs, Y), (inputs, Y))
        again = own.inputs_in(own.tensors(dataset), "train")
        assert type(again) is type(inputs)
        assert all(map(torch.equal, tensors_of(again), tensors_of(inputs)))


def test_train_and_test_must_be_alike():
    with pytest.raises(DataError, match=r"train inputs are int64 \[5\], uint8 \[3, 2, 2\], test inputs one tensor"):
        own.dataset(((TOKENS, IMAGE), Y), (TOKENS, Y))


def test_an_example_with_other_inputs_is_named():
    batches = DataLoader([({"tokens": TOKENS[0]}, 1), ({"words": TOKENS[0]}, 0)], batch_size=1)
    with pytest.raises(DataError, match="an example has other inputs than tokens"):
        own.dataset(batches, batches)
