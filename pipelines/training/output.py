"""The output of a training, in a local folder or in the cloud.

    training.json               what was started here, and whether it is finished
    metrics.jsonl               a line per step
    tensorboard/                the same
    checkpoints/step-00000100/  state.json, model/, optimizer.pt, metrics.jsonl
    model/                      the result, once there is one

A checkpoint counts when every file that its state.json lists is there in its full length; those that were being
written when their writer died do not, and are removed. Before a training resumes, the hashes in state.json are compared
too, so that a damaged checkpoint gives way to the one before it.
"""

import hashlib
import json
import logging
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipelines.storage.files import Storage
from pipelines.storage.lease import check_holder
from pipelines.storage.outage import outlast

METRICS = "metrics.jsonl"
STATE = "state.json"
CHECKPOINTS = "checkpoints"
MODEL = "model"

_STARTED = "training.json"

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingOutput:
    """The files of one training. Can be pickled.

    Attributes:
        files: the output folder.
        holder: id of the run's lease, which must be valid when anything is put in place or removed; None where none is
            held.
        stall_s: how long the storage may be away, seconds.
    """

    files: Storage
    holder: str | None = None
    stall_s: float = 0.0

    @classmethod
    def open(cls, uri: str) -> "TrainingOutput":
        """Opens the output at a folder, local or in the cloud; it need not exist.

        Raises:
            ValueError: the output cannot be written to; names it and the system's reason.
        """
        output = cls(Storage(uri))
        output.files.check_writable()
        return output

    def check_holder(self) -> None:
        """Raises if another run took over, or if this machine sees another folder; see `lease.check_holder`."""
        if self.holder is not None:
            check_holder(self.files, self.holder)

    def outlast(self, work: Callable[[], T]) -> T:
        """Returns the result of work on the output while this run holds it; see `outage.outlast`."""

        def work_holding() -> T:
            self.check_holder()
            return work()

        return outlast(work_holding, self.stall_s)

    def write(self, path: str, data: bytes) -> None:
        """Writes a small file."""
        with self.files.write(path) as file:
            file.write(data)

    def begin(self, identity: Mapping[str, Any]) -> bool:
        """Begins or resumes a training; returns whether it is finished.

        An output without a checkpoint is of no training yet: settings may be mended after a failure at the start.

        Args:
            identity: everything that the result depends on, as JSON has it.

        Raises:
            ValueError: the output is of another training; names what differs.
        """
        wanted = json.loads(json.dumps(identity))
        stored = self.files.read_bytes(_STARTED)
        if stored is None:
            return self._start(wanted)
        try:
            content = json.loads(stored)
            begun, finished = dict(content["identity"]), bool(content["finished"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"output: {self.files.root}/{_STARTED} cannot be read ({error!r}); choose another output"
            ) from error
        differing = [
            f"{name} (output: {begun.get(name)}, now: {wanted.get(name)})"
            for name in sorted(begun.keys() | wanted.keys())
            if begun.get(name) != wanted.get(name)
        ]
        if differing and not finished and not self.checkpoints():
            return self._start(wanted)
        if differing:
            raise ValueError(
                f"output: {self.files.root} is of another training, which differs in {', '.join(differing)}; "
                "choose another output, or the settings and the version of openvis that it was started with"
            )
        return finished

    def _start(self, identity: Mapping[str, Any]) -> bool:
        self.write(_STARTED, _json({"identity": identity, "finished": False}))
        return False

    def finish(self, step: int) -> None:
        """Puts the model of a checkpoint in place, and marks the training as finished."""
        with tempfile.TemporaryDirectory(prefix="openvis-") as folder:
            self.files.download_folder(f"{checkpoint_path(step)}/model", Path(folder))
            self.files.put_folder(Path(folder), MODEL)
        self.files.remove_partial(MODEL)
        started = json.loads(self.files.read_bytes(_STARTED) or b"{}")
        self.write(_STARTED, _json(started | {"finished": True}))

    def checkpoints(self) -> list[int]:
        """Returns the steps of the complete checkpoints in rising order."""
        return sorted(step for step, complete in self._steps().items() if complete)

    def intact(self) -> list[int]:
        """Returns the steps up to the last checkpoint that has the hashes of its state.json; removes the later ones.

        Reads only as many checkpoints as it removes, and one more.
        """
        steps = self.checkpoints()
        while steps and (damaged := self._damaged(steps[-1])):
            path = checkpoint_path(steps.pop())
            logger.warning("%s/%s/%s is damaged; the checkpoint is removed", self.files.root, path, damaged)
            self.files.remove_folder(path)
        return steps

    def _damaged(self, step: int) -> str | None:
        """Returns the name of a file of a checkpoint whose content is not that of its state.json."""
        folder = checkpoint_path(step)
        hashes = json.loads(self.files.read_bytes(f"{folder}/{STATE}") or b"{}").get("sha256", {})
        for name, expected in hashes.items():
            with self.files.read(f"{folder}/{name}") as file:
                digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type] # BinaryIO's stub lacks readinto
                if digest.hexdigest() != expected:
                    return str(name)
        return None

    def remove_incomplete(self) -> None:
        """Removes what writers that died have left behind."""
        for step, complete in self._steps().items():
            if not complete:
                self.files.remove_folder(checkpoint_path(step))
        for path in (_STARTED, METRICS, "tensorboard/*", f"{CHECKPOINTS}/step-*"):
            self.files.remove_partial(path)

    def keep_last(self, count: int) -> None:
        """Removes all complete checkpoints but the last `count`."""
        for step in self.checkpoints()[:-count]:
            self.files.remove_folder(checkpoint_path(step))

    def _steps(self) -> dict[int, bool]:
        """Returns the step of each checkpoint, and whether it is complete."""
        sizes: dict[int, dict[str, int]] = {}
        for path, size in self.files.sizes(CHECKPOINTS, deep=True):
            if match := re.fullmatch(rf"{CHECKPOINTS}/step-(\d+)/(.+)", path):
                sizes.setdefault(int(match[1]), {})[match[2]] = size
        return {step: self._is_complete(step, files) for step, files in sizes.items()}

    def _is_complete(self, step: int, sizes: Mapping[str, int]) -> bool:
        try:
            state = json.loads(self.files.read_bytes(f"{checkpoint_path(step)}/{STATE}") or b"{}")
            return all(sizes.get(name) == size for name, size in dict(state["files"]).items())
        except (KeyError, TypeError, ValueError):
            return False


def checkpoint_path(step: int) -> str:
    """Returns the path of the checkpoint of a step."""
    return f"{CHECKPOINTS}/{checkpoint_name(step)}"


def checkpoint_name(step: int) -> str:
    """Returns the name of a checkpoint's folder."""
    return f"step-{step:08d}"


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes the state.json of a checkpoint that is otherwise written: the state, and sizes and hashes of the files."""
    files, hashes = dict[str, int](), dict[str, str]()
    for path in folder.rglob("*"):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            files[name] = path.stat().st_size
            with path.open("rb") as file:
                hashes[name] = hashlib.file_digest(file, "sha256").hexdigest()
    (folder / STATE).write_bytes(_json({**state, "files": files, "sha256": hashes}))


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
