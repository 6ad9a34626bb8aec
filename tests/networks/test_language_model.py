"""A language model that is trained here, from shards to tickets: what a user of transformers does."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import sublevel as sl
from networks.folders import network, saved
from sublevel.tickets import Ticket

LENGTH, WORDS = 16, "the loss of a network is a function of its weights and a basin is where it is low\n"


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """Shards of characters, and a folder with the network's initial weights."""
    alphabet = sorted(set(WORDS))
    codes = np.array([alphabet.index(letter) for letter in WORDS * 60], np.uint16)
    codes[: 50 * len(WORDS)].tofile(tmp_path / "train.bin")
    codes[50 * len(WORDS) :].tofile(tmp_path / "val.bin")
    saved(network("gpt2", "causal-lm", vocab_size=len(alphabet), n_embd=16, n_inner=32, n_layer=2), tmp_path / "net")
    return tmp_path


@pytest.mark.full
def test_it_learns_is_pruned_and_measured(text: Path):
    p = sl.Problem(
        f"hf:{text / 'net'}", data="tokens", root=text, data_options={"length": LENGTH}, validation=0,
        prunable="matrices", options={"weights": "random"},
    )  # fmt: skip
    study = sl.Study(
        p, name="lm", out=text / "runs", levels=1, fraction=0.5, rewind="10it", seeds=1, branches=["imp"],
        train={"epochs": 6, "batch_size": 16, "lr": 0.3},
        geometry={"paths": {"points": 5, "refine": 0, "size": 64},
                  "spectra": {"k": 2, "spaces": ["own"], "blocks": ["transformer.h.0.*"], "rows": 20, "size": 64}},
    )  # fmt: skip
    result = study.run(jobs=1, listener=lambda event: None, figures=False)
    assert result.failures.empty, result.failures["error"].tolist()
    dense, pruned = (result.levels.query("level == @level")["test_loss"].iloc[0] for level in (0, 1))
    assert max(dense, pruned) < 0.8 * math.log(len(p.splits.classes))

    ticket = Ticket.load(result.ticket("imp", 1, seed=0).save(text / "t.safetensors", end=True))
    assert ticket.density == pytest.approx(0.5, abs=1e-3)
    net = ticket.module(p.build(3, "init"))
    x, y = p.splits.test.x[:32], p.splits.test.y[:32]
    with torch.no_grad():
        own = F.cross_entropy(net(x).logits.flatten(0, 1), y.flatten()).item()
    field = sl.EmpiricalRisk(p.space, p.module, x, y)
    assert field.loss(ticket.end) == pytest.approx(own, rel=1e-5)

    given = {"dense": saved(ticket_of(p, result), text / "dense"), "pruned": saved(net, text / "pruned")}
    blocks = dict.fromkeys(("paths", "density", "overlaps", "volumes"))
    blocks |= {"spectra": {"k": 1, "spaces": ["all"], "size": 64}, "topology": {"points": 11, "size": 64}}
    measured = sl.measure(
        given, p, masks={"pruned": "zeros"}, geometry=blocks, out=text / "runs", jobs=1, figures=False
    )
    table = sl.answer(measured).checkpoints.set_index("checkpoint")
    assert table["density"]["pruned"] == pytest.approx(0.5, abs=1e-3)
    assert table["test_loss"]["pruned"] == pytest.approx(pruned, rel=1e-4)


def ticket_of(p: sl.Problem, result: sl.Result) -> torch.nn.Module:
    """The dense network of a study."""
    net = p.build(0, "init")
    p.space.write(net, result.point("dense"))
    return net
