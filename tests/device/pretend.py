"""A pretend CUDA machine for computers without one: two cards, whose tensors are CPU tensors under CUDA's rules.

    machine = pretend.start()                     # before torch is imported
    torch.zeros(3, device="cuda").sum().item()    # a wait, counted in machine.seen.waits

It shows mixing, waits and what a captured graph leaves out. It cannot show kernels, cuDNN, streams, memory or speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import guard


def start() -> Any:
    """Make this process's ``cuda`` the pretend one, for good; what is seen is in the `tensor.Machine` returned."""
    exchange = guard.load().pretend_exchange
    import capture
    import tensor
    import torch

    machine = tensor.Machine(exchange)
    capture.Capturing.machine = machine
    _patch_cuda(torch, machine)
    _patch_makers(torch)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    tensor.Everywhere(machine).__enter__()
    return machine


def _patch_cuda(torch: Any, machine: Any) -> None:
    """What `torch.cuda` says of the machine."""
    from capture import Capturing, Graph, Stream

    @contextmanager
    def device(which: Any) -> Iterator[None]:
        index = torch.device(which).index if not isinstance(which, int) else which
        before = machine.exchange(-1 if index is None else index)
        try:
            yield
        finally:
            machine.exchange(before)

    def set_device(which: Any) -> None:
        machine.exchange(which if isinstance(which, int) else torch.device(which).index or 0)

    def card(which: Any) -> int:
        index = which if which is None or isinstance(which, int) else torch.device(which).index
        return machine.current if index is None else index

    generator = torch.default_generator

    class Generator:
        """The generator of a card: a state that is in no capture ends what a failed capture has left."""

        def clone_state(self) -> Any:
            return generator.get_state()

        def graphsafe_set_state(self, state: Any) -> None:
            generator.set_state(state)
            machine.caught = False

    said = {
        "_lazy_init": lambda: None, "is_available": lambda: True, "is_initialized": lambda: True,
        "device_count": lambda: 2, "current_device": lambda: machine.current, "device": device,
        "set_device": set_device, "get_device_name": lambda which=None: f"pretend {card(which)}",
        "manual_seed_all": lambda seed: None, "manual_seed": lambda seed: None,
        "get_rng_state": lambda *which: generator.get_state(),
        "set_rng_state": lambda state, *which: generator.set_state(state),
        "default_generators": (Generator(), Generator()),
        "Stream": Stream, "current_stream": lambda which=None: Stream(which), "stream": lambda s: nullcontext(),
        "CUDAGraph": Graph, "graph": Capturing, "synchronize": lambda *which: None, "empty_cache": lambda: None,
        "set_stream": lambda s: None, "get_sync_debug_mode": lambda: machine.waits_are,
        "set_sync_debug_mode": lambda mode: setattr(machine, "waits_are", mode),
        "is_bf16_supported": lambda *a, **k: True, "mem_get_info": lambda *which: (10**9, 10**9),
    }  # fmt: skip
    for name, value in said.items():
        setattr(torch.cuda, name, value)


def _patch_makers(torch: Any) -> None:
    """`torch.tensor` and `Tensor.new_tensor` make the tensor where no dispatch mode sees it: make it on the host."""
    on_host = torch.tensor

    def made(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any) -> Any:
        out = on_host(data, dtype=dtype)
        out = out if device is None else out.to(device)
        return out.requires_grad_() if requires_grad else out

    def like(self: Any, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Any:
        return made(data, dtype=dtype or self.dtype, device=device or self.device, requires_grad=requires_grad)

    torch.tensor, torch.Tensor.new_tensor = made, like
    torch.Tensor.pin_memory = lambda self, *_: self
