"""Learned masks as branches of a study: what is kept, from where it is trained, and that jobs change nothing."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch
from torch import nn

import sublevel as sl
import tiny_runs
from sublevel.errors import ConfigError
from sublevel.prune.repeated import repeated
from sublevel.prune.select import layer_counts, select
from sublevel.rng import generator
from sublevel.space import Point
from sublevel.study.cells import stored_mask, stored_point
from sublevel.study.result import to_csv
from sublevel.train import learned

SEED, LEVELS, FRACTION, REWIND, STEPS = 6, 2, 0.4, 3, 8
RECIPE = {"epochs": 2, "batch_size": 50, "lr": 0.3}
BRANCHES = [
    "edge-popup",
    {"name": "edge-popup", "label": "popup-global", "options": {"scope": "global", "lr": 0.5}, "order": "independent"},
    {"name": "edge-popup", "label": "popup-signs", "options": {"weights": "signed-constant"}},
    "edge-popup-train",
    {"name": "continuous-sparsification", "options": {"penalty": 1e-3, "initial": 0.05, "beta": 100.0}},
]
LABELS = [b if isinstance(b, str) else b.get("label", b["name"]) for b in BRANCHES]
EVERY = pytest.mark.parametrize("label", LABELS)
PROTECTED = "6.weight"


def net(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 12), nn.ReLU(),
        nn.Linear(12, classes),
    )  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> sl.Result:
    a = {k: torch.from_numpy(v) for k, v in tiny_runs.arrays().items()}
    data = {split: (a[f"{split}_x"][:, None], a[f"{split}_y"]) for split in ("train", "test")}
    study = sl.Study(
        sl.Problem(net, **data, validation=40), seeds=[SEED], levels=LEVELS, fraction=FRACTION, rewind=f"{REWIND}it",
        branches=BRANCHES, protect=[PROTECTED], train=RECIPE, out=tmp_path_factory.mktemp("learned"),
        geometry={"legs": {"levels": [2], "buffers": ["stored"]},
                  "prunings": {"levels": [2], "buffers": ["stored"], "draws": 3},
                  "paths": {"points": 3, "refine": 0, "size": 50, "buffers": ["averaged"], "to_dense": None}},
    )  # fmt: skip
    done = study.run(jobs=1, report=False)
    assert len(done.failures) == 0, done.failures
    return done


def output(result: sl.Result, cell: str, name: str):
    (key,) = [c["key"] for c in result.document["cells"] if c["cell"] == cell]
    entry = result.store.read_entry(key)
    assert entry is not None
    return (stored_mask if name == "mask" else stored_point)(result.store, entry["objects"][name])


def of(result: sl.Result, label: str, level: int):
    return result.ticket(label, level, seed=SEED)


@EVERY
def test_counts_are_imp_s_and_what_is_protected_stays(result: sl.Result, label: str) -> None:
    space = result.problem.space
    left = int(space.prunable.sum())
    rows = result.levels.query(f"branch == '{label}'").set_index("level")
    for level in range(1, LEVELS + 1):
        left -= int(FRACTION * left + 0.5)
        mask = of(result, label, level).mask
        assert space.remaining(mask) == left == rows.loc[level, "remaining"]
        assert bool(mask[~space.prunable].all())
        assert bool(mask[space.indicator(PROTECTED)].all())
        if label in ("edge-popup", "popup-signs", "edge-popup-train"):
            first, second, _ = layer_counts(space, mask)
            assert first / 36 == pytest.approx(second / 768, abs=0.5 / 36 + 0.5 / 768), "one density in every layer"


@pytest.mark.parametrize("label", LABELS[:3])
def test_edge_popup_trains_no_weight(result: sl.Result, label: str) -> None:
    p, init = result.problem, result.problem.init(SEED).theta
    frozen = learned.signed_constant(p.space, init) if label == "popup-signs" else init
    for level in range(1, LEVELS + 1):
        ticket = of(result, label, level)
        assert torch.equal(ticket.start.theta, frozen)
        assert torch.equal(ticket.end.theta, ticket.start.project(ticket.mask).theta)
        assert not torch.signbit(ticket.end.theta[~ticket.mask]).any()
        assert not torch.equal(ticket.end.buffers["1.running_mean"], ticket.start.buffers["1.running_mean"])
        row = result.levels.query(f"branch == '{label}' and level == {level}").iloc[0]
        assert row["steps"] == STEPS / 2
        seen = p.field("test").evaluate(ticket.end)
        assert (row["test_loss"], row["test_error"]) == pytest.approx((seen.loss, seen.error))


def test_a_mask_is_that_of_its_scores(result: sl.Result) -> None:
    """From the function itself: its own data order, rate and count."""
    p, space = result.problem, result.problem.space
    for label, order, lr, scope in (("edge-popup", "", 0.3, 3), ("popup-global", "level-2", 0.5, 1)):
        mask = of(result, label, 2).mask
        counts = layer_counts(space, mask)
        keep, protect = (counts, []) if scope == 3 else ([sum(counts)], [PROTECTED])
        setup = p.setup(recipe=sl.Recipe(batch_size=50, lr=lr).with_length("2ep"), seed=SEED, order=order)
        scores = learned.initial_scores(space, torch.float32, generator(SEED, "scores"))
        done = learned.edge_popup(setup, p.init(SEED), scores, choose=repeated(space, keep, protect=protect))
        assert torch.equal(mask, done.end.theta.ne(0) | ~space.prunable)
        searched = result.history.query(f"branch == '{label} (mask)' and level == 2")
        assert list(searched["train_loss"]) == [row["train_loss"] for row in done.history]
        assert list(searched["step"]) == [4, 8]


def test_edge_popup_train_goes_on_from_the_frozen_weights(result: sl.Result) -> None:
    for level in range(1, LEVELS + 1):
        ticket, popped = of(result, "edge-popup-train", level), of(result, "edge-popup", level)
        assert torch.equal(ticket.mask, popped.mask)
        assert torch.equal(ticket.start.theta, popped.start.theta)
        assert torch.equal(ticket.start.buffers["1.running_mean"], torch.zeros(4))
        assert float((ticket.end.theta[ticket.mask] != popped.end.theta[ticket.mask]).float().mean()) > 0.8
        assert result.levels.query(f"branch == 'edge-popup-train' and level == {level}")["steps"].item() == STEPS


def test_continuous_sparsification_is_a_chain_of_rounds(result: sl.Result) -> None:
    """Each goes on from the weights and the clipped scores of the one before; the ticket is rewound to step k."""
    p, space = result.problem, result.problem.space
    at = output(result, f"train/dense/L0/s{SEED}", f"step-{REWIND}")
    rewound, soft = at, space.prunable & ~space.indicator(PROTECTED)
    scores = torch.full_like(at.theta, 0.05)
    for level in range(1, LEVELS + 1):
        setup = p.setup(recipe=sl.Recipe(batch_size=50, lr=0.3).with_length("2ep"), seed=SEED)
        done = learned.continuous_sparsification(
            setup, at, scores, soft=soft, penalty=1e-3, beta=100.0, first=REWIND
        )  # fmt: skip
        ticket = of(result, "continuous-sparsification", level)
        keep = [space.remaining(ticket.mask)]
        assert torch.equal(ticket.mask, select(space, done.scores, space.full_mask(), keep, protect=[PROTECTED]))
        assert torch.equal(ticket.start.theta, rewound.theta)
        assert torch.equal(ticket.start.buffers["1.running_mean"], rewound.buffers["1.running_mean"])
        row = result.levels.query(f"branch == 'continuous-sparsification' and level == {level}").iloc[0]
        assert row["soft_remaining"] == int((done.scores[soft] > 0).sum()) + 36
        assert row["soft_remaining"] != row["remaining"]
        assert row["steps"] == STEPS - REWIND
        at, scores = Point(done.weights, done.end.buffers), (100.0 * done.scores).clamp(max=0.05)
    assert result.levels.query("branch != 'continuous-sparsification'")["soft_remaining"].isna().all()


def test_what_is_measured_of_them(result: sl.Result) -> None:
    """Legs from the network that the mask was learned in; masks that are not nested lie in R^D."""
    legs = result.legs.query("leg == 'prune' and split == 'train'").set_index(["branch", "level"])
    for label in LABELS:
        assert (label, LEVELS) in legs.index
        assert len(result.prunings.query(f"branch == '{label}'")) == 4
    end = result.problem.field("train").evaluate(
        of(result, "edge-popup", 2).start.project(of(result, "edge-popup", 2).mask)
    )
    assert legs.loc[("edge-popup", 2), "loss_end"] == pytest.approx(end.loss)
    assert set(result.paths.query("level_to > 1")["subspace"]) == {"all"}


@pytest.mark.full
def test_jobs_change_no_bit_and_the_report_tells_of_them(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = '["edge-popup", {name = "edge-popup-train", levels = [2]}, "continuous-sparsification"]'
    (workshop / "small.toml").write_text(tiny_runs.SMALL.replace('["imp", "finetune"]', lines))
    done = tiny_runs.cli("run", "small.toml", "--jobs", 2, cwd=workshop, page=True)
    assert done.returncode == 0, done.stderr + done.stdout
    run, soft = workshop / "sublevel-runs" / "small", "continuous-sparsification"
    with (run / "tables" / "levels.csv").open() as file:
        rows = [(r["branch"], int(r["level"]), bool(r["soft_remaining"])) for r in csv.DictReader(file)]
    learnt = [("edge-popup", 1), ("edge-popup", 2), ("edge-popup-train", 2), (soft, 1), (soft, 2)]
    assert rows == [(branch, level, branch == soft) for branch, level in [("dense", 0), *learnt]]
    assert all(name in (run / "report.html").read_text() for name, _ in learnt)
    monkeypatch.chdir(workshop)
    alone = sl.Study("small.toml", out="alone").run(jobs=1, report=False)
    for name, table in alone.tables.items():
        assert to_csv(table).encode() == (run / "tables" / f"{name}.csv").read_bytes(), name


@pytest.mark.parametrize(
    ("name", "option", "message"),
    [
        ("edge-popup", {"scope": "layers"}, r"unknown scope 'layers' \(branch 'edge-popup'\); did you mean 'layer'\?"),
        ("edge-popup-train", {"weights": "signed"}, r"unknown weights 'signed' .*; allowed: initial, signed-constant"),
        (
            "edge-popup",
            {"lr": -0.1},
            r"branch 'edge-popup': lr must be 0 \(the recipe's\) or more, and finite, got -0.1",
        ),
        ("edge-popup", {"lr": float("nan")}, "lr must be"),
        ("continuous-sparsification", {"penalty": -1.0}, r"penalty must be at least 0, and finite, got -1.0"),
        ("continuous-sparsification", {"beta": 0.5}, r"beta must be at least 1, and finite, got 0.5"),
        ("continuous-sparsification", {"initial": float("inf")}, r"initial must be finite, got inf"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(tmp_path: Path, name: str, option: dict, message: str) -> None:
    study = sl.Study("demo", branches=[{"name": name, "options": option}], geometry={}, out=tmp_path / "out")
    with pytest.raises(ConfigError, match=message):
        study.plan()
    assert not (tmp_path / "out").exists()
