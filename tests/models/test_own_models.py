"""Networks of the user's own: import paths, what is refused, and their fingerprints."""

from __future__ import annotations

import functools
import importlib
import itertools
import sys

import pytest
import torch
from torch import nn

from sublevel.errors import ConfigError, ModelError
from sublevel.models import build, fingerprint

NETS = """
import torch
from torch import nn
import {helper}
from {helper} import squash

SCALE = 2.0

class Base(nn.Module):
    def forward(self, x):
        return self.out(squash(x.flatten(1)) * SCALE)

class Tiny(Base):
    def __init__(self, inputs, classes):
        super().__init__()
        self.out = nn.Linear(inputs, classes)

def tiny(input_shape, classes, *, depth=1):
    return Tiny(torch.Size(input_shape).numel(), classes)

def by_module(input_shape, classes):
    return {helper}.make(input_shape, classes)

def fixed(width):
    return nn.Linear(width, 2)

def broken(**options):
    return 1 / 0

def nothing():
    return "a network"

constant = 3
"""
HELPER = """
from torch import nn

def squash(x):
    return x.tanh()

def make(input_shape, classes):
    return nn.Linear(input_shape[0], classes)

def unused():
    return 0
"""
numbers = itertools.count()


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes a user's module and its helper, and gives the module's name."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # else an edit of equal length in the same second is not seen

    def write(nets=NETS, helper=HELPER, name=None):
        name = name or f"own_nets_{next(numbers)}"
        for module, text in ((f"{name}_helper", helper), (name, nets.replace("{helper}", f"{name}_helper"))):
            (tmp_path / f"{module}.py").write_text(text)
            sys.modules.pop(module, None)
        importlib.invalidate_caches()
        return name

    return write


def make(path, **options):
    return build(path, input_shape=(4,), classes=2, **options)


def test_a_function_gets_the_shapes_that_its_signature_names(write):
    module = write()
    assert make(f"{module}:tiny", depth=3).out.weight.shape == (2, 4)
    assert make(f"{module}:fixed", width=7).weight.shape == (2, 7)


def test_a_function_or_a_class_may_be_given_itself(write):
    module = importlib.import_module(write())
    assert isinstance(make(module.tiny), module.Tiny)
    assert isinstance(make(module.Tiny, inputs=3), module.Tiny)


def test_a_module_in_the_working_directory_is_found(tmp_path, monkeypatch):
    (tmp_path / "net_of_this_folder.py").write_text("from torch import nn\ndef net():\n    return nn.Linear(1, 1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    assert isinstance(make("net_of_this_folder:net"), nn.Linear)


@pytest.mark.parametrize(
    ("path", "options", "error", "message"),
    [
        ("tinny", {}, ModelError, "has no 'tinny'; did you mean 'tiny'"),
        ("constant", {}, ModelError, "is of type int; it must be a function or a class"),
        ("nothing", {}, ModelError, "returned str; it must return a torch.nn.Module"),
        ("broken", {"anything": 1}, ModelError, "failed: ZeroDivisionError: division by zero"),
        ("tiny", {"dept": 1}, ConfigError, r"unknown option 'dept' \(model .*\); did you mean 'depth'"),
        ("nothing", {"a": 1}, ConfigError, "unknown option 'a' .* it has no options"),
        ("fixed", {}, ConfigError, "needs the option 'width'"),
        ("", {}, ConfigError, "the form is module:function"),
    ],
)
def test_what_cannot_be_used_is_named(write, path, options, error, message):
    with pytest.raises(error, match=message):
        make(f"{write()}:{path}", **options)


def test_the_users_own_traceback_is_chained(write):
    with pytest.raises(ModelError) as caught:
        make(f"{write()}:broken")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize(
    ("text", "cause", "message"),
    [
        ("raise ValueError('no such thing')", ValueError, "importing .* failed: ValueError: no such thing"),
        ("def", SyntaxError, "failed: SyntaxError"),
        ("import not_installed_anywhere", ModuleNotFoundError, "failed: No module named 'not_installed_any"),
    ],
)
def test_an_import_that_fails_is_one_sentence_with_its_cause(write, text, cause, message):
    with pytest.raises(ModelError, match=message) as caught:
        make(f"{write(text)}:tiny")
    assert isinstance(caught.value.__cause__, cause)


def test_a_module_that_does_not_exist():
    with pytest.raises(ModelError, match="there is no module 'never_written', installed or in "):
        make("never_written:net")


def own(path, version=None, **options):
    return fingerprint(path, make(path, **options), options=options, version=version)


def changed(write, name, old, new, function="tiny"):
    """Return the fingerprints before and after an edit of either file."""
    before = own(f"{write(name=name)}:{function}")
    after = own(f"{write(NETS.replace(old, new), HELPER.replace(old, new), name=name)}:{function}")
    return before, after


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nn.Linear(inputs, classes)", "nn.Linear(inputs, classes, bias=False)"),
        ("squash(x.flatten(1))", "squash(x.flatten(1)).relu()"),
        ("SCALE = 2.0", "SCALE = 3.0"),
        ("x.tanh()", "x.sigmoid()"),
        ("depth=1", "depth=2"),
    ],
    ids=["class", "base class", "constant", "helper in another file", "factory"],
)
def test_a_change_of_the_code_changes_the_fingerprint(write, old, new):
    before, after = changed(write, f"own_nets_{next(numbers)}", old, new)
    assert before is not None
    assert before["source"] != after["source"]


