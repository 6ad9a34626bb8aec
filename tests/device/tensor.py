"""Tensors that say `cuda`: CPU arithmetic under CUDA's rules.

Every operation of PyTorch passes `Everywhere`, a dispatch mode. It refuses what CUDA refuses (tensors of two devices,
generators of the host), counts what makes the host wait for the device, and runs the rest on the CPU tensors inside.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import rules
import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_flatten, tree_map

CPU = torch.device("cpu")
PACKAGE = ("/sublevel/", "/benchmarks/")

Dispatched = Callable[..., Any]


@dataclass
class Seen:
    """What happened on the device: counts by line of the package, and by operation."""

    waits: Counter[str] = field(default_factory=Counter)
    unordered: Counter[str] = field(default_factory=Counter)
    tf32: Counter[str] = field(default_factory=Counter)
    launched: int = 0


class Machine:
    """The state of the pretend machine: the current card, the graph that is captured, and what was seen."""

    def __init__(self, exchange: Callable[[int], int]) -> None:
        self.exchange, self.seen = exchange, Seen()
        self.recorder: Any = None
        self.caught = False
        """Whether a capture has failed and left the generators in it: nothing can be drawn."""
        self.waits_are = "default"
        """The mode of `torch.cuda.set_sync_debug_mode`: where it is "error", a wait raises."""

    @property
    def current(self) -> int:
        """The current card."""
        return self.exchange(-1)

    def wait(self, why: str) -> None:
        """The host waits for the device: counted by line, and forbidden while a graph is captured."""
        if self.recorder is not None:
            raise self.recorder.fault(f"operation not permitted when stream is capturing: {why} at {line()}")
        if self.waits_are == "error":
            raise RuntimeError(f"called a synchronizing CUDA operation: {why} at {line()}")
        self.seen.waits[f"{line()} {why}"] += 1


class OnDevice(torch.Tensor):
    """A tensor of the device, whose numbers are those of the CPU tensor ``held``."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor, device: torch.device) -> OnDevice:
        out = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            layout=held.layout, device=device,
        )  # fmt: skip
        out.held = held
        return out

    def __repr__(self, *, tensor_contents: Any = None) -> str:  # type: ignore[override]
        return f"OnDevice({self.held!r}, {self.device})"

    def untyped_storage(self) -> torch.UntypedStorage:
        return self.held.untyped_storage()

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            out = OnDevice(self.held.detach().clone(), self.device)
            leaf = getattr(self, "_is_param", False)
            out = torch.nn.Parameter(out, self.requires_grad) if leaf else out.requires_grad_(self.requires_grad)
            memo[id(self)] = out
        return memo[id(self)]

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.cpu().__reduce_ex__(protocol)  # as torch.load reads it with map_location="cpu"

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["held"], self.device

    @classmethod
    def __tensor_unflatten__(cls, inner: dict[str, Any], device: Any, size: Any, stride: Any) -> OnDevice:
        return cls(inner["held"], device)

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} met a tensor of the device outside the pretend machine")

    __torch_function__ = torch._C._disabled_torch_function_impl


def line() -> str:
    """The innermost line of the package, or of whatever called torch."""
    frame, outside = sys._getframe(1), "?"
    while frame:
        name = frame.f_code.co_filename
        if any(part in name for part in PACKAGE) and "/tests/" not in name:
            return f"{name.rpartition('/src/')[2]}:{frame.f_lineno}"
        if outside == "?" and "/torch/" not in name and "/tests/device/" not in name:
            outside = f"{name}:{frame.f_lineno}"
        frame = frame.f_back
    return outside


def held(x: Any) -> Any:
    """The CPU tensor inside."""
    return x.held if isinstance(x, OnDevice) else x


def wrap(x: Any, device: torch.device) -> Any:
    """Every tensor in ``x`` as one of the device."""
    made = lambda t: OnDevice(t, device) if isinstance(t, torch.Tensor) and not isinstance(t, OnDevice) else t  # noqa: E731
    return tree_map(made, x)


