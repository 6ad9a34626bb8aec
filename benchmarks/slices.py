"""Work in slices of some minutes on a machine that keeps nothing: what is known travels as archives of tensors."""

from __future__ import annotations

import io
import json
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load, save

from sublevel.train.resume import Snapshot, points, state, tensors


class OutOfTime(Exception):
    """The slice ends; what was under way is kept."""


@dataclass
class Archive:
    """Everything that is known, by name; what this slice adds is written as one archive."""

    known: dict[str, bytes] = field(default_factory=dict)
    added: dict[str, bytes] = field(default_factory=dict)
    slices: int = 0

    @classmethod
    def read(cls, folder: Path) -> Archive:
        """All archives of a folder, in the order of their names."""
        found = cls()
        for path in sorted(folder.glob("slice-*.tar")):
            with tarfile.open(path) as tar:
                for member in tar:
                    file = tar.extractfile(member)
                    if file:
                        found.known[member.name] = file.read()
            found.slices += 1
        return found

    def put(self, name: str, content: bytes) -> None:
        """Add, or replace."""
        self.known[name] = self.added[name] = content

    def write(self, folder: Path) -> Path:
        """This slice's archive, whole or not at all."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"slice-{self.slices:03}.tar"
        beside = path.with_suffix(".part")
        with tarfile.open(beside, "w") as tar:
            for name, content in self.added.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        beside.replace(path)
        return path


class Slice:
    """Keeps a training that is under way when the time is up (`sublevel.train.resume.Checkpointer`)."""

    def __init__(self, archive: Archive, until: float) -> None:
        self.archive, self.until, self.task = archive, until, ""

    @property
    def left(self) -> float:
        """Seconds."""
        return self.until - time.monotonic()

    def due(self) -> bool:
        """Whether the time is up."""
        return self.left < 0

    def save(self, snapshot: Snapshot) -> None:
        """Keep it, and end the slice."""
        about = {"task": self.task, "step": snapshot.step, "total": snapshot.total, "seen": snapshot.seen}
        found = {name: t.cpu() for name, t in tensors(snapshot).items()}
        text = json.dumps(about | {"history": snapshot.history})
        self.archive.put("under-way", save(found, metadata={"about": text}))
        raise OutOfTime

    def load(self) -> Snapshot | None:
        """Where this task was left."""
        content = self.archive.known.get("under-way", b"")
        if not content:
            return None
        found, about = load(content), about_of(content)
        if about["task"] != self.task:
            return None
        return Snapshot(state(found), about["step"], about["total"], about["seen"], about["history"], points(found))


def about_of(content: bytes) -> Any:
    """The JSON beside the tensors of a file."""
    size = int.from_bytes(content[:8], "little")
    return json.loads(json.loads(content[8 : 8 + size])["__metadata__"]["about"])
