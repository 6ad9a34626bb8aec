"""Folders of open_lth become tickets, by name or by order and shape; what is missing or does not fit is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import sublevel as sl
from sublevel.errors import DataError, ModelError
from sublevel.models import build
from sublevel.tickets import Ticket, from_open_lth

FIRST, LAST = "model_ep1_it2.pth", "model_ep4_it0.pth"


class Net(nn.Module):
    """A network under the names that open_lth gives to its VGGs."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten())
        self.fc = nn.Linear(16 * width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.layers(x))


class Own(nn.Module):
    """The same network under other names."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, width, 3)
        self.norm = nn.BatchNorm2d(width)
        self.linear = nn.Linear(16 * width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.norm(self.conv(x)).relu().flatten(1))


def trained(seed: int, make=Net) -> nn.Module:
    torch.manual_seed(seed)
    net = make()
    net(torch.randn(30, 1, 6, 6))
    return net


def prunable(net: nn.Module) -> dict[str, torch.Tensor]:
    """open_lth's rule, in its order: the weights of Conv2d and Linear."""
    kinds = (nn.Conv2d, nn.Linear)
    return {f"{name}.weight": m.weight.detach() for name, m in net.named_modules() if isinstance(m, kinds)}


def masked(net: nn.Module, mask: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """``param.data *= mask``, as PrunedModel has it: -0.0 where a negative weight is pruned."""
    return {n: t.clone() * mask[n].float() if n in mask else t.clone() for n, t in net.state_dict().items()}


def write_level(folder: Path, start: nn.Module, end: nn.Module, mask: dict[str, torch.Tensor]) -> None:
    """What `LotteryRunner._prune_level` and `_train_level` leave behind."""
    folder.mkdir(parents=True)
    torch.save({k: v.cpu().int() for k, v in mask.items()}, folder / "mask.pth")
    total, left = sum(m.numel() for m in mask.values()), sum(int(m.sum()) for m in mask.values())
    (folder / "sparsity_report.json").write_text(json.dumps({"total": float(total), "unpruned": float(left)}, indent=4))
    torch.save(masked(start, mask), folder / FIRST)
    torch.save(masked(end, mask), folder / LAST)
    optimiser = torch.optim.SGD(end.parameters(), lr=0.1, momentum=0.9)
    torch.save(
        {
            "ep": 4,
            "it": 0,
            "model_state_dict": {f"model.{n}": t for n, t in end.state_dict().items()},
            "optimizer_state_dict": optimiser.state_dict(),
            "logger": "test_loss,0,2.3",
        },
        folder / "checkpoint.pth",
    )
    (folder / "logger").write_text("test_loss,0,2.3")


HPARAMS = """Dataset Hyperparameters
    * dataset_name => mnist
    * batch_size => 128
Training Hyperparameters
    * lr => 0.1
    * training_steps => 4ep"""


@pytest.fixture
def replicate(tmp_path: Path) -> Path:
    """Three levels from one start, and a branch of level 2 that begins elsewhere."""
    root = tmp_path / "lottery_0123456789abcdef" / "replicate_2"
    start, mask = trained(0), {n: torch.ones_like(w) for n, w in prunable(trained(0)).items()}
    for level in range(3):
        end = trained(10 + level)
        write_level(root / f"level_{level}" / "main", start, end, mask)
        weights = prunable(end)
        mask = {n: m * (weights[n].abs() > weights[n].abs().median()) for n, m in mask.items()}
        mask = dict(reversed(mask.items()))  # ignored layers come last in open_lth: the order means nothing
    (root / "level_0" / "main" / "hparams.log").write_text(HPARAMS)
    (root / "level_pretrain" / "main").mkdir(parents=True)
    torch.save(trained(0).state_dict(), root / "level_pretrain" / "main" / FIRST)
    branch = root / "level_2" / "lottery_branch_randomly_reinitialize_77"
    kept = torch.load(root / "level_2" / "main" / "mask.pth")
    write_level(branch, trained(30), trained(31), kept)
    return root


def expected_mask(root: Path, level: int, net: nn.Module) -> torch.Tensor:
    found = torch.load(root / f"level_{level}" / "main" / "mask.pth")
    parts = [found.get(n, torch.ones_like(p)).reshape(-1).bool() for n, p in net.named_parameters()]
    return torch.cat(parts)


@pytest.mark.parametrize("network", [Net, lambda: trained(99)])
def test_every_level_becomes_a_ticket(replicate: Path, network) -> None:
    tickets = from_open_lth(replicate, network)
    assert len(tickets) == 3
    start, space = trained(0), tickets[0].space
    for level, ticket in enumerate(tickets):
        assert torch.equal(ticket.mask, expected_mask(replicate, level, start))
        assert torch.equal(ticket.start.theta, space.point(start).theta), "level 0 has the start unmasked"
        end = space.point(trained(10 + level))
        assert torch.equal(ticket.end.theta, end.project(ticket.mask).theta)
        assert torch.equal(ticket.end.buffers["layers.1.running_var"], end.buffers["layers.1.running_var"])
        report = json.loads((replicate / f"level_{level}" / "main" / "sparsity_report.json").read_text())
        assert ticket.space.remaining(ticket.mask) == report["unpruned"]
    assert tickets[0].density == 1 > tickets[1].density > tickets[2].density
    assert tickets[2].about == {
        "source": "open_lth",
        "branch": "main",
        "level": 2,
        "replicate": 2,
        "steps": {"start": "ep1_it2", "end": "ep4_it0"},
        "hyperparameters": {
            "Dataset Hyperparameters": {"dataset_name": "mnist", "batch_size": "128"},
            "Training Hyperparameters": {"lr": "0.1", "training_steps": "4ep"},
        },
    }


def test_a_network_under_other_names_corresponds_by_order_and_shape(replicate: Path) -> None:
    theirs, ours = from_open_lth(replicate, Net)[2], from_open_lth(replicate, Own())[2]
    assert ours.space.layers[0].name == "conv.weight"
    assert torch.equal(ours.mask, theirs.mask)
    x = torch.randn(5, 1, 6, 6)
    with torch.no_grad():
        for at in ("start", "end"):
            assert torch.equal(ours.module(at=at)(x), theirs.module(at=at)(x))


def test_names_come_before_order(replicate: Path) -> None:
    for path in replicate.rglob("*main/model_*.pth"):
        torch.save(dict(reversed(torch.load(path).items())), path)
    assert torch.equal(
        from_open_lth(replicate, Net, levels=[1])[0].start.theta, sl.Space.of(Net()).point(trained(0)).theta
    )
    with pytest.raises(
        ModelError, match=r"of another network: its entry 1 is 'fc.bias' of shape \[3\], the network's is"
    ):
        from_open_lth(replicate, Own, levels=[1])


def test_a_branch_has_its_own_start(replicate: Path) -> None:
    """A level that began elsewhere is not given level 0's weights; pruned weights of its start are unknown: 0."""
    (ticket,) = from_open_lth(replicate, Net, levels=[2], experiment="lottery_branch_randomly_reinitialize_77")
    began = ticket.space.point(trained(30)).project(ticket.mask)
    assert torch.equal(ticket.start.theta, began.theta)
    assert ticket.about["branch"] == "lottery_branch_randomly_reinitialize_77"
    with pytest.raises(DataError, match=r"level_1 has no 'lottery_branch_randomly_reinitialize_77'"):
        from_open_lth(replicate, Net, levels=[1], experiment="lottery_branch_randomly_reinitialize_77")


def test_the_registered_networks_have_open_lth_s_names(tmp_path: Path) -> None:
    """The entries of its cifar_resnet_8 of width 4, in order; the library's network reads them by name."""
    bn = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    named = ["conv.weight", *(f"bn.{n}" for n in bn)]
    for i in range(3):
        for conv in (1, 2):
            named += [f"blocks.{i}.conv{conv}.weight", *(f"blocks.{i}.bn{conv}.{n}" for n in bn)]
        if i:
            named += [f"blocks.{i}.shortcut.0.weight", *(f"blocks.{i}.shortcut.1.{n}" for n in bn)]
    named += ["fc.weight", "fc.bias"]
    net = build("resnet-8", input_shape=(3, 8, 8), classes=10, width=4)
    assert list(net.state_dict()) == named
    write_level(tmp_path / "level_0" / "main", net, net, {n: torch.ones_like(w) for n, w in prunable(net).items()})
    (ticket,) = from_open_lth(tmp_path, net)
    assert torch.equal(ticket.end.theta, ticket.space.point(net).theta)
    assert ticket.about["replicate"] is None


def test_an_imported_ticket_is_saved_and_measured(replicate: Path, tmp_path: Path) -> None:
    data = {f: (torch.randn(60, 1, 6, 6), torch.arange(60) % 3) for f in ("train", "test")}
    problem = sl.Problem(Own, **data, validation=0, version="1")
    ticket = Ticket.load(from_open_lth(replicate, problem.module)[1].save(tmp_path / "t", end=True))
    assert ticket.space == problem.space
    field = problem.field("train")
    with torch.no_grad():
        logits = ticket.module(problem.module)(data["train"][0])
    assert field.loss(ticket.end) == pytest.approx(
        float(nn.functional.cross_entropy(logits, data["train"][1])), rel=1e-5
    )
    barrier = sl.paths.barrier(field, ticket.point("start"), ticket.end, points=3, refine=0)
    assert barrier.height >= 0


class Attack:
    def __reduce__(self):
        return (Path("attacked").touch, ())


def without(name: str):
    return lambda folder: (folder / name).unlink()


def mask_with(change):
    def spoil(folder: Path) -> None:
        found = torch.load(folder / "mask.pth")
        change(found)
        torch.save(found, folder / "mask.pth")

    return spoil


def weight_with(change):
    def spoil(folder: Path) -> None:
        found = torch.load(folder / LAST)
        change(found)
        torch.save(found, folder / LAST)

    return spoil


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (without("mask.pth"), r"level_1/main has no mask\.pth"),
        (without(LAST), r"needs model_epE_itI\.pth of the start and of the end, it has model_ep1_it2\.pth"),
        (lambda f: (without(FIRST)(f), without(LAST)(f)), "of the end, it has none: training did not finish"),
        (lambda f: (f / "mask.pth").write_bytes(b"PK"), r"mask\.pth cannot be loaded without running its code"),
        (lambda f: torch.save({"fc.weight": Attack()}, f / "mask.pth"), r"mask\.pth cannot be loaded without running"),
        (lambda f: torch.save([1], f / "mask.pth"), r"mask\.pth holds list; expected names and tensors"),
        (mask_with(lambda m: m.pop("fc.weight")), r"mask\.pth has no mask of 'fc.weight', which is prunable"),
        (mask_with(lambda m: m["fc.weight"].add_(1)), "the mask 'fc.weight' holds something else than 0 and 1"),
        (mask_with(lambda m: m.update(x=torch.ones(2))), r"the mask 'x' of shape \[2\] fits no weight of the network"),
        (
            mask_with(lambda m: m.update({"fc.bias": torch.zeros(3)})),
            "removes weights of 'fc.bias', which is not prunable",
        ),
        (weight_with(lambda s: s["fc.bias"].fill_(float("nan"))), r"model_ep4_it0\.pth: 3 weights are not finite"),
        (
            weight_with(lambda s: s.update({"fc.bias": torch.zeros(4)})),
            r"model_ep4_it0\.pth is of another network: its entry 9 is 'fc.bias' of shape \[4\], the network's is ",
        ),
        (
            weight_with(lambda s: s.update(more=torch.zeros(4))),
            r"its entry 10 is 'more' of shape \[4\], .* is not there",
        ),
    ],
)
def test_a_level_that_is_not_whole_is_one_sentence(replicate: Path, spoil, sentence: str, monkeypatch) -> None:
    monkeypatch.chdir(replicate)
    spoil(replicate / "level_1" / "main")
    with pytest.raises(sl.SublevelError, match=sentence) as found:
        from_open_lth(replicate, Net)
    assert "\n" not in str(found.value)
    assert not Path("attacked").exists()
    assert len(from_open_lth(replicate, Net, levels=[0, 2])) == 2


