"""A ticket in a file: the same bits back, in any network that fits; what is damaged or does not fit is named."""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import prune

import sublevel as sl
import sublevel.tickets
from sublevel.errors import ConfigError, DataError, ModelError, StoreError
from sublevel.space import Point, Space
from sublevel.tickets import Ticket, file
from tickets_at_hand import Odd, odd, ticket_of

DOCS = Path(__file__).parent.parent / "docs" / "ticket.md"
X = torch.randn(9, 6, generator=torch.Generator().manual_seed(7))


@pytest.fixture
def ticket() -> Ticket:
    return ticket_of(odd(1), odd(2), {"branch": "by hand", "level": 1})


@pytest.fixture
def path(ticket: Ticket, tmp_path: Path) -> Path:
    return ticket.save(tmp_path / "t.safetensors", end=True)


def header(path: Path) -> dict:
    with safe_open(path, "pt") as opened:
        assert list(opened.metadata()) == ["sublevel-ticket"]
        return json.loads(opened.metadata()["sublevel-ticket"])


def same_bits(a: Point, b: Point) -> bool:
    pairs = [(a.theta, b.theta), *((a.buffers[name], b.buffers[name]) for name in b.buffers)]
    return a.buffers.keys() == b.buffers.keys() and all(
        s.dtype == t.dtype and torch.equal(s.reshape(-1).view(torch.uint8), t.reshape(-1).view(torch.uint8))
        for s, t in pairs
    )


def test_a_file_gives_the_ticket_back(ticket: Ticket, path: Path) -> None:
    again = sl.load_ticket(path)
    assert again.space == ticket.space
    assert torch.equal(again.mask, ticket.mask)
    assert same_bits(again.start, ticket.start)
    assert same_bits(again.end, ticket.end)
    assert again.constants.keys() == {"frozen"}
    assert torch.equal(again.constants["frozen"], ticket.constants["frozen"])
    assert again.about == {"branch": "by hand", "level": 1}
    assert 0.3 < again.density < 0.7


def test_every_bit_of_a_float64_survives(tmp_path: Path) -> None:
    ticket = ticket_of(odd(1, torch.float64), odd(2, torch.float64))
    theta = ticket.start.theta
    theta[:4] = torch.tensor([-0.0, 1e-310, 1 / 3, -1e300], dtype=torch.float64)
    again = Ticket.load(ticket.save(tmp_path / "t"))
    assert again.start.theta.dtype == torch.float64
    assert same_bits(again.start, ticket.start)
    assert torch.signbit(again.start.theta[0])


def test_one_ticket_gives_the_same_bytes(ticket: Ticket, path: Path, tmp_path: Path) -> None:
    shuffled = {
        at: Point(p.theta, dict(reversed(p.buffers.items()))) for at, p in reversed(list(ticket.points.items()))
    }
    other = Ticket(ticket.mask, shuffled, ticket.space, ticket.constants, {"level": 1, "branch": "by hand"})
    assert other.save(tmp_path / "other", end=True).read_bytes() == path.read_bytes()
    assert Ticket.load(path).save(tmp_path / "again", end=True).read_bytes() == path.read_bytes()


def test_the_file_is_safetensors_with_packed_bits_and_nothing_pickled(ticket: Ticket, path: Path, monkeypatch) -> None:
    tensors = load_file(path)
    assert np.array_equal(tensors["mask"].numpy(), np.packbits(ticket.mask.numpy()))
    assert tensors["start/first.weight"].shape == (6, 6)
    assert "start/second.weight" not in tensors
    assert {"start/scale", "end/norm.running_var", "constant/frozen"} <= tensors.keys()
    assert header(path)["parameters"][0] == {
        "name": "first.weight", "shape": [6, 6], "dtype": "float32", "prunable": True,
    }  # fmt: skip
    for module, name in ((torch, "load"), (torch, "save"), (pickle, "loads"), (pickle, "load"), (pickle, "dumps")):
        monkeypatch.setattr(module, name, None)
    assert Ticket.load(path).save(path).is_file()


