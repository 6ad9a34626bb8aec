"""Tickets that were made by hand, with checksums that hold: one sentence, whatever is wrong; never a traceback."""

import hashlib
import json
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save
from torch import nn

from sublevel.cli import main
from sublevel.errors import DataError, ModelError
from sublevel.space import Point, Space
from sublevel.tickets import Ticket
from sublevel.tickets.file import KEY


def a_ticket(path):
    net = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    space = Space.of(net)
    mask = space.full_mask()
    mask[0] = False
    about = {"model": {"name": "m"}, "data": {"classes": 2}}
    Ticket(mask, {"start": space.point(net)}, space, {}, about).save(path)
    return path


def parts(path):
    """The tensors of a ticket, and its document without checksums."""
    from safetensors.torch import load

    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    document = json.loads(json.loads(data[8 : 8 + length])["__metadata__"][KEY])
    document.pop("checksum")
    return load(data), document


def canonical(document):
    return json.dumps(document, sort_keys=True, separators=(",", ":"))


def sealed(path, tensors, document):
    """Write a ticket whose every checksum holds."""

    def digest(t):
        return hashlib.sha256(t.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()

    document = {"checksums": {name: digest(t) for name, t in tensors.items()}} | document
    document["checksums"] = {name: digest(t) for name, t in tensors.items()} if tensors else {}
    document["checksum"] = hashlib.sha256(canonical(document).encode()).hexdigest()
    path.write_bytes(save(tensors, {KEY: canonical(document)}))
    return path


def test_the_maker_of_these_tests_makes_tickets(tmp_path):
    path = a_ticket(tmp_path / "t")
    tensors, document = parts(path)
    again = Ticket.load(sealed(tmp_path / "again", tensors, document))
    assert torch.equal(again.start.theta, Ticket.load(path).start.theta)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_precision_loads(tmp_path, dtype):
    net = nn.Linear(3, 2).to(dtype)
    space = Space.of(net)
    Ticket(space.full_mask(), {"start": space.point(net)}, space).save(tmp_path / "t")
    assert Ticket.load(tmp_path / "t").start.theta.dtype == dtype


WEIGHT = "start/0.weight"
TENSORS = {
    "nan": lambda t: t.index_fill(0, torch.tensor(0), torch.nan),
    "inf": lambda t: t.index_fill(0, torch.tensor(0), torch.inf),
    "int64": lambda t: t.long(),
    "bool": lambda t: t.bool(),
    "complex": lambda t: t.to(torch.complex64),
    "float8": lambda t: t.to(torch.float8_e4m3fn),
    "half": lambda t: t.half(),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_weights_that_are_no_real_numbers_of_one_type_are_refused(tmp_path, kind):
    tensors, document = parts(a_ticket(tmp_path / "t"))
    tensors[WEIGHT] = TENSORS[kind](tensors[WEIGHT])
    for entry in document["parameters"]:
        if entry["name"] == "0.weight":
            entry["dtype"] = str(tensors[WEIGHT].dtype).removeprefix("torch.")
    with pytest.raises(DataError, match=r"not finite|of type|damaged"):
        Ticket.load(sealed(tmp_path / "bad", tensors, document))


def with_buffer(dtype):
    net = nn.Linear(3, 2)
    net.register_buffer("turn", torch.ones(2, dtype=dtype))
    space = Space.of(net)
    return Ticket(space.full_mask(), {"start": space.point(net)}, space)


def test_a_complex_buffer_comes_back(tmp_path):
    ticket = with_buffer(torch.complex64)
    assert torch.equal(Ticket.load(ticket.save(tmp_path / "t")).start.buffers["turn"], ticket.start.buffers["turn"])


@pytest.mark.parametrize("dtype", [torch.complex128, torch.float8_e4m3fn])
def test_what_could_not_be_read_again_is_not_written(tmp_path, dtype):
    with pytest.raises(ModelError, match=f"cannot hold 'start/turn' of type {str(dtype)[6:]}; allowed: float32"):
        with_buffer(dtype).save(tmp_path / "t")
    assert not (tmp_path / "t").exists()


def test_a_buffer_that_is_not_finite_is_refused(tmp_path):
    tensors, document = parts(a_ticket(tmp_path / "t"))
    tensors["start/1.running_var"] = torch.full((4,), torch.inf)
    with pytest.raises(DataError, match=r"'start/1\.running_var' holds numbers that are not finite"):
        Ticket.load(sealed(tmp_path / "bad", tensors, document))


WRONG = [None, True, -1, 3, 2**70, 0.5, "x", "", [], [1], [[1]], {}, {"a": 1}, [{"name": 1}], [{}], ["start"] * 2]


@pytest.mark.parametrize("part", ["parameters", "buffers", "constants", "statistics", "points", "about", "format"])
@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
def test_a_part_of_another_kind_is_refused_in_a_sentence(tmp_path, part, value, capsys):
    tensors, document = parts(a_ticket(tmp_path / "t"))
    document[part] = value
    path = sealed(tmp_path / "bad", tensors, document)
    good = (part, value) in (("constants", []), ("about", {}), ("about", {"a": 1}), ("statistics", []))
    with nullcontext() if good else pytest.raises(DataError, match="bad"):
        Ticket.load(path)
    with pytest.raises(SystemExit) as end:
        main(["ticket", "show", str(path)])
    said = capsys.readouterr()
    assert end.value.code in (0, 2)
    assert "Traceback" not in said.err + said.out


@pytest.mark.parametrize("value", WRONG, ids=range(len(WRONG)))
@pytest.mark.parametrize("field", ["name", "shape", "dtype", "prunable"])
def test_an_entry_of_another_kind_is_refused_in_a_sentence(tmp_path, field, value):
    tensors, document = parts(a_ticket(tmp_path / "t"))
    document["parameters"][0][field] = value
    if (field, value) == ("prunable", True):
        return
    with pytest.raises(DataError):
        Ticket.load(sealed(tmp_path / "bad", tensors, document))


@pytest.mark.parametrize("part", ["model", "data", "training", "versions"])
def test_what_it_says_of_itself_has_names(tmp_path, part):
    tensors, document = parts(a_ticket(tmp_path / "t"))
    document["about"][part] = [1]
    with pytest.raises(DataError, match="what it says about itself has no names"):
        Ticket.load(sealed(tmp_path / "bad", tensors, document))


def headed(header, body=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


@pytest.mark.parametrize(
    "data",
    [
        headed(b"[" * 100_000),
        headed({"__metadata__": [1]}),
        headed({"__metadata__": "x"}),
        headed({"__metadata__": {KEY: 1}}),
        headed({"__metadata__": {KEY: "[" * 5_000}}),
        headed({"__metadata__": {KEY: "[]"}}),
        headed({"__metadata__": {KEY: json.dumps({"format": float("nan"), "checksum": ""})}}),
        headed({"__metadata__": {KEY: json.dumps({"format": True, "checksum": ""})}}),
        headed({"a": {"data_offsets": ["0", "9"]}}),
        headed({"a": {"data_offsets": [0, 10**30]}}),
        headed({"a": {"data_offsets": []}}),
        headed({"a": 1}),
        headed([]),
        headed(b"1"),
        headed(b"\xff"),
        headed({"a": {"dtype": "F32", "shape": [2**62], "data_offsets": [0, 4]}, "__metadata__": {KEY: "{}"}}, b"1234"),
        b"",
        b"\xff" * 16,
    ],
    ids=range(18),
)
def test_a_header_of_any_shape_is_refused_in_a_sentence(tmp_path, data):
    (tmp_path / "t").write_bytes(data)
    with pytest.raises(DataError):
        Ticket.load(tmp_path / "t")


def test_what_is_no_file_is_refused():
    with pytest.raises(DataError, match="it is no plain file"):
        Ticket.load("/dev/zero")


def test_a_ticket_moves_no_terminal(tmp_path, capsys):
    net = nn.Linear(2, 1)
    space = Space.of(net)
    about = {"source": "\x1b[2J", "data": {"\x1b]0;x\x07": 1}, "model": {"name": "\x9bx"}}
    Ticket(space.full_mask(), {"start": Point(torch.zeros(3))}, space, {}, about).save(tmp_path / "t")
    with pytest.raises(SystemExit):
        main(["ticket", "show", str(tmp_path / "t")])
    out = capsys.readouterr().out
    assert "\x1b" not in out
    assert "\x9b" not in out
    assert r"from      source \x1b[2J" in out
