"""What `check` refuses, in words."""

import re
from dataclasses import replace

import pytest
import torch

from sublevel.data import Dataset, check, own
from sublevel.errors import DataError

Y = torch.tensor([0, 1, 2])
GOOD = Dataset("mine", torch.zeros(3, 5), Y, torch.zeros(3, 5), Y, ("a", "b", "c"), "made up")


def test_a_good_one_is_returned():
    assert check(GOOD) is GOOD


def test_samples_in_float64_are_kept():
    double = replace(GOOD, train_x=GOOD.train_x.double(), test_x=GOOD.test_x.double())
    assert check(double).train_x.dtype == torch.float64


def test_float_targets_are_kept():
    regression = replace(GOOD, train_y=torch.rand(3, 2), test_y=torch.rand(3, 2), classes=())
    assert check(regression).train_y.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_y": torch.tensor([0, 7, 9])}, "data source 'mine', test: label 7 at index 1; allowed: 0..2"),
        ({"train_y": torch.tensor([0, 1, -1])}, "train: label -1 at index 2; allowed: 0..2"),
        ({"train_y": Y[:2]}, "train: 3 samples but 2 labels"),
        ({"test_x": torch.zeros(0, 5), "test_y": Y[:0]}, "test: there are no samples"),
        ({"train_y": Y.int()}, "train: labels are torch.int32 [3]; allowed: torch.int64 [N]"),
        ({"classes": ("a",)}, "1 class (a); at least two are needed"),
        ({"train_x": torch.zeros(3, 5).half()}, "samples are torch.float16; allowed: torch.uint8 (images)"),
        (
            {"train_x": torch.zeros(3, 5).double()},
            "train samples are torch.float64 [5] each, test samples torch.float32 [5]; they must be alike",
        ),
        (
            {"train_x": torch.zeros(3, 5).byte()},
            "uint8 samples have shape [3, 5]; images are [N, C, H, W]; give tokens as x.long()",
        ),
        (
            {"train_x": torch.tensor([[0.0], [torch.nan], [0.0]])},
            "train: sample 1 has a value that is not finite",
        ),
        (
            {"test_x": torch.zeros(3, 4)},
            "train samples are torch.float32 [5] each, test samples torch.float32 [4]",
        ),
    ],
)
def test_what_is_wrong_is_named(change, message):
    with pytest.raises(DataError, match=re.escape(message)):
        check(replace(GOOD, **change))


def test_a_label_that_can_be_no_class_is_refused_and_not_counted_up_to():
    y = torch.tensor([0, 1, 2**60])
    with pytest.raises(DataError, match=r"label 1152921504606846976: classes are numbered from 0.*at most 1,000,000"):
        own.dataset((torch.zeros(3, 2), y), (torch.zeros(3, 2), y))