def test_batchnorm_s_buffers_are_no_weights(replicate: Path) -> None:
    """Weight, bias, mean and variance have one shape: their order alone would let one pass for another."""

    class Swapped(Own):
        def state_dict(self, *args, **kwargs):
            s = super().state_dict(*args, **kwargs)
            order = ["conv.weight", "conv.bias", "norm.running_mean", "norm.running_var", "norm.weight", "norm.bias"]
            return {n: s[n] for n in (*order, *(n for n in s if n not in order))}

    with pytest.raises(ModelError, match=r"its entry 3 is 'layers.1.weight' of shape \[4\], .* 'norm.running_mean' of"):
        from_open_lth(replicate, Swapped)


@pytest.mark.parametrize(
    ("folder", "levels", "sentence"),
    [
        ("absent", None, "there is no folder .*absent"),
        (".", [3], r"has no level 3; its levels are 0, 1, 2"),
        ("..", None, r"has no folder level_0, level_1, \.\.\. of open_lth; it has replicate_2: name one of these"),
        ("level_0", None, r"has no folder level_0, level_1, \.\.\. of open_lth$"),
    ],
)
def test_levels_that_are_not_there(replicate: Path, folder: str, levels, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence):
        from_open_lth(replicate / folder, Net, levels=levels)


def test_a_gap_in_the_levels(replicate: Path) -> None:
    (replicate / "level_1").rename(replicate / "aside")
    with pytest.raises(DataError, match="has no level 1; its levels are 0, 2"):
        from_open_lth(replicate, Net)
    assert [t.about["level"] for t in from_open_lth(replicate, Net, levels=[2, 0])] == [2, 0]


def test_a_network_of_another_size(replicate: Path) -> None:
    with pytest.raises(
        ModelError, match=r"its entry 1 is 'layers.0.weight' of shape \[4, 1, 3, 3\], .* \[5, 1, 3, 3\]"
    ):
        from_open_lth(replicate, lambda: Net(5))
