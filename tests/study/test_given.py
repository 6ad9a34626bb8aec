"""Checkpoints trained elsewhere: read without running their code, measured like any solution."""

from __future__ import annotations

import pickle
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch.nn.utils import prune

import sublevel as sl
import tiny_runs
from sublevel.errors import DataError
from sublevel.study.given import read
from sublevel.study.spec import GivenSpec
from tiny_runs import cli

FEW = [
    *("--model", "tiny_net:tiny", "--data", "arrays", "--root", "data.npz", "--jobs", 1),
    *(
        "--set",
        "data.validation=40",
        "--set",
        "geometry={paths={points=3, refine=0}, spectra={k=2, spaces=['own', 'all']}}",
    ),
]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tiny_runs.furnish(tmp_path / "workshop")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def problem(shop: Path) -> sl.Problem:
    return sl.Problem("tiny_net:tiny", data="arrays", root="data.npz", validation=40)


def network(problem: sl.Problem, seed: int) -> torch.nn.Module:
    """A network at a point of its own, its running statistics moved."""
    net = problem.build(seed, "init")
    with torch.no_grad():
        net.train()(problem.prepare(problem.splits.train.x[:60]))
    return net


def given(problem: sl.Problem, path: str, mask: str | None = None):
    return read(GivenSpec(name="a", path=path, mask=mask), problem)


def test_every_way_of_saving_gives_the_same_point(problem: sl.Problem) -> None:
    net = network(problem, 3)
    state = net.state_dict()
    save_file(state, "a.safetensors")
    torch.save(state, "a.pt")
    torch.save({"epoch": 3, "model": {f"module.{name}": t for name, t in state.items()}}, "nested.pt")
    found = [given(problem, path) for path in ("a.safetensors", "a.pt", "nested.pt")]
    assert len({each.point for each in found}) == 1
    at = found[0].at
    assert torch.equal(at.theta, problem.space.point(net).theta)
    assert torch.equal(at.buffers["norm.running_mean"], net.norm.running_mean)
    assert found[0].mask is None


def test_a_pruned_module_of_torch_is_its_weights_and_its_mask(problem: sl.Problem) -> None:
    net = network(problem, 3)
    prune.random_unstructured(net.conv, "weight", amount=10)
    prune.l1_unstructured(net.linear, "weight", amount=0.5)
    torch.save(net.state_dict(), "pruned.pt")
    seen = given(problem, "pruned.pt")
    assert seen.mask is not None
    plain = problem.build(0, "init")
    problem.space.write(plain, seen.at)
    assert torch.equal(plain.conv.weight, net.conv.weight)
    assert torch.equal(plain.linear.weight, net.linear.weight)
    left = {"conv.weight": net.conv.weight_mask, "linear.weight": net.linear.weight_mask}
    save_file({name: m.contiguous() for name, m in left.items()}, "mask.safetensors")
    dense = network(problem, 3)
    save_file(dense.state_dict(), "dense.safetensors")
    assert given(problem, "dense.safetensors", "mask.safetensors").mask == seen.mask


@pytest.mark.full
def test_two_checkpoints_from_the_command_line(problem: sl.Problem, shop: Path) -> None:
    for name, seed in (("first", 3), ("second", 4)):
        save_file(network(problem, seed).state_dict(), f"{name}.safetensors")
    mask = {"linear.weight": torch.arange(192).reshape(3, 64) % 2}
    save_file(mask, "mask.safetensors")
    save_file({}, "nothing.safetensors")
    masks = ["--mask", "nothing.safetensors", "--mask", "mask.safetensors"]
    done = cli("measure", "first.safetensors", "second.safetensors", *masks, *FEW, cwd=shop)
    assert done.returncode == 0, done.stderr + done.stdout
    run = shop / "sublevel-runs" / "measured"
    levels = pd.read_csv(run / "tables" / "levels.csv")
    assert levels["branch"].tolist() == ["first", "second"]
    assert levels["remaining"].tolist() == [228, 228 - 96]
    result = sl.open(run)
    second = result.point("second", 1)
    expected = problem.space.point(network(problem, 4)).theta
    kept = torch.cat([torch.ones(36 + 4 + 4), mask["linear.weight"].reshape(-1), torch.ones(3)]).bool()
    assert torch.equal(second.theta, torch.where(kept, expected, torch.zeros(())))
    row = levels.iloc[1]
    assert row["train_loss"] == pytest.approx(problem.field("train").loss(second), rel=1e-6)
    paths = pd.read_csv(run / "tables" / "paths.csv")
    assert set(paths["path"]) == {"successive", "to-dense"}
    again = cli("measure", "first.safetensors", "second.safetensors", *masks, *FEW, cwd=shop)
    assert "nothing to compute" in again.stdout
    assert (run / "report.html").stat().st_size > 1_000_000


