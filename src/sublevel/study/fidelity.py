"""Presets that reproduce a reference implementation's defaults, as ordinary keys of a study.

The keys that a fidelity sets are in the resolved study, `sublevel plan` prints them, and the study's own keys override
them. ``paper`` counts exactly and trains the dense network in one run. ``open_lth`` reproduces
facebookresearch/open_lth: the number of weights that a level removes, the initialisation, the normalisation of images,
the training of every level, including the dense one, from the rewind step with a fresh optimizer and batch order, and
that package's hyperparameters for its networks (``default_hparams`` of models/cifar_resnet.py, cifar_vgg.py and
mnist_lenet.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any

from sublevel.study.documents import placed

FIDELITIES = ("paper", "open_lth")

_PAPER = {"rounding": "exact", "dense_start": "init"}

_OPEN_LTH: dict[str, Any] = {
    "fraction": 0.2,
    "rounding": "open_lth",
    "dense_start": "rewind",
    "order": "independent",
    "data.validation": 0,
    "train.batch_size": 128,
    "train.lr": 0.1,
    "train.warmup_from_zero": True,
}
"""For every study: pruning/sparse_global.py, lottery/runner.py, datasets/base.py, training/optimizers.py."""

_CONVOLUTIONS = {
    "model.options.bn_init": "uniform",
    "model.options.bias_init": "uniform",
    "train.length": "160ep",
    "train.momentum": 0.9,
    "train.weight_decay": 1e-4,
    "train.schedule": "milestones",
    "train.milestones": ["80ep", "120ep"],
    "train.gamma": 0.1,
}
_PERCEPTRON = {
    "model.options.bias_init": "uniform",
    "train.length": "40ep",
    "train.momentum": 0.0,
    "train.weight_decay": 0.0,
    "train.schedule": "constant",
}
_OF_NETWORK = {
    "resnet-*": _CONVOLUTIONS,
    "vgg-16": {**_CONVOLUTIONS, "protect": ["fc.weight"]},
    "lenet-300-100": {**_PERCEPTRON, "protect": ["fc.weight"]},
}
"""By network, as a pattern: models/initializers.py, models/bn_initializers.py, and the hyperparameters."""

_OF_DATA = {
    "cifar10": {
        "data.mean": [0.485, 0.456, 0.406],
        "data.std": [0.229, 0.224, 0.225],
        "train.crop": 4,
        "train.flip": True,
    },
    "mnist": {"data.mean": [0.1307], "data.std": [0.3081]},
}
"""By data source: datasets/cifar10.py (its constants are ImageNet's) and datasets/mnist.py."""

_OF_BRANCH = {"reinit": {"from_step": "rewind"}, "random-prune": {"per_layer": True}}
"""Options by branch: lottery/branch/randomly_reinitialize.py and randomly_prune.py."""

_TOGETHER = (("train.length", "train.epochs"), ("train.schedule", "train.milestones"), ("data.mean", "data.std"))
"""Keys that belong together: if a study sets one, a fidelity sets neither."""


def rules(fidelity: str, network: str, data: str) -> dict[str, Any]:
    """The keys, dotted, that a fidelity sets for a network and a data source; none for an unknown fidelity.

    >>> rules("open_lth", "lenet-300-100", "mnist")["data.std"], rules("paper", "vgg-16", "cifar10")["rounding"]
    ([0.3081], 'exact')
    """
    if fidelity != "open_lth":
        return dict(_PAPER) if fidelity == "paper" else {}
    own = (keys for pattern, keys in _OF_NETWORK.items() if fnmatchcase(network, pattern))
    return _OPEN_LTH | next(own, {}) | _OF_DATA.get(data, {})


def expanded(document: Mapping[str, Any], network: str, data: str) -> dict[str, Any]:
    """A raw study with the keys of its ``fidelity`` added to its own.

    ``network`` and ``data`` are the names if the study gives none. A group that is no mapping, such as a `Recipe`, sets
    all of its keys. A study that sets the data order of one branch sets the order of all of them.
    """
    fidelity = document.get("fidelity", "paper")
    keys = rules(fidelity, _name_in(document, "model", network), _name_in(document, "data", data))
    out, branches = dict(document), document.get("branches")
    written = branches if isinstance(branches, list | tuple) else []
    if any(each.get("order") if isinstance(each, Mapping) else getattr(each, "order", None) for each in written):
        keys.pop("order", None)
    for path, value in keys.items():
        if not any(_said(document, each) for each in next((keys for keys in _TOGETHER if path in keys), (path,))):
            out = placed(out, path.split("."), value, path)
    if fidelity == "open_lth" and written:
        out["branches"] = [_branch(each) for each in written]
    return out


def followed(resolved: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The keys of a resolved study's fidelity, as (key, the study's value, the fidelity's value)."""
    for path, rule in rules(resolved["fidelity"], resolved["model"]["name"], resolved["data"]["name"]).items():
        value: Any = resolved
        for key in path.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        yield path, value, rule


def _name_in(document: Mapping[str, Any], group: str, default: str) -> str:
    inside = document.get(group)
    return str(inside.get("name", default) if isinstance(inside, Mapping) else getattr(inside, "name", default))


def _said(document: Any, path: str) -> bool:
    head, _, rest = path.partition(".")
    if head not in document:
        return False
    inside = document[head]
    return not rest or not isinstance(inside, Mapping) or _said(inside, rest)


def _branch(given: Any) -> Any:
    """A branch as written, with the fidelity's options added to its own."""
    written = {"name": given} if isinstance(given, str) else given
    if not isinstance(written, Mapping):
        return given
    name, options = written.get("name"), written.get("options", {})
    if not isinstance(name, str) or name not in _OF_BRANCH or not isinstance(options, Mapping):
        return given
    return {**written, "options": _OF_BRANCH[name] | dict(options)}