def test_end_weights_are_there_only_if_wanted(ticket: Ticket, tmp_path: Path) -> None:
    again = Ticket.load(ticket.save(tmp_path / "t"))
    assert list(again.points) == ["start"]
    assert torch.equal(again.point().theta, ticket.start.theta * ticket.mask)
    for ask in (lambda: again.end, lambda: again.module(Odd(), at="end"), lambda: again.save(tmp_path / "u", end=True)):
        with pytest.raises(ModelError, match=r"does not hold 'end'; it holds start \(a file has .* end=True\)"):
            ask()
    with pytest.raises(ModelError, match="does not hold 'strat'; it holds start"):
        again.module(Odd(), at="strat")
    assert not (tmp_path / "u").exists()


# --- In a network.


def test_another_network_computes_the_same_function(ticket: Ticket, path: Path) -> None:
    """Constants, tied weights and buffers that no state dict holds are part of the function."""
    expected = odd(2)
    ticket.space.write(expected, ticket.end)
    net = odd(5)
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        assert torch.equal(Ticket.load(path).module(net)(X), expected(X))
        assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items()), "the network itself was moved"
        assert torch.equal(Ticket.load(path).apply(net)(X), expected(X))
        assert not torch.equal(Ticket.load(path).apply(net, at="start")(X), expected(X))
    assert net.second.weight is net.first.weight
    assert torch.equal(Space.of(net).point(net).theta, torch.where(ticket.mask, ticket.start.theta, 0))
    assert not ticket.module(net.train()).training


def test_a_ticket_from_a_file_has_no_code(path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds weights and no code: give the network, as module\(net\)"):
        Ticket.load(path).module()


def test_under_torch_prune_the_masks_persist(ticket: Ticket) -> None:
    plain = ticket.module(odd(5))
    net = ticket.to_torch_prune(odd(5))
    assert prune.is_pruned(net)
    assert not prune.is_pruned(plain)
    with torch.no_grad():
        assert torch.equal(net(X), plain(X))
    kept = ticket.masks()["first.weight"]
    assert {n for n in net.state_dict() if n.endswith("_mask")} == {
        f"{o}.weight_mask" for o in ("first", "second", "last")
    }
    for _ in range(2):
        trained = [p for p in net.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(net.train()(X).square().sum(), trained)
        with torch.no_grad():
            for parameter, gradient in zip(trained, gradients, strict=True):
                parameter -= 0.1 * (gradient + 0.1 * parameter)
    net(X)
    for owner in (net.first, net.second):
        assert torch.equal(owner.weight == 0, ~kept)
        assert not torch.equal(owner.weight[kept], plain.first.weight[kept])
    assert net.second.weight_orig is net.first.weight_orig
    prune.remove(net.last, "weight")
    assert torch.equal(net.last.weight == 0, ~ticket.masks()["last.weight"])


def test_a_dense_ticket_is_under_torch_prune_too(ticket: Ticket) -> None:
    dense = Ticket(ticket.space.full_mask(), {"start": ticket.start}, ticket.space, ticket.constants)
    assert prune.is_pruned(dense.to_torch_prune(Odd()))


class Renamed(Odd):
    def __init__(self) -> None:
        super().__init__()
        last = self.last
        del self.last
        self.head = last


class Longer(Odd):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(3, 3)


class Unfrozen(Odd):
    def __init__(self) -> None:
        super().__init__()
        del self.frozen
        self.cold = nn.Parameter(torch.zeros(6), requires_grad=False)


class NoBuffer(Odd):
    def __init__(self) -> None:
        super().__init__()
        del self.scale
        self.register_buffer("factor", torch.ones(6))


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (lambda: Odd(5), r"parameter 1 is 'first.weight' \[6, 6\] in the ticket, 'first.weight' \[5, 5\] in Odd"),
        (Renamed, r"parameter 5 is 'last.weight' \[3, 6\] in the ticket, 'head.weight' \[3, 6\] in Renamed"),
        (Longer, r"parameter 7 is absent in the ticket, 'more.weight' \[3, 3\] in Longer"),
        (lambda: nn.Linear(6, 6, bias=False), r"parameter 1 is 'first.weight' \[6, 6\] .* 'weight' \[6, 6\] in Linear"),
        (Unfrozen, r"parameter 1 is 'first.weight' \[6, 6\] in the ticket, 'cold' \[6\] in Unfrozen"),
        (NoBuffer, r"buffer 1 is 'scale' \[6\] in the ticket, 'factor' \[6\] in NoBuffer"),
    ],
)
def test_another_architecture_is_named_and_left_alone(ticket: Ticket, build, sentence: str) -> None:
    net = build()
    before = copy.deepcopy(net.state_dict())
    for use in (ticket.apply, ticket.module, ticket.to_torch_prune):
        with pytest.raises(ModelError, match="the ticket is for another network: " + sentence):
            use(net)
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())


