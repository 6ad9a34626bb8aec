"""A problem: a network, its data and its loss, joined once and named for the store.

Everything the rest of the package needs from code of a user's own passes through here: what the network is called in
a cache key, whether a worker process can import it, and whether its output fits the data.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sublevel import data as datasets
from sublevel import models
from sublevel._types import Tensor
from sublevel.data import Dataset, Part, Splits, own
from sublevel.errors import DataError, ModelError
from sublevel.models.build import qualified_name
from sublevel.risk import EmpiricalRisk, Loss, loss_function
from sublevel.rng import generator, seeded
from sublevel.space import Choice, Point, Space

ACTIVATIONS = 100_000_000
"""Numbers that the forward pass of one field batch may leave behind: a rule of this release, part of the arithmetic."""


@dataclass(frozen=True, eq=False)
class Problem:
    """A network factory with training and test data and a loss.

    ``model`` is a registered name, an import path ``module:function``, or a function that returns an ``nn.Module``;
    ``options`` are its arguments. The data are a named source (``data`` with ``root`` and ``data_options``), or
    ``train`` and ``test``, each a pair of tensors or arrays (inputs [N, ...], labels [N]), a map-style
    Dataset of such pairs, or an iterable of batches of them (a DataLoader).
    ``validation`` (count or share) is held out from the training examples; ``mean`` and ``std`` per channel normalise
    images (absent: those of the training examples). ``prunable`` chooses the weights that may be
    pruned: parameters' names with wildcards, module classes, or a function (see `Space.of`). ``version`` stands for the
    factory's source where it has none.

    Raises DataError and ModelError on first use of `splits` or `space`.

    >>> problem = Problem("lenet-300-100", train_size=500)
    >>> problem.space.dim, len(problem.splits.train)
    (266610, 500)
    """

    model: str | Callable[..., nn.Module]
    data: str = "fashion-mnist-small"
    root: str | Path | None = None
    train: Any = None
    test: Any = None
    loss: str | Loss = "cross-entropy"
    options: Mapping[str, Any] = field(default_factory=dict)
    data_options: Mapping[str, Any] = field(default_factory=dict)
    validation: int | float = 0.1
    train_size: int | None = None
    test_size: int | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    prunable: Choice | None = None
    version: str | None = None
    device: str = "cpu"
    dtype: str = "float32"

    @cached_property
    def dataset(self) -> Dataset:
        """The data as they were read."""
        if (self.train is None) != (self.test is None):
            raise DataError("own data need both train and test")
        if self.train is None:
            return datasets.load(self.data, root=self.root, **self.data_options)
        return own.dataset(self.train, self.test)

    @cached_property
    def splits(self) -> Splits:
        """Training, validation and test examples on the device."""
        parts = datasets.split(
            self.dataset,
            validation=self.validation,
            train_size=self.train_size,
            test_size=self.test_size,
            mean=self.mean,
            std=self.std,
        )
        _ = parts.digest
        return parts.to(self.device)

    @cached_property
    def module(self) -> nn.Module:
        """A network to compute with; its own weights mean nothing."""
        module = self._build(0, "template")
        self._check_output(module)
        return module.to(self.device, self.torch_dtype)

    @cached_property
    def space(self) -> Space:
        """R^D of the network."""
        return Space.of(self.module, self.prunable)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The floating-point type of weights and inputs."""
        return getattr(torch, self.dtype)

    def prepare(self, x: Tensor) -> Tensor:
        """The network's input from stored examples: normalised by the splits' mean and deviation."""
        return self.splits.prepare(x, self.torch_dtype)

    def init(self, seed: int, stream: str = "init") -> Point:
        """The initial point of ``seed``: weights as the factory draws them, and fresh buffers."""
        return self.space.point(self._build(seed, stream)).to(self.device, self.torch_dtype)

    def part(self, split: str, size: int | None = None, nth: int = 0) -> Part:
        """The examples of ``train``, ``validation`` or ``test``, or a fixed stratified subset of ``size``.

        ``nth`` asks for another subset, disjoint from those before it. DataError where the examples do not suffice.
        """
        part: Part = getattr(self.splits, split)
        if size is None or size >= len(part):
            if nth:
                raise DataError(f"there is one subset of all {len(part)} {split} examples, not {nth + 1} disjoint ones")
            return part
        left, y = torch.arange(len(part)), part.y.cpu()
        for i in range(nth + 1):
            if len(left) < size:
                raise DataError(f"{nth + 1} disjoint subsets of {size} need more than the {len(part)} {split} examples")
            chosen = datasets.stratified(y[left], size, generator(0, f"subset:{i}" if i else "subset"))
            keep, left = left[chosen], left[~chosen]
        keep = keep.to(part.y.device)
        return Part(part.x[keep], part.y[keep])

    @cached_property
    def activations(self) -> int:
        """Numbers that one example leaves behind in a forward pass."""
        seen: list[int] = []
        leaves = [m for m in self.module.modules() if not list(m.children())]
        hooks = [m.register_forward_hook(lambda _, __, out: seen.append(getattr(out, "numel", int)())) for m in leaves]
        try:
            with torch.no_grad():
                self.module.eval()(self.prepare(self.splits.train.x[:1]))
        finally:
            self.module.train()
            for hook in hooks:
                hook.remove()
        return max(sum(seen), 1)

    @property
    def field_batch(self) -> int:
        """Examples in a field's batch: at most a thousand, fewer where the graph of a Hessian product is large."""
        return max(50, min(1000, ACTIVATIONS // self.activations))

    def field(
        self,
        split: str = "train",
        *,
        size: int | None = None,
        policy: str = "stored",
        batch_size: int | None = None,
        part: int = 0,
        keep_bytes: int = 0,
    ) -> EmpiricalRisk:
        """The loss over a split, without augmentation, as a field, in batches of ``batch_size`` (see `field_batch`).

        Under the ``recomputed`` policy the statistics come from training examples, ``size`` of them. ``part`` asks for
        another subset of that size, disjoint from those before it; ``keep_bytes`` is memory for the graphs of Hessian
        products at one point (see `EmpiricalRisk`).
        """
        examples = self.part(split, size, part)
        return EmpiricalRisk(
            self.space,
            self.module,
            examples.x,
            examples.y,
            loss=self.loss,
            prepare=self.prepare,
            policy=policy,
            batch_size=batch_size or self.field_batch,
            calibration=self.part("train", size, part if split == "train" else 0).x,
            keep_bytes=keep_bytes,
        )

    def mean_loss(self) -> Loss:
        """The per-example loss function."""
        return loss_function(self.loss)

    def fingerprint(self) -> dict[str, Any] | None:
        """What identifies the problem in a cell's key; None if code without source and version makes it.

        It holds the values that the factory draws, not only its code: weights that it reads from a file count too.
        Raises ModelError where two builds from one seed differ.
        """
        _check_options(self.options)
        name = self.model if isinstance(self.model, str) else qualified_name(self.model)
        factory = None if isinstance(self.model, str) else self.model
        model = models.fingerprint(name, self.module, factory, options=self.options, version=self.version)
        loss = self.loss if isinstance(self.loss, str) else models.own_code(self.loss, self.version)
        if model is None or loss is None:
            return None
        weights = hashlib.sha256(self.space.prunable.numpy().tobytes()).hexdigest()
        values = [_values(self._build(0, "template")) for _ in range(2)]
        if values[0] != values[1]:
            raise ModelError(
                f"two builds of model {self.name} from one seed differ: its weights must be drawn from torch's "
                "generator, not from numpy's or Python's"
            )
        return {
            "data": self.splits.digest,
            "model": model,
            "values": values[0],
            "prunable": weights,
            "loss": loss,
        }

    @property
    def portable(self) -> bool:
        """Whether another process can build this problem from its names."""
        return isinstance(self.loss, str) and not callable(self.prunable) and importable(self.model)

    def description(self, put: Callable[[dict[str, Tensor]], str]) -> dict[str, Any]:
        """The problem as JSON for another process; ``put`` stores data of one's own and returns their digest."""
        given = self.train is not None
        named = {"name": self.data, "root": None if self.root is None else str(Path(self.root).resolve())}
        return {
            "model": self.model if isinstance(self.model, str) else qualified_name(self.model),
            "options": dict(self.options),
            "data": {"object": put(own.tensors(self.dataset))} if given else named,
            "data_options": dict(self.data_options),
            "loss": self.loss,
            "prunable": [self.prunable] if isinstance(self.prunable, str) else self.prunable,
            "validation": self.validation,
            "train_size": self.train_size,
            "test_size": self.test_size,
            "mean": self.mean and list(self.mean),
            "std": self.std and list(self.std),
            "version": self.version,
            "device": self.device,
            "dtype": self.dtype,
        }

    @classmethod
    def from_description(cls, document: Mapping[str, Any], get: Callable[[str], dict[str, Tensor]]) -> Problem:
        """The way back from `description`; ``get`` loads stored data by digest."""
        rest = {k: v for k, v in document.items() if k != "data"}
        source = document["data"]
        if "object" not in source:
            return cls(**rest, data=source["name"], root=source["root"])
        t = get(source["object"])
        return cls(**rest, train=(t["train_x"], t["train_y"]), test=(t["test_x"], t["test_y"]))

    def on(self, device: str, dtype: str) -> Problem:
        """The same problem on another device, or in another precision."""
        return replace(self, device=device, dtype=dtype)

    def _build(self, seed: int, stream: str) -> nn.Module:
        with seeded(seed, stream):
            shape, classes = self.splits.input_shape, max(len(self.splits.classes), 1)
            net = models.build(self.model, input_shape=shape, classes=classes, **self.options)
        for name, parameter in net.named_parameters():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise ModelError(f"model {self.name}: {name} has no shape yet; give lazy layers their input size")
        return net

    def _check_output(self, module: nn.Module) -> None:
        """Refuse a network whose output does not fit the labels, before anything is trained."""
        classes = len(self.splits.classes)
        try:
            with torch.no_grad():
                output = module.eval()(self.splits.prepare(self.splits.train.x[:2].cpu()))
        except Exception as error:
            shape = list(self.splits.input_shape)
            raise ModelError(f"model {self.name} fails on inputs of shape {shape}: {error}") from error
        finally:
            module.train()
        if not isinstance(output, Tensor):
            raise ModelError(f"model {self.name} gives a {type(output).__name__} for a batch; expected a tensor")
        if classes and (output.ndim != 2 or output.shape[1] != classes):
            raise ModelError(
                f"model {self.name} gives outputs of shape {list(output.shape[1:])} for one example, "
                f"but the data have {classes} classes; expected [{classes}]"
            )
        targets = self.splits.train.y.shape[1:]
        if not classes and output[0].numel() != targets.numel():
            raise ModelError(
                f"model {self.name} gives outputs of shape {list(output.shape[1:])} for one example, "
                f"but its target has shape {list(targets)}"
            )
        labels = self.splits.train.y[:2].cpu()
        try:
            self.mean_loss()(output, labels)
        except (RuntimeError, TypeError, IndexError) as error:
            kind = "class labels" if classes else "real targets"
            raise ModelError(f"loss {self.loss!r} does not take {kind}: {error}") from error

    @property
    def name(self) -> str:
        """What the network is called."""
        return self.model if isinstance(self.model, str) else qualified_name(self.model)


def importable(model: str | Callable[..., Any]) -> bool:
    """Whether another process finds ``model`` by its name: not in __main__, not nested in a function."""
    if isinstance(model, str):
        return not model.startswith("__main__:")
    module, _, name = qualified_name(model).partition(":")
    found = sys.modules.get(module)
    return module != "__main__" and "." not in name and getattr(found, name, None) is model


def _check_options(options: Mapping[str, Any]) -> None:
    """Options are part of a key, and cross to other processes."""
    for name, value in options.items():
        try:
            json.dumps(value)
        except (TypeError, ValueError):
            raise ModelError(
                f"model option {name!r} is of type {type(value).__name__}; options are numbers, texts and lists of them"
            ) from None


def _values(module: nn.Module) -> str:
    """SHA-256 of every parameter and buffer."""
    out = hashlib.sha256()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        out.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return out.hexdigest()
