"""Cells one after another; all processes that torchrun has started share each training.

    torchrun --nproc-per-node 4 -m sublevel.cli run study.toml --executor torchrun

The first process runs the study. It sends each job that is marked ``together`` to the others as text, and they take
part. It runs other jobs alone. Only the first process writes to the store. All processes must see the same store, data
and code. If one dies, all end; the same command resumes the run.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta

import torch
import torch.distributed as dist

from sublevel.engine.executors import visibility
from sublevel.engine.executors.base import Setting
from sublevel.engine.job import Job, Progress
from sublevel.engine.worker import run_job, take_part
from sublevel.errors import StoreError

PATIENCE = timedelta(days=7)
"""Time that a process waits for the others, since the first one may measure alone for days."""


def started() -> int:
    """The number of processes that torchrun has started; 0 if it did not start this one."""
    return int(os.environ.get("WORLD_SIZE", "0")) if {"RANK", "MASTER_ADDR"} <= set(os.environ) else 0


def helps() -> bool:
    """Whether this process helps another one, which runs the study."""
    return started() > 1 and os.environ["RANK"] != "0"


class Torchrun:
    """The executor of the first process. StoreError if another process does not see the store."""

    slots = 1

    def __init__(self, setting: Setting) -> None:
        _join()
        token = visibility.place(setting.store)
        try:
            _send(token)
            blind = [f"process {rank}" for rank, sees in enumerate(_seen(token)) if not sees]
            if blind:
                raise StoreError(visibility.refusal(token, *blind))
        except BaseException:
            self.shutdown()
            raise
        finally:
            visibility.take_away(token)

    def submit(self, job: str, progress: Progress) -> Future[str]:
        """Run the job now, with all processes if it is marked ``together``."""
        if Job.of(job).together:
            _send(job)
        future: Future[str] = Future()
        future.set_result(run_job(job, progress))
        return future

    def shutdown(self) -> None:
        """Release the other processes; if one of them is gone, there is nothing to send."""
        with suppress(RuntimeError):
            _send("")
        dist.destroy_process_group()


def serve() -> None:
    """Take part in every job until the first process has no more."""
    _join()
    _seen(_received())
    while job := _received():
        take_part(job)
    dist.destroy_process_group()


def _join() -> None:
    """Join the process group: gloo for CPU tensors, nccl for GPU tensors, one GPU per process."""
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo", timeout=PATIENCE)


def _send(text: str) -> None:
    """Broadcast a text from the first process: its length, then its bytes. Nothing is pickled."""
    data = torch.tensor(list(text.encode()), dtype=torch.uint8)
    dist.broadcast(torch.tensor(len(data)), 0)
    if len(data):
        dist.broadcast(data, 0)


def _received() -> str:
    length = torch.tensor(0)
    dist.broadcast(length, 0)
    data = torch.empty(int(length), dtype=torch.uint8)
    if len(data):
        dist.broadcast(data, 0)
    return bytes(data.tolist()).decode()


def _seen(token: str) -> list[bool]:
    """Whether each process sees the store."""
    found = torch.zeros(dist.get_world_size(), dtype=torch.int64)
    found[dist.get_rank()] = visibility.sees(token)
    dist.all_reduce(found)
    return [bool(sees) for sees in found]