def test_a_constant_that_is_trained_now_is_no_longer_the_ticket_s(ticket: Ticket) -> None:
    net = Odd()
    del net.frozen
    with pytest.raises(ModelError, match=r"constant parameter 1 is 'frozen' \[6\] in the ticket, absent in Odd"):
        ticket.apply(net)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: {"mask": t.mask[1:]}, r"the mask has shape \[74\], the network's is \[75\]"),
        (lambda t: {"mask": t.mask.float()}, "a mask is of type bool, got float32"),
        (lambda t: {"mask": t.mask & (torch.arange(75) < 74)}, "removes weights of 'last.bias', which is not prunable"),
        (lambda t: {"points": {"end": t.end}}, "a ticket needs the point 'start', got end"),
        (
            lambda t: {"points": {"start": t.start, "end": Point(t.end.theta)}},
            "the point 'end' does not have the buffers",
        ),
        (lambda t: {"points": {"start": t.start, "end": t.end.to(dtype=torch.float64)}}, "or not the start's types"),
    ],
)
def test_parts_that_do_not_belong_together(ticket: Ticket, change, sentence: str) -> None:
    parts = {"mask": ticket.mask, "points": ticket.points, "space": ticket.space} | change(ticket)
    with pytest.raises(ModelError, match=sentence):
        Ticket(**parts)


def test_what_is_said_of_a_ticket_is_json(ticket: Ticket, tmp_path: Path) -> None:
    for about in ({"when": object()}, {"loss": float("nan")}):
        spoilt = Ticket(ticket.mask, ticket.points, ticket.space, ticket.constants, about)
        with pytest.raises(ConfigError, match="the 'about' of a ticket must be JSON"):
            spoilt.save(tmp_path / "t")
    (tmp_path / "a-file").touch()
    with pytest.raises(StoreError, match=r"cannot write .*a-file/t: "):
        ticket.save(tmp_path / "a-file" / "t")
    assert [p.name for p in tmp_path.iterdir()] == ["a-file"]


# --- Damage.


def refused(path: Path, sentence: str) -> None:
    with pytest.raises(DataError, match=sentence) as found:
        Ticket.load(path)
    assert str(path) in str(found.value)
    assert "\n" not in str(found.value)


def test_any_byte_that_changes_is_found(path: Path) -> None:
    """Not one of them gives a ticket: neither in a weight, nor in the header of safetensors, nor in ours."""
    good, rng = path.read_bytes(), random.Random(0)
    for at in [*range(60), *rng.sample(range(len(good)), 150)]:
        for flip in (0x01, 0xFF):
            path.write_bytes(good[:at] + bytes([good[at] ^ flip]) + good[at + 1 :])
            refused(path, "is damaged|is not a ticket|is cut short|has ticket format|do not fit together")


def test_a_damaged_tensor_is_named(path: Path) -> None:
    good = path.read_bytes()
    length = 8 + int.from_bytes(good[:8], "little")
    offsets = {n: e["data_offsets"] for n, e in json.loads(good[8:length]).items() if n != "__metadata__"}
    for name, (begin, _) in offsets.items():
        at = length + begin
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        refused(
            path, f"is damaged: the SHA-256 of '{re.escape(name)}' is [0-9a-f]{{12}}, its header says [0-9a-f]{{12}}"
        )


def test_a_file_that_ends_early_or_goes_on(path: Path) -> None:
    good = path.read_bytes()
    for size in (*range(40), 500, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:size])
        refused(path, "is not a ticket: it is no safetensors file" if size < 8 else "is cut short: ")
    path.write_bytes(good + b"x")
    refused(path, "is damaged: ")