@pytest.mark.parametrize(("old", "new"), [("return 0", "return 1"), ("constant = 3", "constant = 4")])
def test_a_change_elsewhere_does_not(write, old, new):
    before, after = changed(write, f"own_nets_{next(numbers)}", old, new)
    assert before is not None
    assert before == after


def test_a_helper_called_through_its_module_counts(write):
    before, after = changed(write, f"own_nets_{next(numbers)}", "input_shape[0], c", "2 * 2, c", "by_module")
    assert before["state"] == after["state"]
    assert before["source"] != after["source"]


def test_the_fingerprint_holds_name_options_and_state(write):
    path = f"{write()}:tiny"
    found = own(path, depth=2)
    assert found["name"] == path
    assert found["options"] == {"depth": 2}
    assert found["state"] == {"out.weight": [[2, 4], "float32"], "out.bias": [[2], "float32"]}
    assert found["version"] is None
    assert len(found["source"]) == 64


def exec_factory():
    names = {}
    exec("from torch import nn\nclass Net(nn.Linear): pass\ndef net():\n    return Net(4, 2)", names)
    return names["net"]


def test_without_source_only_a_version_makes_it_cacheable():
    factory = exec_factory()
    net = make(factory)
    assert fingerprint("net", net, factory, options={}) is None
    found = fingerprint("net", net, factory, options={}, version="3")
    assert found["version"] == "3"
    assert found["source"] is None


def test_a_class_without_source_in_a_factory_with_source():
    made = exec_factory()()
    assert fingerprint("f", made, linear, options={}) is None


def linear(inputs: int = 4) -> nn.Module:
    return nn.Linear(inputs, 2)


def capturing(value) -> functools.partial:
    def factory():
        return nn.Linear(4, 2) if value else nn.Identity()

    return factory


def test_captured_values_count():
    def prints(factory):
        return fingerprint("f", nn.Linear(4, 2), factory, options={})

    assert prints(capturing(1))["source"] != prints(capturing(2))["source"]
    assert prints(functools.partial(linear, 4))["source"] != prints(functools.partial(linear, inputs=4))["source"]
    assert prints(capturing(torch.ones(1))) is None  # what a tensor holds, no source tells
    assert prints(capturing(linear)) == prints(capturing(linear))


def test_a_registered_network_is_its_name_options_and_revision():
    def prints(**options):
        return fingerprint("resnet-8", build("resnet-8", input_shape=(3, 8, 8), classes=2), options=options)

    assert prints()["revision"] == 2
    assert prints()["name"] == "resnet-8"
    assert prints() == prints(width=16)
    assert prints()["options"] == {}
    assert prints(width=8)["options"] == {"width": 8}
    assert prints()["state"]["bn.num_batches_tracked"] == [[], "int64"]


CONFIGURED = """
import os
from torch import nn

CONFIG = {"slope": 0.01, "widths": {3, 4}}

class Leaky(nn.Module):
    limit = 6.0

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)
        self.act = nn.LeakyReLU(float(os.environ.get("SLOPE", "0.01")))
        self.gain = float(os.environ.get("GAIN", "1"))

    def forward(self, x):
        return self.act(self.linear(x)).clamp(max=self.limit) * CONFIG["slope"] * self.gain

def leaky():
    return Leaky()
"""


def marked(path):
    net = make(path)
    return fingerprint(path, net, options={})


@pytest.mark.parametrize("change", ["global", "class", "torch", "instance"])
def test_what_the_source_does_not_say_is_in_the_fingerprint(write, monkeypatch, change):
    """A dict that forward reads, a class attribute set later, a module's own numbers."""
    path = f"{write(CONFIGURED)}:leaky"
    before = marked(path)
    assert before == marked(path)
    module = sys.modules[path.partition(":")[0]]
    if change == "global":
        module.CONFIG["slope"] = 0.9
    elif change == "class":
        module.Leaky.limit = 1.0
    else:
        monkeypatch.setenv("SLOPE" if change == "torch" else "GAIN", "0.9")
    assert marked(path) != before


def test_an_object_that_nothing_tells_is_not_cached(write):
    text = CONFIGURED.replace('"widths": {3, 4}', '"other": object()')
    path = f"{write(text)}:leaky"
    assert marked(path) is None
    assert fingerprint(path, make(path), options={}, version="1") is not None


def test_a_file_edited_after_the_import_is_not_cached(write, tmp_path):
    """What runs is the old code; a new process that reads the new text must not find its numbers."""
    path = f"{write(CONFIGURED)}:leaky"
    assert marked(path) is not None
    file = tmp_path / f"{path.partition(':')[0]}.py"
    file.write_text(CONFIGURED + "\n# a remark changes nothing\n")
    assert marked(path) is not None
    file.write_text(CONFIGURED.replace('CONFIG["slope"] *', "3 *"))
    assert marked(path) is None
