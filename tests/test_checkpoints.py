"""Checkpoints as others write them: the network's own loss, or a refusal that says what to do."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file, save_model
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

import sublevel as sl
from sublevel.checkpoints import load
from sublevel.errors import DataError, ModelError

X = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
Y = (X[:, 0] > 0).long()


def normed():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def frozen():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    net[0].requires_grad_(False)
    return net


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.head, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)
        self.head.weight = self.wte.weight

    def forward(self, x):
        return self.out(self.head(torch.relu(self.wte(x))))


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 2)
        self.register_buffer("table", torch.arange(4.0), persistent=False)

    def forward(self, x):
        return self.fc(x * self.table)


class Named(nn.Module):
    """Its own attributes have the names that wrappers add."""

    def __init__(self):
        super().__init__()
        self.module, self.model = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.model(torch.relu(self.module(x)))


class Wrapped(nn.Module):
    def __init__(self):
        super().__init__()
        self.m = normed()

    def forward(self, x):
        return self.m(x)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trained(factory, seed=3):
    """A network whose weights and statistics are its own."""
    torch.manual_seed(seed)
    net = factory()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p))
        net.train()(X * 2 + 1)
    return net.eval()


def problem(factory, **options):
    return sl.Problem(factory, train=(X, Y), test=(X, Y), validation=0, **options)


def own_loss(net):
    return F.cross_entropy(net.eval()(X), Y).item()


def same(net, factory, source, mask=None, **options):
    p = problem(factory, **options)
    assert p.field("train").loss(p.point(source, mask)) == pytest.approx(own_loss(net), rel=1e-6)


def renamed(state, change):
    return {change(name): t for name, t in state.items()}


@pytest.mark.parametrize("factory", [normed, frozen, Tied, Table, Named, Wrapped])
def test_a_state_dict_is_its_network(factory):
    net = trained(factory)
    torch.save(net.state_dict(), "a.pt")
    save_model(net, "a.safetensors")
    for source in ("a.pt", "a.safetensors", net.state_dict(), net):
        same(net, factory, source)


@pytest.mark.parametrize("factory", [normed, Named, Tied])
@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "model._orig_mod.", "module.model.", "_orig_mod.module."]
)
def test_prefixes_go_where_the_names_then_fit(factory, prefix):
    net = trained(factory)
    same(net, factory, renamed(net.state_dict(), lambda n: prefix + n))


def test_wrappers_inside_names_and_names_that_lack_the_networks_prefix():
    net = trained(normed)
    same(net, normed, renamed(net.state_dict(), lambda n: n.replace("3.", "3._orig_mod.")))
    same(net, Wrapped, net.state_dict())
    same(net, Wrapped, renamed(net.state_dict(), lambda n: f"module.{n}"))
    pruned = trained(normed)
    prune.random_unstructured(pruned[0], "weight", 0.3)
    same(pruned, Wrapped, renamed(pruned.state_dict(), lambda n: f"_orig_mod.{n}"))


@pytest.mark.parametrize(
    "around",
    [
        lambda s: {"net": s, "acc": 93.0, "epoch": 3},
        lambda s: {"state_dict": renamed(s, lambda n: f"model.{n}"), "callbacks": {"Best": {"score": torch.ones(1)}}},
        lambda s: {"model": s, "ema": s, "optimizer": {"state": {0: {"m": torch.ones(2)}}, "param_groups": []}},
        lambda s: {"checkpoint": {"model": s}},
        lambda s: {"mine": s, "loss": torch.ones(())},
        lambda s: {**s, "epoch": 3},
    ],
)
def test_state_dicts_inside_of_others(around):
    net = trained(normed)
    torch.save(around(net.state_dict()), "a.pt")
    same(net, normed, "a.pt")


def test_keys_are_named_where_no_state_dict_or_several_are_found():
    state = trained(normed).state_dict()
    torch.save({"generator": state, "critic": state, "epoch": 1}, "two.pt")
    with pytest.raises(DataError, match=r"two\.pt holds state dicts under generator, critic; .* save the one"):
        load("two.pt")
    torch.save({"epoch": 3, "weights": [1, 2]}, "none.pt")
    with pytest.raises(DataError, match=r"holds dict with the keys epoch \(int\), weights \(list\)"):
        load("none.pt")


def test_counters_of_old_files_are_the_networks():
    net = trained(normed)
    old = {n: t for n, t in net.state_dict().items() if "num_batches" not in n}
    save_file(old, "old.safetensors")
    same(net, normed, "old.safetensors")


def test_a_buffer_that_was_persistent_once():
    net = trained(Table)
    same(net, Table, {**net.state_dict(), "table": torch.arange(4.0)})
    with pytest.raises(DataError, match=r"has a tensor 'table', which the network keeps out of its state dict and"):
        problem(Table).point({**net.state_dict(), "table": torch.ones(4)})


def test_shards_and_folders_of_them():
    net, folder = trained(normed), Path("big")
    folder.mkdir()
    state = net.state_dict()
    halves = {"model-00001-of-00002.safetensors": list(state)[:4], "model-00002-of-00002.safetensors": list(state)[4:]}
    for file, names in halves.items():
        save_file({n: state[n] for n in names}, folder / file)
    places = {n: file for file, names in halves.items() for n in names}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text("{}")
    same(net, normed, folder)
    same(net, normed, str(index))
    index.write_text(json.dumps({"weight_map": {**places, "0.weight": "../elsewhere.safetensors"}}))
    with pytest.raises(DataError, match="a shard lies in the folder of its index"):
        load(folder)
    index.write_text(json.dumps({"weight_map": {**places, "0.weight": "absent.safetensors"}}))
    with pytest.raises(DataError, match=r"names the shard absent\.safetensors, which is missing: copy it"):
        load(folder)
    index.write_text("[]")
    with pytest.raises(DataError, match="is no index of shards"):
        load(folder)
    index.unlink()
    with pytest.raises(DataError, match=r"big holds shards without their index: copy \*\.index\.json beside them"):
        load(folder)
    with pytest.raises(DataError, match=r"is one of 2 shards: name their folder or index"):
        load(folder / "model-00001-of-00002.safetensors")
    save_file(state, folder / "a.safetensors")
    with pytest.raises(DataError, match=r"big holds a.safetensors, model-00001.*; name one of them"):
        load(folder)
    for file in folder.iterdir():
        file.unlink()
    with pytest.raises(DataError, match="is a folder without a checkpoint"):
        load(folder)
    save_file(state, folder / "model.safetensors")
    same(net, normed, folder)


def test_the_content_says_what_a_file_is_and_not_its_ending():
    net = trained(normed)
    save_file(net.state_dict(), "a.bin")
    same(net, normed, "a.bin")
    save_file(net.state_dict(), "model-00001-of-00001.safetensors", metadata={"format": "pt", "epoch": "3"})
    same(net, normed, "model-00001-of-00001.safetensors")


@pytest.mark.parametrize("ending", ["safetensors", "pt"])
def test_texts_in_place_of_weights(ending):
    path = Path(f"a.{ending}")
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(DataError, match="is a pointer of Git LFS in place of the file: git lfs pull fetches the file"):
        load(path)
    path.write_text("<!DOCTYPE html><html>Log in</html>")
    with pytest.raises(DataError, match="it is damaged, or no ") as refusal:
        load(path)
    assert "weights_only" not in str(refusal.value)


def test_what_lies_beside_the_network_is_named_with_the_part_that_fits():
    net = trained(normed)
    inside = {f"model._orig_mod.{name}": t for name, t in net.state_dict().items()}
    with pytest.raises(DataError, match=r"such as 'criterion\.weight'; those under 'model\.' alone fit: save"):
        problem(normed).point({**inside, "criterion.weight": torch.ones(2), "metric.total": torch.ones(())})
    same(net, normed, {name.removeprefix("model."): t for name, t in inside.items()})
    two = {f"{who}.{name}": t for name, t in net.state_dict().items() for who in ("student", "teacher")}
    with pytest.raises(DataError, match=r"under 'student\.' or 'teacher\.' alone fit"):
        problem(normed).point(two)
    torch.save({**net.state_dict(), "0._extra_state": {"scale": 2.0}}, "a.pt")
    with pytest.raises(DataError, match=r"holds '0\._extra_state' beside its tensors; .* make it a buffer"):
        load("a.pt")


def test_a_refusal_names_the_checkpoint_and_not_its_content():
    for source, name in ((nn.Linear(4, 3), "the network Linear has"), ({"a.b": torch.ones(3)}, "the checkpoint has")):
        with pytest.raises(DataError, match=name) as refusal:
            problem(normed).point(source)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: trained(normed), r"an object of torch\.nn\.modules\.container\.Sequential.*found\.state_dict\(\)"),
        (lambda: {"model": trained(normed).state_dict(), "acc": np.float64(0.9)}, r"a numpy number.*'weights\.pt'"),
        (lambda: {"model": {}, "args": argparse.Namespace(lr=1)}, r"an object of argparse\.Namespace.*'weights\.pt'"),
    ],
)
def test_what_would_run_code_is_refused_with_the_whole_remedy(value, message):
    torch.save(value(), "a.pt")
    with pytest.raises(DataError, match=message) as refusal:
        load("a.pt")
    assert "\x1b" not in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_tensors_that_the_network_lacks_or_has_otherwise():
    state = trained(normed).state_dict()
    p = problem(normed)
    for change, message in (
        ({"4.weight": torch.ones(3)}, r"has a tensor '4.weight' \[3\], which the network lacks"),
        ({"0.weight": torch.ones(8, 4, dtype=torch.cfloat)}, "'0.weight' is complex64, the network's float32"),
        ({"0.weight": torch.ones(8, 4, dtype=torch.int8)}, "'0.weight' is int8, the network's float32"),
        ({"0.weight": torch.ones(8, 5)}, r"'0.weight' has shape \[8, 5\], the network's is \[8, 4\]"),
    ):
        with pytest.raises(DataError, match=message):
            p.point({**state, **change})
    tied = trained(Tied).state_dict()
    with pytest.raises(DataError, match=r"'wte.weight' and 'head.weight' are one tied tensor .* differ"):
        problem(Tied).point({**tied, "head.weight": tied["head.weight"] + 1})


def test_the_problems_network_is_left_as_it_is():
    p = problem(frozen)
    before = {n: t.clone() for n, t in p.module.state_dict().items()}
    p.point(trained(frozen))
    assert all(torch.equal(t, before[n]) for n, t in p.module.state_dict().items())


def test_half_precision_files_are_read_exactly_and_float64_files_kept():
    net = trained(normed).double()
    p = problem(normed, dtype="float64")
    at = p.point(net.state_dict())
    assert torch.equal(at.theta, p.space.point(net).theta)
    half = {n: t.bfloat16() if t.is_floating_point() else t for n, t in net.state_dict().items()}
    assert torch.equal(problem(normed).point(half).theta[:32], half["0.weight"].float().reshape(-1))


# --- masks


def pruned(factory, *entries):
    net = trained(factory)
    for path, name in entries:
        prune.random_unstructured(net.get_submodule(path), name, 0.5)
    return net


def test_pruned_weights_and_tied_ones():
    net = pruned(normed, ("0", "weight"), ("3", "weight"))
    same(net, normed, net.state_dict())
    found = problem(normed).checkpoint(net.state_dict())
    assert found.mask is not None
    assert int(found.mask[:32].sum()) == int(net[0].weight_mask.sum())
    tied = trained(Tied)
    mask = torch.rand(4, 4) < 0.5
    for layer in (tied.wte, tied.head):
        prune.custom_from_mask(layer, "weight", mask)
    same(tied, Tied, tied.state_dict())
    one = trained(Tied)
    prune.custom_from_mask(one.head, "weight", mask)
    with pytest.raises(DataError, match="one tied tensor of the network, and differ"):
        problem(Tied).point(one.state_dict())


def test_a_network_under_torch_prune_is_a_point_of_its_space():
    net = trained(normed)
    space = sl.Space.of(net)
    prune.random_unstructured(net[0], "weight", 0.5)
    at = space.point(net)
    assert torch.equal(at.theta[:32], net[0].weight.detach().reshape(-1))
    assert set(at.buffers) == set(space.buffers)
    with pytest.raises(ModelError, match=r"a point is read from a network, got OrderedDict; Problem.point reads"):
        space.point(net.state_dict())


def test_pruned_biases_and_norms_say_which_option_takes_them():
    net = pruned(normed, ("0", "weight"), ("0", "bias"), ("1", "weight"))
    with pytest.raises(DataError, match=r"'0.bias', which is not prunable here; make it so with prunable=\['default',"):
        problem(normed).point(net.state_dict())
    chosen = ["default", "0.bias", "1.weight"]
    same(net, normed, net.state_dict(), prunable=chosen)
    left = problem(normed, prunable=chosen).checkpoint(net.state_dict()).mask
    assert int((~left).sum()) == 16 + 4 + 4


def test_a_pruned_frozen_layer_is_its_product():
    net = pruned(frozen, ("0", "weight"))
    same(net, frozen, net.state_dict())


def test_zeros_are_a_mask_where_that_is_asked_for_and_are_remarked_on_elsewhere():
    net = pruned(normed, ("0", "weight"), ("3", "weight"))
    for path in ("0", "3"):
        prune.remove(net.get_submodule(path), "weight")
    p = problem(normed)
    with pytest.warns(UserWarning, match=r"24 of 48 prunable weights \(50%\) are exactly 0 and there is no mask"):
        dense = p.point(net.state_dict())
    assert p.field("train").loss(dense) == pytest.approx(own_loss(net), rel=1e-6)
    asked = p.checkpoint(net.state_dict(), "zeros")
    assert asked.notes == ()
    assert torch.equal(asked.mask, (dense.theta != 0) | ~p.space.prunable)
    healthy = p.checkpoint(trained(normed), "zeros")
    assert (healthy.mask, healthy.notes) == (None, ())


def test_masks_in_a_file_of_their_own():
    net = trained(normed)
    mask = torch.rand(8, 4) < 0.5
    net_masked = trained(normed)
    with torch.no_grad():
        net_masked[0].weight.mul_(mask)
    for masks in ({"0.weight": mask}, {"module.0.weight": mask.int()}, {"0.weight_mask": mask.float()}):
        torch.save(masks, "m.pt")
        same(net_masked, normed, net.state_dict(), "m.pt")
    torch.save({"0.weight": torch.full((8, 4), 0.5)}, "m.pt")
    with pytest.raises(DataError, match=r"holds something else than 0 and 1; .* is the mask 'zeros'"):
        problem(normed).point(net.state_dict(), "m.pt")


def test_averaged_weights_beside_others_are_refused_and_their_counter_is_ignored():
    net, other = trained(normed), normed()
    averaged = torch.optim.swa_utils.AveragedModel(net)
    same(net, normed, averaged.state_dict())
    same(net, normed, averaged)
    torch.save({"state_dict": net.state_dict(), "state_dict_ema": other.state_dict()}, "a.pt")
    with pytest.raises(DataError, match=r"state dicts under state_dict, state_dict_ema; .*save the one that is meant"):
        problem(normed).point("a.pt")
    torch.save({"state_dict": net.state_dict(), "state_dict_ema": net.state_dict(), "optimizer": {"state": {}}}, "a.pt")
    same(net, normed, "a.pt")


def test_adapters_quantised_weights_and_arrays_of_numpy_have_a_remedy():
    lora = {f"base_model.model.0.lora_{c}.weight": torch.ones(2, 4) for c in "AB"}
    with pytest.raises(DataError, match=r"holds an adapter \(LoRA\).* model.merge_and_unload\(\)"):
        problem(normed).point(lora)
    packed = {"0.scale": torch.ones(()), "0.zero_point": torch.zeros((), dtype=torch.int64)}
    with pytest.raises(DataError, match="holds quantised weights, which have no gradient: save the network as it was"):
        problem(normed).point(packed)
    np.savez("a.npz", **{name: t.numpy() for name, t in trained(normed).state_dict().items()})
    with pytest.raises(DataError, match=r"holds arrays of numpy; write them as safetensors"):
        problem(normed).point("a.npz")
    torch.save({"0.weight": np.ones((8, 4))}, "a.pt")
    with pytest.raises(DataError, match=r"numpy number or array \(arrays become tensors by"):
        problem(normed).point("a.pt")


def test_the_files_of_a_training_beside_the_weights_in_a_folder():
    Path("run").mkdir()
    net = trained(normed)
    torch.save(net.state_dict(), "run/pytorch_model.bin")
    for name in ("optimizer.bin", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"step": torch.ones(1)}, f"run/{name}")
    same(net, normed, "run")


def test_hints_where_numbers_are_of_another_kind():
    def refused(x, y, match):
        with pytest.raises(ModelError, match=match):
            _ = sl.Problem(normed, train=(x, y), test=(x, y), validation=0).module

    refused((10 * X).to(torch.int8), Y, "whole numbers count as tokens: give x.float")
    refused(X, Y.float(), "labels of classes are whole numbers: give y.long")
    void = torch.where(torch.arange(len(Y)) < 5, 255, Y)
    refused(X, void, r"if the label 255 marks what does not count, give loss=nn.CrossEntropyLoss\(ignore_index=255\)")


def test_a_state_in_memory_is_read_as_one_in_a_file_with_arrays_too():
    net = normed().eval()
    p = problem(normed)
    arrays = {name: tensor.numpy() for name, tensor in net.state_dict().items()}
    truth = F.cross_entropy(net(X), Y).item()
    for state in (arrays, {"state_dict": net.state_dict(), "epoch": 3}):
        assert p.field("train").loss(p.point(state)) == pytest.approx(truth, rel=1e-6)
    mask = np.ones((8, 4))
    mask[0] = 0
    assert int((~p.checkpoint(arrays, {"0.weight": mask}).mask).sum()) == 4
    with pytest.raises(DataError, match=r"dict with the keys 0.weight \(list\); a checkpoint is a state dict"):
        p.point(arrays, {"0.weight": [[1.0] * 4] * 8})
