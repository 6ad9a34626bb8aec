"""Checkpoints trained elsewhere: one call measures them, and one answer says whether they share a basin."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import own_net
import sublevel as sl
from sublevel.errors import ConfigError, DataError

FEW = {
    "paths": None, "density": None, "overlaps": None, "volumes": None,
    "spectra": {"k": 1, "spaces": ["own"], "steps": 30},
    "topology": {"points": 11},
}  # fmt: skip


@pytest.fixture(scope="module")
def problem() -> sl.Problem:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(120, 6, generator=rng)
    y = (x[:, 0] + x[:, 1] > 0).long() + (x[:, 2] > 1).long()
    return sl.Problem(own_net.build, train=(x[:80], y[:80]), test=(x[80:], y[80:]), options={"width": 8})


@pytest.fixture(scope="module")
def net(problem: sl.Problem) -> nn.Module:
    torch.manual_seed(0)
    net = own_net.build(width=8)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(problem.splits.train.x), problem.splits.train.y).backward()
        optimizer.step()
    return net


def relabelled(net: nn.Module) -> dict[str, torch.Tensor]:
    """The same function with its hidden units in another order."""
    state, order = net.state_dict(), torch.roll(torch.arange(8), 3)
    return {"0.weight": state["0.weight"][order], "0.bias": state["0.bias"][order],
            "2.weight": state["2.weight"][:, order], "2.bias": state["2.bias"]}  # fmt: skip


def test_a_relabelled_network_has_equal_losses_and_a_barrier(problem, net, tmp_path):
    given = {"mine": net, "relabelled": relabelled(net), "near": {k: 1.001 * v for k, v in net.state_dict().items()}}
    result = sl.measure(given, problem, geometry=FEW, out=tmp_path, jobs=1, report=False)
    found = sl.answer(result)
    seen = found.checkpoints.set_index("checkpoint")
    assert list(seen.index) == ["mine", "relabelled", "near"]
    x, y = problem.splits.train.x, problem.splits.train.y
    held = problem.splits.validation
    whole = nn.functional.cross_entropy(net(torch.cat([x, held.x])), torch.cat([y, held.y])).item()
    assert seen["train_loss"]["mine"] == pytest.approx(whole, rel=1e-5)  # none is held out
    assert seen["train_loss"]["relabelled"] == pytest.approx(whole, rel=1e-5)
    assert seen["lambda_1"]["relabelled"] == pytest.approx(seen["lambda_1"]["mine"], rel=1e-3)
    joined = {(r.a, r.b): r.joined for r in found.pairs.itertuples()}
    assert joined == {("mine", "relabelled"): False, ("mine", "near"): True, ("relabelled", "near"): False}
    assert found.sentence.startswith("2 of 3 pairs do not share a basin along a straight line: from ")
    rise = found.pairs["maximum"] / found.pairs["higher_end"] - 1
    assert found.pairs["rise"].tolist() == pytest.approx(rise.tolist(), abs=1e-9)


def test_neighbours_share_a_basin_and_masks_are_taken(problem, net, tmp_path):
    near = {k: 1.001 * v for k, v in net.state_dict().items()}
    mask = {"0.weight": (net[0].weight.abs() > net[0].weight.abs().median()).float()}
    result = sl.measure({"a": net, "b": near, "pruned": net}, problem, masks={"pruned": mask}, geometry=FEW,
                        out=tmp_path, jobs=1, report=False)  # fmt: skip
    found = sl.answer(result)
    assert found.checkpoints["density"].tolist() == [1.0, 1.0, pytest.approx(48 / 72)]
    pair = found.pairs[(found.pairs["a"] == "a") & (found.pairs["b"] == "b")]
    assert pair["joined"].tolist() == [True]
    dotted = {"v1.1": net, "v1.2/near": near}  # two files, whatever the names hold
    two = sl.measure(dotted, problem, geometry=FEW, out=tmp_path, name="two", jobs=1, report=False)
    assert two.levels["train_loss"].nunique() == 2
    assert sl.answer(two).sentence.startswith("Same basin: on the segment between every two, the train loss rises")


class Scaled(nn.Module):
    """A network with a constant of its own outside its state dict."""

    def __init__(self, scale=1.0):
        super().__init__()
        self.inner = own_net.build()
        self.register_buffer("scale", torch.tensor(scale), persistent=False)

    def forward(self, x):
        return self.scale * self.inner(x)


def test_a_network_with_another_constant_outside_its_state_dict_is_refused(problem, tmp_path):
    data = problem.splits.train.x, problem.splits.train.y
    p = sl.Problem(Scaled, train=data, test=data, validation=0)
    one = sl.measure({"a": Scaled()}, p, geometry=FEW, out=tmp_path, name="one", jobs=1, report=False)
    assert len(one.levels) == 1
    with pytest.raises(DataError, match="'scale', which the network keeps out of its state dict and which differs"):
        sl.measure({"a": Scaled(3.0)}, p, geometry=FEW, out=tmp_path, name="two", jobs=1, report=False)


def test_one_checkpoint_and_no_segments_are_said(problem, net, tmp_path):
    few = FEW | {"topology": None}
    one = sl.measure({"a": net}, problem, geometry=few, out=tmp_path, name="one", jobs=1, report=False)
    assert sl.answer(one).sentence == "One checkpoint: there is no path to judge."
    two = sl.measure({"a": net, "b": net}, problem, geometry=few, out=tmp_path, name="two", jobs=1, report=False)
    assert sl.answer(two).sentence == "No segment between the checkpoints was measured (geometry.topology)."


def test_masks_belong_to_checkpoints(problem, net, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"masks name no checkpoint: \['b'\]"):
        sl.measure({"a": net}, problem, masks={"b": "zeros"}, out=tmp_path)
    with pytest.raises(ConfigError, match="name at least one checkpoint"):
        sl.measure({}, problem, out=tmp_path)


def test_the_answer_of_the_command_fits_into_80_columns(monkeypatch, capsys):
    from sublevel.cli import output
    from sublevel.cli.run import _table

    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(output, "console", output.console.__wrapped__)  # one that has not read another width
    long = "resnet20-seed-1-epoch-160-of-the-long-run"
    losses = dict.fromkeys(("train_loss", "train_error", "test_loss", "test_error"), 0.00012345)
    rows = [{"checkpoint": name, "density": 1.0, **losses, "lambda_1": 12345.6, "log_determinant": -172431.7}
            for name in (long, "b")]  # fmt: skip
    pair = {"a": long, "b": f"{long}-2", "higher_end": 0.00012345, "maximum": 1.23e-5, "rise": 12.345, "joined": False}
    output.say(_table(pd.DataFrame(rows), names=1, percent=("density", "train_error", "test_error")))
    output.say(_table(pd.DataFrame([pair]), names=2, percent=("rise",)))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "\u2026" not in "".join(lines)
    numbers = ["100.0%", "0.0001234", "0.0%", "0.0001234", "0.0%", "1.235e+04", "-1.724e+05"]
    assert [line.split()[1:] for line in lines if line.startswith("b ")] == [numbers]
    assert any(line.split()[-4:] == ["0.0001234", "1.23e-05", "1234.5%", "no"] for line in lines)
    names = "".join(line.split()[0] for line in lines if line[0] != " ")
    assert names.count(long) == 2


@pytest.mark.full
def test_two_folders_of_a_transformer_by_one_command(tmp_path, monkeypatch, capsys):
    pytest.importorskip("transformers")
    from networks.folders import folder
    from sublevel.cli import main, output

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(output, "console", output.console.__wrapped__)
    for name, n in (("train", 300), ("val", 60)):
        (np.arange(n) * 7 % 12).astype(np.uint16).tofile(tmp_path / f"{name}.bin")
    one, two = folder("gpt2", "causal-lm"), folder("gpt2", "causal-lm", 1)
    without = [f"geometry.{name}=none" for name in ("paths", "density", "overlaps", "volumes")]
    keys = ["data.options.length=6", *without, "geometry.spectra.k=1", "geometry.topology.points=11"]
    arguments = [a for key in keys for a in ("--set", key)]
    with pytest.raises(SystemExit) as end:
        main(["measure", one, two, "--data", "tokens", "--root", ".", "--memory", "4GB", *arguments])
    assert end.value.code == 0
    said = capsys.readouterr().out
    assert "a basin" in said or "Same basin" in said
    assert "eigenvalue" in said
    assert "\u2026" not in said


def test_checkpoints_without_a_network_need_its_name(tmp_path, capsys):
    from sublevel.cli import main

    torch.save({}, tmp_path / "a.pt")
    with pytest.raises(SystemExit) as end:
        main(["measure", str(tmp_path / "a.pt"), "--data", "mnist"])
    assert end.value.code == 2
    assert "holds weights but no network: name it with --model" in capsys.readouterr().err


def test_network_and_data_in_one_file(tmp_path, monkeypatch):
    (tmp_path / "both_mine.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def net():\n    return nn.Linear(3, 2)\n"
        "def data(n=20):\n    x = torch.linspace(-1, 1, 3 * n).view(n, 3)\n    y = torch.arange(n) % 2\n"
        "    return (x, y), (x[:6], y[:6])\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    p = sl.Problem("both_mine:net", data="both_mine:data", data_options={"n": 30}, validation=0)
    assert (len(p.splits.train), len(p.splits.test)) == (30, 6)
    again = sl.Problem.of(p.spec())
    assert again.splits.digest == p.splits.digest
    assert p.portable
    with pytest.raises(DataError, match=r"data 'both_mine:wrong' gives int; expected the pair \(train, test\)"):
        _ = sl.Problem("both_mine:net", data="both_mine:wrong").splits
    with pytest.raises(DataError, match=r"data 'both_mine:nothing': .* has no 'nothing'"):
        _ = sl.Problem("both_mine:net", data="both_mine:nothing").splits
