"""Data in files are the same data: same parts, same batches, same bits of training, and memory stays flat."""

from __future__ import annotations

import copy
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_sources import sharded

from sublevel import Problem
from sublevel.data import load, split
from sublevel.data.batches import epoch_plan, gather
from sublevel.data.splits import moments
from sublevel.data.streamed import Streamed
from sublevel.errors import ConfigError, DataError
from sublevel.train.recipe import Duration, Recipe
from tiny_runs import arrays, cli, furnish, python, tables, until


@pytest.fixture
def both(tmp_path: Path):
    """The same data in memory, and in shards."""
    data = arrays()
    np.savez(tmp_path / "data.npz", **data)
    return load("arrays", root=tmp_path / "data.npz"), load("shards", root=sharded(tmp_path / "shards", data))


def test_rows_are_those_of_the_arrays(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    rows = Streamed([whole[:20], whole[20:21], whole[21:]])
    index = torch.tensor([49, 0, 20, 20, 19, 21, 3])
    assert torch.equal(rows[index], torch.from_numpy(whole)[index])
    assert torch.equal(rows[15:25], torch.from_numpy(whole)[15:25])
    assert torch.equal(rows[:0], torch.from_numpy(whole)[:0])
    mask = torch.arange(50) % 3 == 1
    chosen = rows.keep(mask)
    assert torch.equal(chosen[:], torch.from_numpy(whole)[mask])
    assert torch.equal(chosen.keep(torch.arange(len(chosen)) > 5)[:], torch.from_numpy(whole)[mask][6:])
    assert (chosen.shape, chosen.dtype, chosen.ndim, chosen.numel()) == ((17, 3), torch.float32, 2, 51)


class File:
    """An array that notes who reads which rows; one row cannot be read."""

    def __init__(self, array: np.ndarray, broken: int = -1) -> None:
        self.array, self.broken, self.seen = array, broken, list[tuple[int, list[int]]]()
        self.shape, self.dtype = array.shape, array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        self.seen.append((threading.get_ident(), rows.tolist()))
        if self.broken in rows:
            raise OSError(5, "Input/output error")
        return self.array[rows]


def test_the_next_batches_are_read_while_one_is_used() -> None:
    file = File(np.arange(20).reshape(10, 2))
    batches = Streamed([file]).ahead(torch.arange(10).split(2))  # type: ignore[list-item]
    found = [next(batches)]
    until(lambda: len(file.seen) == 3)
    found.append(next(batches))
    until(lambda: len(file.seen) == 4)
    assert {who for who, _ in file.seen}.isdisjoint({threading.get_ident()})
    assert torch.equal(torch.cat([*found, *batches]), torch.arange(20).view(10, 2))
    assert [rows for _, rows in file.seen] == [[i, i + 1] for i in range(0, 10, 2)]


def test_an_error_of_the_reader_is_raised_where_its_rows_are_due() -> None:
    before = threading.active_count()
    batches = Streamed([File(np.arange(20).reshape(10, 2), broken=4)]).ahead(torch.arange(10).split(2))  # type: ignore
    assert torch.equal(next(batches), torch.tensor([[0, 1], [2, 3]]))
    assert torch.equal(next(batches), torch.tensor([[4, 5], [6, 7]]))
    with pytest.raises(OSError, match="Input/output error"):
        next(batches)
    assert threading.active_count() == before


def test_a_training_that_cannot_read_fails_and_leaves_no_thread(tmp_path: Path) -> None:
    problem = Problem("lenet-300-100", data="shards", root=sharded(tmp_path, arrays()), validation=40)
    rows = problem.splits.train.x
    rows._arrays = [File(rows._arrays[0], broken=7), *rows._arrays[1:]]
    before = threading.active_count()
    with pytest.raises(OSError, match="Input/output error"):
        problem.trained(problem.init(0), recipe=Recipe(length=Duration(8, "it"), batch_size=20, lr=0.1), seed=0)
    assert threading.active_count() == before


def test_slices_in_turn_are_read_ahead() -> None:
    file = File(np.arange(20).reshape(10, 2))
    rows = Streamed([file])  # type: ignore[list-item]
    for _ in range(2):  # a second pass begins anew
        file.seen.clear()
        found = [rows[0:4], rows[4:8]]
        until(lambda: len(file.seen) == 3)
        assert [who == threading.get_ident() for who, _ in file.seen] == [True, True, False]
        assert torch.equal(torch.cat([*found, rows[8:12]]), torch.arange(20).view(10, 2))
        assert [at for _, at in file.seen] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_other_slices_are_right_whatever_was_read_ahead() -> None:
    whole = np.arange(60).reshape(30, 2)
    rows = Streamed([whole[:7], whole[7:]])
    for part in (slice(0, 4), slice(4, 8), slice(4, 8), slice(9, 12), slice(8, 12), slice(12, 13), slice(-4, None)):
        assert torch.equal(rows[part], torch.from_numpy(whole)[part])
    twin = copy.deepcopy(rows)
    assert torch.equal(twin[26:], torch.from_numpy(whole)[26:])


def test_an_error_of_reading_ahead_is_raised_where_its_rows_are_due() -> None:
    rows = Streamed([File(np.arange(20).reshape(10, 2), broken=9)])  # type: ignore[list-item]
    assert (len(rows[0:4]), len(rows[4:8])) == (4, 4)
    with pytest.raises(OSError, match="Input/output error"):
        rows[8:12]


def test_a_field_reads_its_next_batch_while_it_works(tmp_path: Path) -> None:
    data = arrays()
    np.savez(tmp_path / "data.npz", **data)
    here = Problem("lenet-300-100", data="arrays", root=tmp_path / "data.npz", validation=40)
    there = Problem("lenet-300-100", data="shards", root=sharded(tmp_path / "shards", data), validation=40)
    rows = there.splits.train.x
    rows._arrays = files = [File(array) for array in rows._arrays]
    losses = [problem.field("train", batch_size=20).loss(here.init(0)) for problem in (here, there)]
    assert losses[0] == losses[1]
    assert {who for file in files for who, _ in file.seen} > {threading.get_ident()}


def test_parts_and_their_digest_are_the_same(both) -> None:
    here, there = (split(data, validation=40, train_size=150, test_size=50) for data in both)
    assert isinstance(there.train.x, Streamed)
    assert here.digest == there.digest
    assert (here.mean, here.std, here.input_shape) == (there.mean, there.std, there.input_shape)
    for part in ("train", "validation", "test"):
        assert torch.equal(getattr(here, part).x, getattr(there, part).x[:])


def test_moments_of_many_blocks_are_exact(both, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sublevel.data.streamed.BLOCK_BYTES", 100)
    assert moments(both[0].train_x) == moments(both[1].train_x)


@pytest.mark.parametrize(("pad", "flip"), [(0, False), (2, False), (0, True), (2, True)])
def test_batches_are_the_same(both, pad: int, flip: bool) -> None:
    plan = epoch_plan(240, seed=1, epoch=2, pad=pad, flip=flip)
    batches = [gather(d.train_x, plan, 30, 75) for d in both]
    assert torch.equal(*batches)


def test_a_training_is_the_same_to_the_bit(tmp_path: Path) -> None:
    data = arrays()
    np.savez(tmp_path / "data.npz", **data)
    recipe = Recipe(length=Duration(9, "it"), batch_size=50, lr=0.05, crop=1, flip=True)
    ends, losses = [], []
    for name, root in (("arrays", tmp_path / "data.npz"), ("shards", sharded(tmp_path / "s", data))):
        p = Problem("lenet-300-100", data=name, root=root, validation=40)
        end = p.trained(p.init(0, "init"), recipe=recipe, seed=0).end
        field = p.field("train", policy="stored")
        ends.append(end.theta)
        losses.append((field.loss(end), field.hvp(end, torch.ones(p.space.dim))))
    assert torch.equal(*ends)
    assert torch.equal(losses[0][1], losses[1][1])
    assert losses[0][0] == losses[1][0]


@pytest.mark.full
def test_a_study_of_shards_finds_the_results_of_the_same_data(tmp_path: Path) -> None:
    workshop = furnish(tmp_path)
    assert cli("run", "small.toml", "--jobs", 1, cwd=workshop).returncode == 0
    before = tables(workshop / "sublevel-runs" / "small")
    sharded(workshop / "shards", arrays())
    again = cli("run", "small.toml", "--set", "data.name=shards", "--set", "data.root=shards", cwd=workshop)
    assert "nothing to compute" in again.stdout, again.stdout + again.stderr
    assert tables(workshop / "sublevel-runs" / "small") == before


@given(n=st.integers(1, 200), block=st.integers(1, 40), mix=st.integers(1, 9), epoch=st.integers(0, 3))
def test_a_plan_in_blocks_is_a_permutation_of_long_runs(n: int, block: int, mix: int, epoch: int) -> None:
    index = epoch_plan(n, seed=0, epoch=epoch, block=block, mix=mix).index
    assert sorted(index.tolist()) == list(range(n))
    seen, begin = set(), 0
    while begin < n:  # every group is whole: it ends where its blocks do, and no block comes back
        found = set()
        size = 0
        while len(found) < mix and begin + size < n:
            found.add(int(index[begin + size]) // block)
            size = sum(min((b + 1) * block, n) - b * block for b in found)
            if {int(i) // block for i in index[begin : begin + size]} == found and len(found) == mix:
                break
            found |= {int(i) // block for i in index[begin : begin + size]}
        size = sum(min((b + 1) * block, n) - b * block for b in found)
        assert {int(i) // block for i in index[begin : begin + size]} == found
        assert not seen & found
        seen |= found
        begin += size


def test_blocks_change_with_the_epoch_and_one_block_is_any_order() -> None:
    one, two = (epoch_plan(1000, seed=0, epoch=e, block=10, mix=4).index for e in (0, 1))
    assert not torch.equal(one, two)
    assert int((one.diff().abs() == 1).sum()) < 200, "what is mixed is shuffled"
    whole = epoch_plan(1000, seed=0, epoch=0, block=1000).index
    assert sorted(whole.tolist()) == list(range(1000))


MEMORY = """
import threading, time, torch
from pathlib import Path
torch.set_num_threads(1)
from sublevel import Problem
from sublevel.train.recipe import Duration, Recipe


def own():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon"))


p = Problem("lenet-300-100", data="shards", root="shards", validation=1000)
before, highest = own(), 0.0


def watch():
    global highest
    while True:
        highest = max(highest, own())
        time.sleep(0.01)


threading.Thread(target=watch, daemon=True).start()
size = sum(f.stat().st_size for f in Path("shards").iterdir()) / 2**20
p.splits
p.trained(p.init(0, "init"), recipe=Recipe(length=Duration(200, "it"), batch_size=100, block=2000, mix=2), seed=0)
p.field("train").loss(p.init(0, "init"))
print(size, highest - before)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    """400 MB in files are normalised, trained on and evaluated with some tens of MB of memory of one's own."""
    (tmp_path / "shards").mkdir()
    rng = np.random.default_rng(0)
    for split_, counts in (("train", (200_000, 200_000)), ("test", (1000,))):
        for i, n in enumerate(counts):
            np.save(tmp_path / "shards" / f"{split_}_x-{i}.npy", rng.integers(0, 256, (n, 1, 32, 32), np.uint8))
            np.save(tmp_path / "shards" / f"{split_}_y-{i}.npy", np.arange(n) % 10)
    done = python("-c", MEMORY, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    size, grown = map(float, done.stdout.split())
    assert size > 380
    assert grown < 150


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must be a folder"):
        load("shards", root=tmp_path / "nothing")
    folder = sharded(tmp_path / "shards", arrays())
    with pytest.raises(ConfigError, match="a list of names"):
        load("shards", root=folder, classes="abc")
    first = folder / "train_x-000.npy"
    whole = first.read_bytes()
    for damage, word in (
        (lambda: first.write_bytes(whole[:200]), "cannot be read"),
        (lambda: first.write_bytes(b""), "cannot be read"),
        (lambda: np.save(first, np.array([{"a": 1}], dtype=object)), "cannot be read"),
        (lambda: np.save(first, np.zeros((80, 1, 6, 6), np.float64)), "float64"),
        (lambda: np.save(first, np.zeros((80, 1, 6, 5), np.uint8)), "all shards of an array are alike"),
        (lambda: np.save(first, np.zeros((79, 1, 6, 6), np.uint8)), "239 samples but 240 labels"),
        (lambda: [p.unlink() for p in folder.glob("train_x-*")], "has no train_x"),
    ):
        damage()
        with pytest.raises(DataError, match=word):
            load("shards", root=folder)


def test_a_float_that_is_not_finite_is_found_in_its_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sublevel.data.streamed.BLOCK_BYTES", 40)
    data = {
        f"{s}_{k}": np.ones((30, 2), np.float32) if k == "x" else np.arange(30) % 2
        for s in ("train", "test")
        for k in "xy"
    }
    data["train_x"][17, 1] = np.nan
    with pytest.raises(DataError, match="sample 17"):
        load("shards", root=sharded(tmp_path / "shards", data))
