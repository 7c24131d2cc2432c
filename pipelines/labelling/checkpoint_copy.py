"""The same checkpoint on every machine: model actors elsewhere copy a folder that only the driver sees."""

import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster import node_id
from pipelines.models import CHECKPOINT_FILES, load_model
from pipelines.storage.files import Storage
from pipelines.storage.s3 import is_s3

if TYPE_CHECKING:
    from openvis_model.folded.inst_former import FoldedInstFormer

_PIECE = 2**25
"""Bytes of a file that are in Ray's store at a time."""


@dataclass(frozen=True)
class SharedCheckpoint:
    """A checkpoint as the driver sees it.

    Attributes:
        path: its folder, local or on S3; None is the built-in model.
        fingerprint: of its weights; None is that of the built-in model.
        node: Ray's id of the driver's machine.
    """

    path: str | None
    fingerprint: str | None = None
    node: str = ""

    @classmethod
    def of(cls, checkpoint: str | None) -> "SharedCheckpoint":
        """Describes a checkpoint on this machine, which is the driver's."""
        path = checkpoint and Storage(checkpoint).root
        return cls(path, path and _fingerprint(path), node_id())

    def load(self) -> "FoldedInstFormer":
        """Loads the model on any machine.

        Raises:
            ValueError: the checkpoint is not what it was when the run began.
        """
        if self.path is None or is_s3(self.path) or _fingerprint(self.path) == self.fingerprint:
            return self._checked(self.path)
        with tempfile.TemporaryDirectory(prefix="openvis-checkpoint-") as folder:
            for name, size in self._ask(_sizes, self.path).items():
                file = Path(folder, name)
                file.parent.mkdir(exist_ok=True)
                with file.open("wb") as copy:
                    copy.writelines(self._pieces(name, size))
            return self._checked(folder)

    def _checked(self, path: str | None) -> "FoldedInstFormer":
        model = load_model(path)
        if self.fingerprint not in (None, model.fingerprint):
            raise ValueError(f"checkpoint: {self.path} has changed since the run began; run it again")
        return model

    def _pieces(self, name: str, size: int) -> Iterator[bytes]:
        return (self._ask(_read, f"{self.path}/{name}", start, _PIECE) for start in range(0, size, _PIECE))

    def _ask(self, function: Any, *arguments: Any) -> Any:
        """Calls a function on the driver's machine."""
        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        return ray.get(ray.remote(function).options(num_cpus=0, scheduling_strategy=there).remote(*arguments))


def _fingerprint(path: str) -> str | None:
    """Returns the fingerprint that a checkpoint has here; None if it is not here."""
    try:
        return str(json.loads(Storage(path).read_bytes("config.json") or "")["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _sizes(path: str) -> dict[str, int]:
    return {name: size for name, size in Storage(path).sizes(".", deep=True) if CHECKPOINT_FILES.fullmatch(name)}


def _read(file: str, start: int, length: int) -> bytes:
    with open(file, "rb") as content:
        content.seek(start)
        return content.read(length)
