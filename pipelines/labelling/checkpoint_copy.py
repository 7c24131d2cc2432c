"""The same checkpoint on every machine: model actors elsewhere copy a folder that only the driver sees."""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.cluster.nodes import node_id
from pipelines.models import CHECKPOINT_FILES, load_model
from pipelines.storage.files import Storage
from pipelines.storage.objects import is_remote

if TYPE_CHECKING:
    from openvis_model.folded.inst_former import FoldedInstFormer

_PIECE = 2**25
"""Bytes of a file that are in Ray's store at a time."""


@dataclass(frozen=True)
class SharedCheckpoint:
    """A checkpoint as the driver sees it.

    Attributes:
        path: its folder, local or in the cloud; None is the built-in model.
        fingerprint: of the model as the driver has loaded it; its labels are under this name.
        node: Ray's id of the driver's machine.
    """

    path: str | None
    fingerprint: str
    node: str

    @classmethod
    def of(cls, checkpoint: str | None, fingerprint: str) -> "SharedCheckpoint":
        """Describes a checkpoint that was loaded on this machine, which is the driver's."""
        return cls(checkpoint and Storage(checkpoint).root, fingerprint, node_id())

    def load(self) -> "FoldedInstFormer":
        """Loads the model on any machine.

        Raises:
            ValueError: the checkpoint is not what it was when the run began.
        """
        if self.path is None or is_remote(self.path) or _fingerprint(self.path) == self.fingerprint:
            return self._checked(self.path)
        sizes, read = self._on_driver(_sizes), self._on_driver(_read)
        with tempfile.TemporaryDirectory(prefix="openvis-checkpoint-") as folder:
            for name, size in sizes(self.path).items():
                file = Path(folder, name)
                file.parent.mkdir(exist_ok=True)
                with file.open("wb") as copy:
                    copy.writelines(read(f"{self.path}/{name}", at, _PIECE) for at in range(0, size, _PIECE))
            return self._checked(folder)

    def _checked(self, path: str | None) -> "FoldedInstFormer":
        model = load_model(path)
        if self.fingerprint != model.fingerprint:
            raise ValueError(f"checkpoint: {self.path} has changed since the run began; run it again")
        return model

    def _on_driver(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a function that runs on the driver's machine."""
        there = NodeAffinitySchedulingStrategy(self.node, soft=False)
        remote = ray.remote(function).options(num_cpus=0, scheduling_strategy=there)
        return lambda *arguments: ray.get(remote.remote(*arguments))


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
