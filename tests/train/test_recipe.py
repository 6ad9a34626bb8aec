"""Lengths with units, schedules step by step, and the document that a cell's key is made of."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sublevel.train.recipe import Duration, Recipe

N = 50_000  # CIFAR-10
PAPER = Recipe(
    length=Duration(160, "ep"),
    batch_size=128,
    schedule="milestones",
    milestones=(Duration(31_280, "it"), Duration(46_920, "it")),
    crop=4,
    flip=True,
)


@pytest.mark.parametrize(
    ("text", "per_epoch", "steps"),
    [
        ("160ep", 391, 62_560),
        ("2000it", 391, 2000),
        ("0.5ep", 391, 196),
        (" 3 ep ", 10, 30),
        ("0it", 10, 0),
        ("1.0it", 9, 1),
    ],
)
def test_lengths_carry_their_unit(text, per_epoch, steps):
    assert Duration.parse(text).steps(per_epoch) == steps


@pytest.mark.parametrize(
    "text", ["160", 160, 1.5, None, "", "ep", "-1ep", "1e3it", "5 epochs", "1,5ep", "2itep", "infep"]
)
def test_lengths_without_a_unit_are_refused(text):
    with pytest.raises(ValueError, match="'2000it' or '160ep'; got"):
        Duration.parse(text)


def test_a_part_of_a_step_is_refused():
    with pytest.raises(ValueError, match=r"steps are whole; got '1.5it'"):
        Duration.parse("1.5it")


@given(st.one_of(st.integers(0, 10**7), st.decimals(0, 10**6, places=6).map(float)), st.sampled_from(["ep", "it"]))
def test_lengths_survive_their_text(count, unit):
    if unit == "it":
        count = int(count)
    length = Duration(float(count), unit)
    assert Duration.parse(str(length)) == length
    assert Duration.parse(length) is length


def test_milestones_of_the_paper():
    rates = PAPER.rates(N)
    assert PAPER.steps_per_epoch(N) == 391
    assert PAPER.steps(N) == len(rates) == 62_560
    assert rates[0] == rates[31_279] == 0.1
    assert rates[31_280] == rates[46_919] == pytest.approx(0.01)
    assert rates[46_920] == rates[-1] == pytest.approx(0.001)
    assert len(set(rates)) == 3
    in_epochs = replace(PAPER, milestones=(Duration(80, "ep"), Duration(120, "ep")))
    assert in_epochs.rates(N) == rates


def test_cosine():
    rates = Recipe(length=Duration(100, "it"), schedule="cosine", lr=0.4).rates(1000)
    assert rates[0] == 0.4
    assert rates[50] == pytest.approx(0.2)
    for step, rate in enumerate(rates):
        assert rate == pytest.approx(0.4 * math.cos(math.pi * step / 200) ** 2)
    assert all(a > b > 0 for a, b in pairwise(rates))


def test_warm_up_rises_to_the_rate_and_joins_the_schedule():
    recipe = Recipe(length=Duration(20, "it"), schedule="cosine", lr=1.0, warmup=Duration(5, "it"))
    rates = recipe.rates(1000)
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] == 1.0
    assert rates[6] < 1.0
    constant = replace(recipe, schedule="constant").rates(1000)
    assert constant[4:] == [1.0] * 16
    dropped = replace(recipe, schedule="milestones", milestones=(Duration(10, "it"),)).rates(1000)
    assert dropped[4:10] == [1.0] * 6
    assert dropped[10:] == pytest.approx([0.1] * 10)


@given(
    examples=st.integers(1, 3000),
    batch=st.integers(1, 300),
    epochs=st.integers(1, 12),
    schedule=st.sampled_from(["constant", "cosine", "milestones"]),
    warmup=st.integers(0, 20),
    lr=st.floats(1e-4, 10),
)
def test_every_schedule(examples, batch, epochs, schedule, warmup, lr):
    drops = (Duration(epochs / 2, "ep"),) if schedule == "milestones" else ()
    recipe = Recipe(
        length=Duration(epochs, "ep"),
        batch_size=batch,
        lr=lr,
        schedule=schedule,
        milestones=drops,
        warmup=Duration(warmup, "it"),
    )
    rates = recipe.rates(examples)
    assert recipe.steps_per_epoch(examples) == math.ceil(examples / batch)
    assert len(rates) == recipe.steps(examples) == epochs * recipe.steps_per_epoch(examples)
    assert all(0 < rate <= lr * (1 + 1e-12) for rate in rates)
    rising, falling = rates[:warmup], rates[warmup:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert Recipe.from_document(json.loads(json.dumps(recipe.document()))) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"lr": 0.0}, "lr must be positive and finite, got 0.0"),
        ({"lr": math.nan}, "lr must be positive and finite, got nan"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ({"momentum": -0.1}, "momentum must be in"),
        ({"weight_decay": -1e-4}, "weight_decay must be 0 or more, and finite, got -0.0001"),
        ({"gamma": 0.0}, r"gamma must be in \(0, 1\], got 0.0"),
        ({"crop": -1}, "crop must be 0 or more, got -1"),
        ({"length": Duration(0, "ep")}, "length must be longer than 0, got 0ep"),
        ({"schedule": "step"}, "schedule must be one of constant, milestones, cosine, got 'step'"),
        ({"dtype": "float16"}, "dtype must be one of float32, float64, got 'float16'"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov must be used with momentum, got True"),
        ({"nesterov": True, "optimizer": "adam"}, "nesterov must be used with optimizer = 'sgd', got True"),
        ({"optimizer": "lion"}, "optimizer must be one of sgd, adam, adamw, got 'lion'"),
        ({"beta2": 1.0}, r"beta2 must be in \[0, 1\), got 1.0"),
        ({"eps": 0.0}, "eps must be positive and finite, got 0.0"),
        ({"milestones": (Duration(1, "ep"),)}, "milestones and schedule = 'milestones' belong together"),
        ({"schedule": "milestones"}, "milestones and schedule = 'milestones' belong together"),
    ],
)
def test_what_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**change)


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
def test_infinite_values_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be .*, got inf"):
        Recipe(**{name: math.inf})


def test_a_recipe_is_frozen_and_by_keyword():
    with pytest.raises(AttributeError):
        PAPER.lr = 1.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        Recipe(Duration(1, "ep"))  # type: ignore[misc]


def test_with_another_length():
    longer = PAPER.with_length("200ep")
    assert longer.steps(N) == 78_200
    assert replace(longer, length=PAPER.length) == PAPER


def test_document_round_trip():
    marks = (Duration(2000, "it"), Duration(1.25, "ep"))
    recipe = replace(PAPER, checkpoints=marks, trajectory=marks, nesterov=True)
    document = recipe.document()
    assert json.loads(json.dumps(document)) == document
    assert document["length"] == "160ep"
    assert document["milestones"] == ["31280it", "46920it"]
    assert Recipe.from_document(document) == recipe


def test_the_document_of_the_defaults_never_changes():
    """These texts are in the keys of stored results."""
    assert Recipe().document() == {
        "length": "160ep",
        "batch_size": 128,
        "lr": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 1e-4,
        "schedule": "constant",
        "milestones": [],
        "gamma": 0.1,
        "warmup": "0it",
        "crop": 0,
        "flip": False,
        "dtype": "float32",
        "checkpoints": [],
    }


@dataclass(frozen=True, kw_only=True)
class Later(Recipe):
    """The recipe after a field was added whose introduced value was 0."""

    smoothing: float = field(default=0.0, metadata={"introduced": 0.0})


@dataclass(frozen=True, kw_only=True)
class MuchLater(Recipe):
    """After its default was changed to 0.1."""

    smoothing: float = field(default=0.1, metadata={"introduced": 0.0})


def test_an_added_field_keeps_old_keys():
    assert Later().document() == Recipe().document()
    assert Later(smoothing=0.2).document() == Recipe().document() | {"smoothing": 0.2}
    assert Later.from_document(Recipe().document()) == Later()


def test_a_changed_default_does_not_reuse_old_keys():
    assert MuchLater().document() == Recipe().document() | {"smoothing": 0.1}
    assert MuchLater(smoothing=0.0).document() == Recipe().document()
    assert MuchLater.from_document(Recipe().document()).smoothing == 0.0
    assert MuchLater.from_document(MuchLater().document()) == MuchLater()


def test_a_key_of_a_later_release_is_not_dropped_in_silence():
    with pytest.raises(TypeError, match="smoothing"):
        Recipe.from_document(Later(smoothing=0.2).document())
