"""Invalid prunings and tickets, as a person types them: one sentence with the culprit, nothing written."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import sublevel as sl
import tiny_runs
from sublevel.cli import main
from sublevel.prune import SCORES
from test_ticket_open_lth import Net, prunable, trained, write_level

OWN = '''
import torch
from torch import nn

from sublevel.prune import score
from tiny_net import tiny


class Bare(nn.Module):
    """No convolution, no linear layer."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(36)

    def forward(self, x):
        return self.norm(x.flatten(1))[:, :3]


def bare():
    return Bare()


@score("blank")
def blank(point, field, generator):
    return point.theta.abs().where(point.theta < 0, torch.nan)


@score("short")
def short(point, field, generator):
    return point.theta[:3]


@score("square")
def square(point, field, generator):
    return point.theta[None] ** 2


@score("near")
def near(point, field, generator, *, start):
    """A number for two draws of the weights, and none for weights that training has hardly moved."""
    far = (point.theta - start.theta).norm() > 1
    return point.theta.abs() if far else torch.full_like(point.theta, torch.nan)
'''


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A workshop with criteria of its own and three levels of open_lth of which the second was lost."""
    folder = tiny_runs.furnish(tmp_path / "workshop")
    (folder / "odd_net.py").write_text(OWN)
    head = "import torch\nfrom torch import nn\n\n\n"
    (folder / "lth.py").write_text(f"{head}{inspect.getsource(Net)}\n\ndef net():\n    return Net()\n")
    mask = {name: torch.ones_like(w) for name, w in prunable(trained(0)).items()}
    for level in (0, 2):
        write_level(folder / f"replicate_1/level_{level}/main", trained(0), trained(10 + level), mask)
        mask = {name: (trained(10).state_dict()[name].abs() > 0.1).int() for name in mask}
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    shipped = set(SCORES)
    yield folder
    for name in set(SCORES) - shipped:
        del SCORES[name]
    sys.modules.pop("odd_net", None)


@pytest.fixture
def do(capsys: pytest.CaptureFixture[str]):
    def run(*arguments: object) -> tuple[object, str, str]:
        with pytest.raises(SystemExit) as end:
            main([str(a) for a in arguments])
        return end.value.code, *capsys.readouterr()

    return run


def files(folder: Path) -> set[Path]:
    return {p for p in folder.rglob("*") if "__pycache__" not in p.parts}


def setting(*assignments: str) -> list[str]:
    return ["run", "small.toml", *(word for a in assignments for word in ("--set", a))]


def note(shop: Path, arguments: list[object]) -> str:
    """What is said of the study's own network before it is imported."""
    if arguments[0] != "run":
        return ""
    (name,) = [a.partition("=")[2] for a in arguments if str(a).startswith("model.name=")] or ["tiny_net:tiny"]
    return f"note: own code that would run: {name} (network, {shop / name.partition(':')[0]}.py)\n"


def importing(folder: str, level: int, model: str = "lth:net") -> list[object]:
    shape = ("--input-shape", 1, 6, 6, "--classes", 3)
    return ["ticket", "import", folder, "--level", level, "--model", model, *shape, "--out", "deep/out"]


BAD: list[tuple[list[object], str]] = [
    # What may be pruned.
    (setting("model.name=odd_net:bare"), "Bare has no prunable weight among its parameters (norm.weight,"),
    (setting('model.prunable=["cnov.*"]'), "prunable: 'cnov.*' matches no parameter and no module class"),
    (setting("protect=['*']"), "protect = ['*'] covers every prunable layer: nothing is left to prune"),
    (setting("protect=['conv', 'linear']"), "protect = ['conv', 'linear'] covers every prunable layer"),
    (setting("protect=['cnov.weight']"), "protect: 'cnov.weight' matches no prunable layer; did you mean 'conv.w"),
    (setting("floor=300"), "level 1 leaves 137 weights, fewer than the 228 that protect = [] and floor = 300 keep"),
    # Scores.
    (setting("criterion=magnitud"), "unknown pruning score 'magnitud'; did you mean 'magnitude'?"),
    (setting("model.name=odd_net:tiny", "criterion=blank"), "criterion 'blank' gave nan for "),
    (setting("model.name=odd_net:tiny", "criterion=blank"), "of the weights of conv.weight"),
    (setting("model.name=odd_net:tiny", "criterion=short"), "criterion 'short' gave 3 scores for the 239 coordinates"),
    (
        setting("model.name=odd_net:tiny", 'branches=[{name="oneshot", options={criterion="square"}}]'),
        "criterion 'square' must give a vector of real numbers, got a tensor torch.float32 of shape [1, 239]",
    ),
    # Levels of open_lth.
    (importing("replicate_1", 1), "replicate_1 has no level 1; its levels are 0, 2"),
    (importing("replicate_2", 0), "there is no folder replicate_2"),
    (importing(".", 0), ". has no folder level_0, level_1, ... of open_lth; it has replicate_1: name one of these"),
    (importing("replicate_1", 0, "tiny_net:tiny"), "is of another network: its entry 4 is 'layers.1.bias'"),
    (importing("replicate_1", 0, "lth:nte"), "lth has no 'nte'"),
    ([*importing("replicate_1", 0), "--experiment", "mian"], "level_0 has no 'mian'; did you mean 'main'?"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "sentence"), BAD, ids=[f"{i}: {s[:50]}" for i, (_, s) in enumerate(BAD)])
def test_one_sentence_names_the_culprit_and_nothing_is_written(
    do, shop: Path, arguments: list[object], sentence: str
) -> None:
    before = files(shop)
    code, out, err = do(*arguments)
    assert (code, out) == (2, note(shop, arguments))
    assert err.startswith("sublevel: ")
    assert sentence in err
    assert len(err.splitlines()) == 1, err
    assert files(shop) == before
    if arguments[0] == "run":
        assert do("plan", *arguments[1:])[::2] == (2, err), "a plan says the same"


def test_scores_that_turn_nan_in_the_middle_fail_their_cell_alone(do, shop: Path) -> None:
    """What only a trained network shows: exit code 1, the sentence, and the cells that need no such mask."""
    code, out, err = do(*setting("model.name=odd_net:tiny", "criterion=near", "levels=1"), "--jobs", 1, "--no-figures")
    assert (code, err) == (1, "")
    assert "failed: mask/imp/L1/s0: criterion 'near' gave nan for 36 of the weights of conv.weight\n" in out
    result = sl.open("sublevel-runs/small")
    assert set(result.levels["branch"]) == {"dense"}
    assert not [c for c in result.document["cells"] if c["kind"] == "mask" and c["status"] == "done"]


def test_a_level_of_open_lth_becomes_a_ticket(do, shop: Path) -> None:
    code, out, err = do(*importing("replicate_1", 2), "--end")
    assert (code, err) == (0, "")
    ticket = sl.load_ticket("deep/out")
    (expected,) = sl.tickets.from_open_lth("replicate_1", Net, levels=[2])
    assert torch.equal(ticket.mask, expected.mask)
    assert torch.equal(ticket.end.theta, expected.end.theta)
    left, of = ticket.space.remaining(ticket.mask), int(ticket.space.prunable.sum())
    assert (
        out
        == f"ticket: deep/out ({left} of {of} prunable weights left, {100 * left / of:.3g} %; start and end weights)\n"
    )
    assert 0 < left < of