class Attack:
    """What a pickle can do to whoever loads it."""

    def __reduce__(self):
        return (Path("attacked").touch, ())


def test_a_pickle_runs_nothing(problem: sl.Problem, shop: Path) -> None:
    Path("evil.pt").write_bytes(pickle.dumps({"conv.weight": Attack()}))
    torch.save({"conv.weight": Attack()}, "evil2.pt")
    for path in ("evil.pt", "evil2.pt"):
        with pytest.raises(DataError, match=r"evil2?\.pt is no checkpoint that can be loaded without running its code"):
            given(problem, path)
    assert not Path("attacked").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("norm.weight"), "has no tensor 'norm.weight', which the network has"),
        (
            lambda s: s.update({"linear.weight": torch.zeros(3, 65)}),
            r"'linear.weight' has shape \[3, 65\], .* \[3, 64\]",
        ),
        (lambda s: s["conv.weight"].view(-1)[0].fill_(float("nan")), "1 weights are not finite"),
    ],
)
def test_what_does_not_fit_is_named(problem: sl.Problem, change, message: str) -> None:
    state = network(problem, 3).state_dict()
    change(state)
    torch.save(state, "a.pt")
    with pytest.raises(DataError, match=message):
        given(problem, "a.pt")


def test_files_that_are_no_checkpoints(problem: sl.Problem) -> None:
    Path("text.pt").write_text("hello")
    Path("text.safetensors").write_text("hello")
    torch.save([1, 2], "list.pt")
    save_file({"conv.bias": torch.ones(4)}, "mask.safetensors")
    save_file(network(problem, 3).state_dict(), "a.safetensors")
    with pytest.raises(DataError, match=r"there is no checkpoint absent\.pt"):
        given(problem, "absent.pt")
    for path in ("text.pt", "text.safetensors"):
        with pytest.raises(DataError, match="is no checkpoint that can be loaded"):
            given(problem, path)
    with pytest.raises(DataError, match=r"list\.pt holds list; a checkpoint is a state dict"):
        given(problem, "list.pt")
    with pytest.raises(DataError, match=r"the mask 'conv.bias' of shape \[4\] fits no weight"):
        given(problem, "a.safetensors", "mask.safetensors")


@pytest.mark.full
def test_bad_commands_are_one_sentence(shop: Path, problem: sl.Problem) -> None:
    for name in "ab":
        save_file(network(problem, 3).state_dict(), f"{name}.safetensors")
    for arguments, message in (
        (["a.safetensors", "b.safetensors", *["--mask", "a.safetensors"] * 3], "3 masks for 2 checkpoints"),
        (["absent.pt"], "there is no checkpoint absent.pt"),
        ([], "name at least one checkpoint"),
        (["a.safetensors", "--set", 'geometry.spectra.branches=["c"]'], "asks for branch 'c'"),
    ):
        done = cli("measure", *arguments, *FEW[:6], cwd=shop)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert message in done.stderr
    assert not (shop / "sublevel-runs").exists()


NOISY = """
import torch
from tiny_net import Net

class Noisy(Net):
    def forward(self, x):
        return super().forward(x) + torch.randn(3)

def noisy(classes):
    return Noisy(classes, 4)
"""


def test_a_network_that_draws_in_its_forward_pass_is_refused(shop: Path, problem: sl.Problem) -> None:
    (shop / "noisy_net.py").write_text(NOISY)
    save_file(network(problem, 3).state_dict(), "a.safetensors")
    done = cli("measure", "a.safetensors", *["--model", "noisy_net:noisy"], *FEW[2:6], cwd=shop)
    assert done.returncode == 2
    assert "the network draws random numbers in evaluation mode" in done.stderr
