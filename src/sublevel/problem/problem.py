"""The problem: a network, its data and its loss; derived values are computed on first use."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sublevel import data as datasets
from sublevel import models
from sublevel._types import Tensor
from sublevel.checkpoints import Checkpoint, Source
from sublevel.checkpoints import read as read_checkpoint
from sublevel.data import Dataset, Part, Splits, own
from sublevel.data.sources import IGNORED
from sublevel.data.splits import PARTS
from sublevel.display import Shown
from sublevel.errors import ConfigError, DataError, ModelError, SublevelError, unknown
from sublevel.inputs import Inputs
from sublevel.probes import EXAMPLES, Probe
from sublevel.problem import identity, source
from sublevel.problem.checks import check_device, check_output, in_precision, unordered, unused
from sublevel.problem.layout import LAST, takes_channels_last
from sublevel.problem.sizes import count_activations, count_saved, field_batch
from sublevel.risk import Calibration, EmpiricalRisk, Loss, counting, loss_function, named
from sublevel.risk.batchnorm import least_of, policy_of
from sublevel.risk.losses import counting_from, ignore_index, outputs_for
from sublevel.rng import generator, seeded
from sublevel.space import Choice, Point, Space
from sublevel.train.engine import TrainingResult, train
from sublevel.train.own import Loop, by_loop
from sublevel.train.recipe import Recipe
from sublevel.train.resume import Checkpointer
from sublevel.train.setup import TrainingSetup, Watch

if TYPE_CHECKING:
    from sublevel.problem.spec import ProblemSpec


@dataclass(frozen=True, eq=False)
class Problem(Shown):
    """A network factory with training and test data and a loss.

    ``model`` is a registered name, an import path ``module:function``, a function that returns an ``nn.Module``, a
    network, which is copied at once, or ``hf:FOLDER`` (see `sublevel.models.pretrained`); ``options`` are its
    arguments. The data are a named source (``data`` with ``root`` and ``data_options``), an import path
    ``module:function`` of a function that returns ``(train, test)``, or ``train`` and ``test``, each a pair of tensors
    or arrays (inputs [N, ...], labels [N]), a map-style Dataset of such pairs, or an iterable of batches of them (a
    DataLoader); several inputs are a tuple or a dict instead of one tensor. ``validation`` (count or share) is held out
    from the training examples; ``mean`` and ``std`` per channel normalise images (default: those of the training
    examples). ``prunable`` selects the prunable weights: names of parameters with wildcards, module classes, or a
    function (see `Space.of`).

    ``loss`` is a name (``cross-entropy``, ``binary-cross-entropy``, ``squared``, ``mse``, ``huber``), a loss of
    ``torch.nn``, or a function from outputs and labels to the loss of each example, or its import path. ``loop``, a
    function or its import path, replaces sublevel's training loop (see `sublevel.train.own.by_loop`). ``version``
    identifies code whose source is not available. ``device`` is ``cpu``, ``cuda`` or ``cuda:N``.

    A factory whose signature names ``classes`` gets the number of outputs that the loss needs: one for each class, or
    for each real target or label of 0 and 1 (see `outputs_for`). For ``train`` and ``test``,
    ``data_options={"classes": ...}`` is the number or the list of the network's classes where the data lack some.

    Raises DataError and ModelError for parts that do not fit, with ``train`` and ``test`` at once, with other data on
    first use of `splits` or `space`.

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
    loop: str | Loop | None = None
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

    def __post_init__(self) -> None:
        if (index := ignore_index(self.loss)) != IGNORED:
            object.__setattr__(self, "loss", counting_from(self.loss))
            object.__setattr__(self, "data_options", {**self.data_options, "ignored": index})
        if not isinstance(self.loss, str) and not callable(self.loss):
            raise ConfigError(f"loss is {self.loss!r}; give a name, a loss of torch.nn or a function")
        object.__setattr__(self, "loss", named(self.loss))
        object.__setattr__(self, "device", check_device(str(self.device)))
        for group, known in ((self.options, {"input_shape", "classes"}), (self.data_options, {"root"})):
            if said := known & set(group):
                raise ConfigError(f"{min(said)} is not an option: it follows from the data, or has a key of its own")
        if isinstance(self.model, nn.Module):
            object.__setattr__(self, "model", models.copied(self.model))
        if self.train is not None or self.test is not None:
            _ = self.space  # the data are at hand, so a fault is found now

    def __repr__(self) -> str:
        """The network, the data and the prunable weights, without reading named data."""
        if self.train is None and "splits" not in self.__dict__:
            return f"Problem({self.name}, data {self.data!r}, loss {identity.path(self.loss)})"
        data = "own data" if self.train is not None else f"data {self.data!r}"
        try:
            sizes = ", ".join(f"{len(part)} {name}" for name, part in self.splits.parts.items())
            return f"Problem({self.name}, {data}: {sizes} examples; {self.space.describe_prunable()})"
        except SublevelError as error:
            return f"Problem({self.name}, {data}: {error})"

    def _facts(self) -> dict[str, object]:
        """The facts of the one line, and what a table has room for; named data are not read for them."""
        read = self.train is not None or "splits" in self.__dict__
        facts: dict[str, object] = {
            "network": self.name,
            "data": "own" if self.train is not None else self.data,
            "loss": identity.path(self.loss),
            "device": self.device,
        }
        if read:
            with suppress(SublevelError):
                facts |= {name: f"{len(part):,} examples" for name, part in self.splits.parts.items()}
                facts |= {"parameters": self.space.dim, "prunable": self.space.describe_prunable()}
        return facts

    @cached_property
    def unused(self) -> tuple[str, ...]:
        """Trainable parameters that do not affect the training loss: their gradient is 0."""
        return unused(self.space, self.module, self.splits.train, self.prepare, self.per_example_loss())

    @cached_property
    def unordered(self) -> tuple[str, ...]:
        """Operations of a training step on a GPU that add in no fixed order, as PyTorch names them."""
        if self.device == "cpu":
            return ()
        return unordered(self.space, self.module, self.splits.train, self.prepare, self.per_example_loss())

    @cached_property
    def dataset(self) -> Dataset:
        """The data as read."""
        if (self.train is None) != (self.test is None):
            raise DataError("own data need both train and test")
        return source.read(
            self.data,
            self.root,
            self.data_options,
            None if self.train is None else (self.train, self.test),
            dtype=self.torch_dtype,
            bits=self.loss == "binary-cross-entropy",
            causal=self.pretrained and models.pretrained.task_of(self.name, self.options) == "causal-lm",
        )

    @property
    def pretrained(self) -> bool:
        """Whether the network is a transformer from a folder, ``hf:FOLDER``."""
        return models.pretrained.is_pretrained(self.model)

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

    def share(self) -> str | None:
        """Share the splits with other processes of this machine; on a CPU, this process maps them too.

        Returns their name for `of`, or None if they cannot be shared (see `sublevel.data.shared`). Data passed in
        Python to a problem with its own loop are not shared, because the loop may read them.
        """
        if self.train is not None and self.loop is not None:
            return None
        found = datasets.share(self.splits)
        if found is None:
            return None
        name, mapped = found
        if torch.device(self.device).type == "cpu":
            self._attach(mapped)
            if self.train is None:  # data passed in Python stay: they may be slow to read again
                self.__dict__.pop("dataset", None)
        return name

    @cached_property
    def module(self) -> nn.Module:
        """A network for computation; its weights have no meaning."""
        module = in_precision(self.build(0, "template"), self.torch_dtype, self.name)
        if self.pretrained:
            source.check_tokens(module, self.splits)
        losses = self.per_example_loss()
        check_output(module, self.name, self.splits, self.torch_dtype, self.loss, losses, roomy=self.pretrained)
        return module.to(self.device)

    @cached_property
    def space(self) -> Space:
        """R^D of the network."""
        few = self.splits.prepare(self.splits.train.x[:EXAMPLES], self.torch_dtype)
        return replace(Space.of(self.module, self.prunable), probe=Probe(self.module, few))

    @property
    def torch_dtype(self) -> torch.dtype:
        """The floating-point type of weights and inputs."""
        return getattr(torch, self.dtype)

    def prepare(self, x: Tensor) -> Inputs:
        """The network's inputs from stored examples, normalised by the splits' mean and deviation."""
        inputs = self.splits.prepare(x, self.torch_dtype)
        return inputs.contiguous(memory_format=LAST) if self._channels_last and isinstance(inputs, Tensor) else inputs

    @cached_property
    def _channels_last(self) -> bool:
        return takes_channels_last(self.module, self.splits.prepare(self.splits.train.x[:2], self.torch_dtype))

    def init(self, seed: int, stream: str = "init") -> Point:
        """The initial point of ``seed``: the factory's initial weights, and fresh buffers."""
        return self.space.point(self.build(seed, stream)).to(self.device, self.torch_dtype)

    def checkpoint(self, source: Source, mask: Source | None = None) -> Checkpoint:
        """A checkpoint in the problem's space, on the CPU: a path, a state dict, or a network with the weights.

        ``mask`` is a file or dict of 0/1 tensors by weight, or ``"zeros"``: every prunable weight that is exactly 0.

        Raises DataError if the point would compute another function (see `sublevel.checkpoints.read`).
        """
        beside = None
        if self.pretrained and isinstance(source, str | Path):
            with seeded(0, "template"):
                beside = models.pretrained.opened(Path(source), self.module, self.options)
        network: Source = source if beside is None else beside
        kind = f"the network {type(source).__name__}" if isinstance(source, nn.Module) else "the checkpoint"
        name = str(source) if isinstance(source, str | Path) else kind
        found = read_checkpoint(network, self.module, self.space, mask, name=name)
        return replace(found, point=found.point.to("cpu"))

    def point(self, source: Source, mask: Source | None = None) -> Point:
        """The point of a checkpoint, as in `checkpoint`, on the problem's device; warns if half the weights are 0
        without a mask.

        >>> problem = Problem("lenet-300-100", train_size=500)
        >>> bool((problem.point(problem.module).theta == problem.space.point(problem.module).theta).all())
        True
        """
        found = self.checkpoint(source, mask)
        for note in found.notes:
            warnings.warn(note, stacklevel=2)
        return found.point.to(self.device)

    def part(self, split: str, size: int | None = None, nth: int = 0) -> Part:
        """The examples of ``train``, ``validation`` or ``test``, or a fixed stratified subset of ``size``.

        ``nth`` selects another subset, disjoint from the earlier ones. Raises DataError if there are too few examples,
        ConfigError for an unknown split.
        """
        if split not in PARTS:
            raise unknown("split", split, PARTS)
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
        count = count_saved if self.pretrained else count_activations
        few = least_of(policy_of("stored", self.space, self.module))
        return max(1, count(self.module, self.prepare(self.splits.train.x[:few])) // few)

    @property
    def field_batch(self) -> int:
        """Examples in a field's batch: at most a thousand and the largest part, fewer where the graph of a Hessian
        product is large.
        """
        largest = max(len(part) for part in self.splits.parts.values())
        return min(field_batch(self.activations, torch.device(self.device).type), max(2, largest))

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

        Under the ``recomputed`` policy the statistics come from ``size`` training examples. ``part`` selects another
        subset of that size, disjoint from the earlier ones; ``keep_bytes`` is memory for the graphs of Hessian products
        at one point (see `EmpiricalRisk`).
        """
        examples = self.part(split, size, part)
        batch_size = batch_size or self.field_batch
        averaged_over = size, part if split == "train" else 0, batch_size
        return EmpiricalRisk(
            self.space,
            self.module,
            examples.x,
            examples.y,
            loss=self.per_example_loss(),
            prepare=self.prepare,
            policy=policy,
            batch_size=batch_size,
            calibration=self._calibration(*averaged_over) if self.space.statistics else None,
            keep_bytes=keep_bytes,
        )

    def _calibration(self, size: int | None, part: int, batch_size: int) -> Calibration:
        """The training examples for recomputed statistics, by size and part; caches the last four."""
        kept, key = self.__dict__.setdefault("_calibrations", {}), (size, part, batch_size)
        if key not in kept:
            kept[key] = Calibration(self.space, self.module, self.part("train", size, part).x, self.prepare, batch_size)
        for old in list(kept)[:-4]:
            del kept[old]
        return kept[key]

    def per_example_loss(self) -> Loss:
        """The per-example loss function."""
        by_path = isinstance(self.loss, str) and ":" in self.loss
        return loss_function(identity.function(self.loss) if by_path else self.loss)

    def setup(
        self,
        *,
        recipe: Recipe,
        seed: int,
        order: str = "",
        watch: Watch | None = None,
        checkpointer: Checkpointer | None = None,
    ) -> TrainingSetup:
        """The setup of a training on the problem's training examples (see `sublevel.train.setup.TrainingSetup`)."""
        data = self.splits.train
        return TrainingSetup(
            space=self.space, module=self.module, data=data, prepare=self.prepare,
            loss=counting(self.per_example_loss(), data.y), recipe=recipe, seed=seed, order=order, watch=watch,
            checkpointer=checkpointer,
        )  # fmt: skip

    def trained(
        self,
        start: Point,
        *,
        recipe: Recipe,
        seed: int,
        order: str = "",
        watch: Watch | None = None,
        checkpointer: Checkpointer | None = None,
        **how: Any,
    ) -> TrainingResult:
        """Train from ``start``: `trained_by` the `setup` of these arguments; the others are those of `trained_by`."""
        setup = self.setup(recipe=recipe, seed=seed, order=order, watch=watch, checkpointer=checkpointer)
        return self.trained_by(setup, start, **how)

    def trained_by(self, setup: TrainingSetup, start: Point, **how: Any) -> TrainingResult:
        """Train from ``start``, with the problem's ``loop`` if it has one. The other arguments are those of
        `sublevel.train.engine.train`. A loop may also name the argument ``problem`` (see `sublevel.train.own.by_loop`).
        """
        if self.loop is None:
            return train(setup, start, **how)
        return by_loop(identity.function(self.loop), setup, start, offered={"problem": self}, **how)

    def fingerprint(self) -> dict[str, Any] | None:
        """The problem's part of a cell's key; None if its code has neither source nor version.

        It includes the values that the factory draws, so weights read from a file count too. Raises ModelError if two
        builds from one seed differ.
        """
        model = identity.of_model(self.model, self.module, self.options, self.version)
        loss = identity.of_loss(self.loss, self.version)
        loop = None if self.loop is None else identity.of_code(self.loop, self.version)
        if model is None or loss is None or (loop is None and self.loop is not None):
            return None
        values = [identity.values(self.build(0, "template")) for _ in range(2)]
        if values[0] != values[1]:
            raise ModelError(
                f"two builds of model {self.name} from one seed differ: its weights must be drawn from torch's "
                "generator, not from numpy's or Python's"
            )
        prunable = hashlib.sha256(self.space.prunable.numpy().tobytes()).hexdigest()
        found = {"data": self.splits.digest, "model": model, "values": values[0], "prunable": prunable, "loss": loss}
        return found | ({} if loop is None else {"loop": loop})

    @property
    def portable(self) -> bool:
        """Whether another process can build this problem from its spec."""
        code = [self.model, self.loss, self.data, *([] if self.loop is None else [self.loop])]
        return not callable(self.prunable) and all(map(identity.importable, code))

    def spec(self, stored: str | None = None) -> ProblemSpec:
        """The problem by names and numbers. ``stored`` is the digest of the stored `own_tensors`.

        >>> Problem("lenet-300-100", train_size=500).spec().data.train_size
        500
        """
        from sublevel.problem.spec import DataSpec, ModelSpec, ProblemSpec

        given = self.train is not None
        name = f"hf:{models.pretrained.folder_of(self.name).resolve()}" if self.pretrained else self.name
        chosen = () if self.prunable is None or callable(self.prunable) else self.prunable
        prunable = ((chosen,) if isinstance(chosen, str) else tuple(chosen)) or None
        return ProblemSpec(
            model=ModelSpec(name=name, options=dict(self.options), prunable=prunable, version=self.version),
            data=DataSpec(
                name="own" if given else self.data,
                root=None if given or self.root is None else str(Path(self.root).resolve()),
                options={k: v for k, v in self.data_options.items() if not given or k == "classes"},
                **{key: getattr(self, key) for key in ("validation", "train_size", "test_size", "mean", "std")},
            ),
            loss=identity.path(self.loss), loop=None if self.loop is None else identity.path(self.loop),
            stored=stored, device=self.device, dtype=self.dtype,
        )  # fmt: skip

    def own_tensors(self) -> dict[str, Tensor] | None:
        """Data passed in Python, as tensors by name, for a store; None for named data."""
        return None if self.train is None else own.tensors(self.dataset)

    @classmethod
    def of(
        cls, spec: ProblemSpec, get: Callable[[str], dict[str, Tensor]] | None = None, shared: str | None = None
    ) -> Problem:
        """The problem of a spec. ``get`` loads stored data by digest.

        If the splits are ``shared`` on this machine, they are mapped and the data are not read.
        """
        splits = datasets.shared(shared) if shared else None
        d, m, given = spec.data, spec.model, {}
        if spec.stored is not None and splits is None and get is not None:
            stored = get(spec.stored)
            given = {split: (own.inputs_in(stored, split), stored[f"{split}_y"]) for split in ("train", "test")}
        problem = cls(
            m.name, data=d.name, root=d.root, loss=spec.loss, loop=spec.loop, options=m.options,
            data_options=d.options, validation=d.validation, train_size=d.train_size, test_size=d.test_size,
            mean=d.mean, std=d.std, prunable=m.prunable, version=m.version, device=spec.device, dtype=spec.dtype,
        )._with(**given)  # fmt: skip
        return problem if splits is None else problem._attach(splits)

    def on(self, device: str, dtype: str) -> Problem:
        """The same problem on another device, or in another precision; reuses data already read."""
        other = self._with(device=check_device(device), dtype=dtype)
        return other._attach(self.splits) if "splits" in self.__dict__ else other

    def _with(self, **changes: Any) -> Problem:
        """A copy with other fields, which is checked on first use."""
        other = object.__new__(type(self))
        other.__dict__.update({each.name: getattr(self, each.name) for each in fields(self)} | changes)
        return other

    def _attach(self, splits: Splits) -> Problem:
        """Attach precomputed splits; return self."""
        self.__dict__["splits"] = splits.to(self.device)
        return self

    def build(self, seed: int, stream: str) -> nn.Module:
        """A new network from the factory, drawn from a stream of ``seed``, on the CPU."""
        with seeded(seed, stream):
            splits = self.splits
            classes = outputs_for(self.loss, len(splits.classes), splits.train.y)
            net = models.build(self.model, input_shape=splits.input_shape, classes=classes, **self.options)
        for name, parameter in net.named_parameters():
            if isinstance(parameter, nn.parameter.UninitializedParameter):
                raise ModelError(
                    f"model {self.name}: {name} has no shape yet; give lazy layers their input size, or call the "
                    "network once on an example"
                )
            if parameter.is_meta:
                raise ModelError(f"model {self.name}: {name} has no values (device meta); give a network with weights")
        return net

    @property
    def name(self) -> str:
        """The name of the network."""
        return identity.path(self.model)