def test_files_that_are_no_tickets(tmp_path: Path) -> None:
    path = tmp_path / "t"
    refused(path, "there is no ticket")
    refused(tmp_path, "cannot be read: Is a directory")
    path.write_text("hello, this is some text")
    refused(path, "is not a ticket: it is no safetensors file")
    torch.save({"mask": torch.ones(3)}, path)
    refused(path, "is not a ticket: it is no safetensors file")
    path.write_bytes(bytes(100))
    refused(path, "is not a ticket: its header is not that of a safetensors file")
    save_file(nn.Linear(2, 2).state_dict(), path)
    refused(path, "is not a ticket: it is a safetensors file without 'sublevel-ticket' in its header")


def rewritten(path: Path, **changes: object) -> None:
    """The file with another document in its header, whose checksum holds."""
    document = {k: v for k, v in (header(path) | changes).items() if k != "checksum"}
    document["checksum"] = file._digest(file._canonical(document))
    save_file(load_file(path), path, {"sublevel-ticket": json.dumps(document)})


def test_a_format_of_the_future(path: Path) -> None:
    rewritten(path, format=2)
    refused(path, "has ticket format 2, this version of sublevel reads format 1; use a newer sublevel")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda h: {"format": 0}, "is damaged: its header is not the one that was written"),
        (lambda h: {"checksums": {}}, "is damaged: its tensor 'constant/frozen' is there but not in the header"),
        (lambda h: {"checksums": h["checksums"] | {"x": ""}}, "is damaged: its tensor 'x' is missing"),
        (
            lambda h: {"parameters": h["parameters"][:-1]},
            "do not fit together: the mask has 10 bytes for 72 parameters",
        ),
        (lambda h: {"parameters": None}, "do not fit together"),
        (lambda h: {"points": ["end"]}, "do not fit together: a ticket needs the point 'start'"),
        (lambda h: {"parameters": [{**p, "prunable": False} for p in h["parameters"]]}, "'first.weight', which is not"),
        (
            lambda h: {"buffers": [{**b, "dtype": "int32"} for b in h["buffers"]]},
            "'start/scale' is not of shape .* int32",
        ),
    ],
)
def test_a_header_that_does_not_fit_its_tensors(path: Path, change, sentence: str) -> None:
    rewritten(path, **change(header(path)))
    refused(path, sentence)


# --- Without sublevel.


def snippet() -> str:
    return re.search(r'```python title="read_ticket.py"\n(.*?)```', DOCS.read_text(encoding="utf-8"), re.DOTALL)[1]


def test_the_snippet_stands_in_the_docstring_and_is_short() -> None:
    block = textwrap.dedent((sublevel.tickets.__doc__ or "").partition("torch::\n\n")[2])
    assert block.strip() == snippet().strip()
    assert sum(bool(line.strip()) for line in snippet().splitlines()) <= 20


READ = """
import runpy, sys
sys.modules["sublevel"] = None  # importing it fails
sys.argv = ["read_ticket.py", "t.safetensors"]
found = runpy.run_path("read_ticket.py")
from safetensors.torch import save_file
save_file({n: t.clone() for n, t in found["state"].items()}, "state")
save_file({n: t.clone() for n, t in found["masks"].items()}, "masks")
"""


def test_the_snippet_reads_a_ticket_where_sublevel_is_absent(ticket: Ticket, path: Path) -> None:
    (path.parent / "read_ticket.py").write_text(snippet())
    done = subprocess.run(
        [sys.executable, "-c", READ], cwd=path.parent, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout
        == f"{ticket.space.remaining(ticket.mask)} weights left at the end; next: model.load_state_dict(state)\n"
    )
    expected = ticket.module(odd(5))
    net = odd(6)
    net.scale.copy_(ticket.end.buffers["scale"])
    state = load_file(path.parent / "state")
    assert state.pop("scale") is not None, "a buffer that no state dict holds is in the file"
    assert net.load_state_dict(state, strict=False).missing_keys == ["second.weight"]
    with torch.no_grad():
        assert torch.equal(net.eval()(X), expected(X))
    masks = load_file(path.parent / "masks")
    assert all(torch.equal(masks[name], mask) for name, mask in ticket.masks().items())