class Everywhere(TorchDispatchMode):
    """All operations of a process, on the host and on the device."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, flat = func._schema.name, tree_flatten((args, kwargs))[0]
        tensors = [t for t in flat if isinstance(t, torch.Tensor)]
        on = [t for t in tensors if isinstance(t, OnDevice)]
        target = self._placed(kwargs.get("device"))
        to_device = target is not None and target.type == "cuda"
        if (not on and not to_device) or name in ("aten::lift_fresh", "aten::lift"):
            return args[0] if on else func(*args, **kwargs)
        if name in ("aten::_to_copy", "aten::copy_") and self._crosses(args, target):
            self.machine.wait("a copy between host and device")
        elif target is not None and not to_device:  # such as new_zeros(device="cpu")
            return func(*tree_map(held, args), **tree_map(held, kwargs))
        else:
            self._check(func, name, args, kwargs, on, [t for t in tensors if not isinstance(t, OnDevice)])
        where = target if target is not None else on[0].device
        return self._launch(func, args, kwargs, where)

    def _placed(self, device: Any) -> torch.device | None:
        """The device that an argument says, with its card."""
        if device is None:
            return None
        device = torch.device(device)
        if device.type != "cuda":
            return device
        return torch.device("cuda", self.machine.current if device.index is None else device.index)

    def _crosses(self, args: Any, target: torch.device | None) -> bool:
        source, into = (args[0], target) if target is not None else (args[-1], args[0].device)
        if len(args) > 1 and isinstance(args[1], torch.Tensor):  # copy_
            source, into = args[1], args[0].device
        return into is not None and source.device.type != into.type

    def _launch(self, func: Any, args: Any, kwargs: Any, where: torch.device) -> Any:
        """Run the operation on what the tensors hold."""
        machine = self.machine
        machine.seen.launched += 1
        if machine.caught and torch.Tag.nondeterministic_seeded in func.tags:
            raise RuntimeError("Offset increment outside graph capture encountered unexpectedly.")
        plain = {**kwargs, **({"device": CPU} if "device" in kwargs else {})}
        plain.pop("pin_memory", None)
        inner = tree_map(held, (args, plain))
        if machine.recorder is not None:
            machine.recorder.before(func, *inner)
        out = func(*inner[0], **inner[1])
        if machine.recorder is not None:
            machine.recorder.after(where, func, *inner, out)
        if func._schema.name == "aten::_local_scalar_dense" or where.type == "cpu":
            return out
        if func._schema.name == "aten::_to_copy" and not isinstance(args[0], OnDevice) and out is args[0]:
            out = out.clone()
        wrapped = wrap(out, where)
        if out is None or not isinstance(out, (torch.Tensor, list, tuple)):
            return wrapped
        try:
            return return_and_correct_aliasing(func, args, kwargs, wrapped)
        except Exception:  # operations on lists, and views without a rule
            return wrapped

    def _check(self, func: Any, name: str, args: Any, kwargs: Any, on: list[Any], off: list[Any]) -> None:
        """What CUDA refuses, and what makes the host wait."""
        generator = kwargs.get("generator")
        if generator is not None and generator.device.type != "cuda":
            raise RuntimeError(f"expected a 'cuda' device type for generator but found 'cpu' ({name} at {line()})")
        if len({t.device for t in on}) > 1:
            self._mixed(name, "tensors of two cards")
        if name in rules.INDEXING:
            self._indexed(name, args)
        elif not (torch.Tag.pointwise in func.tags or name in rules.SCALARS):
            wrong = [t for t in off if not (t.numel() == 0 and name == "aten::cat")]
            if wrong:
                self._mixed(name, f"a tensor {list(wrong[0].shape)} of the host")
        elif any(t.dim() for t in off):
            self._mixed(name, "a tensor of the host")
        if name in rules.WAITS:
            self.machine.wait(name)
        if name in rules.FUSED:
            rules.check_fused(name, args, kwargs)
        if on and on[0].is_floating_point():
            self._ordered(name)
        if name in rules.PRODUCTS and on and on[0].dtype == torch.float32 and rules.tf32(name):
            self.machine.seen.tf32[f"{line()} {name}"] += 1

    def _ordered(self, name: str) -> None:
        """Count sums in no fixed order; PyTorch warns of those for which it has no other kernel."""
        fixed = torch.are_deterministic_algorithms_enabled()
        if name in rules.UNORDERED or (name in rules.ORDERED_ON_REQUEST and not fixed):
            self.machine.seen.unordered[f"{line()} {name}"] += 1
        if name in rules.UNORDERED and fixed:
            warnings.warn(f"{name} does not have a deterministic implementation, but you set ...", stacklevel=2)

    def _indexed(self, name: str, args: Any) -> None:
        indexed: torch.Tensor = args[0]
        indices: Iterable[torch.Tensor] = (i for i in args[1] if i is not None)
        for i in indices:
            if isinstance(i, OnDevice) and not isinstance(indexed, OnDevice):
                self._mixed(name, "an index of the device into a tensor of the host")
            if not isinstance(i, OnDevice):
                self.machine.wait(f"{name} by an index of the host")
            if i.dtype in (torch.bool, torch.uint8):
                self.machine.wait(f"{name} by a mask")
        if len(args) > 2 and not isinstance(args[2], OnDevice) and args[2].dim():
            self._mixed(name, "values of the host")

    def _mixed(self, name: str, why: str) -> None:
        raise RuntimeError(f"Expected all tensors to be on the same device ({name}: {why}) at {line()}")
