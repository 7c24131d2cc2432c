"""The output of a training, in a local folder or on S3.

    training.json               what was started here, and whether it is finished
    metrics.jsonl               a line per step
    tensorboard/                the same
    checkpoints/step-00000100/  state.json, model/, optimizer.pt, metrics.jsonl
    model/                      the result, once there is one

A checkpoint counts when every file that its state.json lists is there in its full length; those that were being
written when their writer died do not, and are removed.
"""

import json
import os
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from pipelines.storage import s3

METRICS = "metrics.jsonl"
STATE = "state.json"
CHECKPOINTS = "checkpoints"
MODEL = "model"

_STARTED = "training.json"
_SNAPSHOT = f"{CHECKPOINTS}/checkpoint_manager_snapshot.json"  # Ray Train's


@dataclass(frozen=True)
class TrainingStorage:
    """Files below a root; paths are relative to it, with forward slashes.

    Attributes:
        filesystem: of pyarrow.
        root: path on it.
    """

    filesystem: fs.FileSystem
    root: str

    @classmethod
    def open(cls, uri: str) -> "TrainingStorage":
        """The storage at a local folder or an s3:// URI; it need not exist yet.

        S3 is where `s3` has it: pyarrow does not look at endpoints and regions of the AWS configuration itself.

        Raises:
            ValueError: a URI that cannot be used or written to; names it and what the system says.
        """
        try:
            if s3.is_s3(uri) and (endpoint := s3.custom_endpoint()):
                filesystem = fs.S3FileSystem(endpoint_override=endpoint, region=s3.region())
                root = uri.removeprefix("s3://")
            else:
                filesystem, root = fs.FileSystem.from_uri(uri if "://" in uri else os.path.abspath(uri))
            storage = cls(filesystem, root.rstrip("/"))
            probe = f".writable-{uuid.uuid4().hex}"
            storage.write(probe, b"")
            filesystem.delete_file(storage.path(probe))
        except (OSError, ValueError) as error:  # of pyarrow
            raise ValueError(f"output: cannot write to {uri} ({error}); choose another folder") from error
        return storage

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def path(self, path: str) -> str:
        """A path on the file system."""
        return f"{self.root}/{path}"

    def write(self, path: str, data: bytes) -> None:
        """Writes a file, which appears whole or not at all."""
        target = self.path(path)
        self.filesystem.create_dir(target.rpartition("/")[0], recursive=True)
        partial = f"{target}.partial" if self.is_local else target  # S3 shows an object once it is closed
        with self.filesystem.open_output_stream(partial) as file:
            file.write(data)
        if partial != target:
            self.filesystem.move(partial, target)

    def read(self, path: str) -> bytes | None:
        """What a file holds, if it is there."""
        try:
            with self.filesystem.open_input_stream(self.path(path)) as file:
                data: bytes = file.read()
                return data
        except FileNotFoundError:
            return None

    def copy_in(self, folder: Path, path: str) -> None:
        """Copies a local folder, over what is there."""
        self._copy(str(folder), path, fs.LocalFileSystem())

    def copy_out(self, path: str, folder: Path) -> None:
        """Copies to a local folder."""
        folder.mkdir(parents=True, exist_ok=True)
        fs.copy_files(self.path(path), str(folder), source_filesystem=self.filesystem)

    def remove(self, path: str) -> None:
        """Removes a file or folder, if it is there."""
        kind = self.filesystem.get_file_info(self.path(path)).type
        if kind == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path(path))
        elif kind == fs.FileType.File:
            self.filesystem.delete_file(self.path(path))

    def begin(self, identity: Mapping[str, Any]) -> bool:
        """Begins a training or goes on with one; returns whether it is finished.

        Args:
            identity: everything that the result depends on, as JSON has it.

        Raises:
            ValueError: the output is of another training; names what differs.
        """
        wanted = json.loads(json.dumps(identity))
        stored = self.read(_STARTED)
        if stored is None:
            self.write(_STARTED, _json({"identity": wanted, "finished": False}))
            return False
        try:
            content = json.loads(stored)
            there, finished = dict(content["identity"]), bool(content["finished"])
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"output: {self.path(_STARTED)} cannot be read ({error!r}); choose another output"
            ) from error
        differing = [
            f"{name} (there {there.get(name)}, here {wanted.get(name)})"
            for name in sorted(there.keys() | wanted.keys())
            if there.get(name) != wanted.get(name)
        ]
        if differing:
            raise ValueError(
                f"output: {self.root} is of another training, which differs in {', '.join(differing)}; "
                "choose another output, or the settings that it was started with"
            )
        self.remove(_SNAPSHOT)  # cut off by a crash it would stop Ray Train, which is told where to go on by us
        return finished

    def finish(self, step: int) -> None:
        """Puts the model of a checkpoint in place, and marks the training as finished."""
        source = f"{checkpoint_path(step)}/model"
        self.remove(MODEL)
        if self.is_local:
            self.remove(f".{MODEL}.partial")
            self._copy(self.path(source), f".{MODEL}.partial", self.filesystem)
            self.filesystem.move(self.path(f".{MODEL}.partial"), self.path(MODEL))
        else:
            self._copy(self.path(source), MODEL, self.filesystem)
        started = json.loads(self.read(_STARTED) or b"{}")
        self.write(_STARTED, _json(started | {"finished": True}))

    def checkpoints(self) -> list[int]:
        """Steps of the checkpoints that are complete, rising."""
        return sorted(step for step, complete in self._found() if complete)

    def remove_incomplete(self) -> None:
        """Removes checkpoints whose writer died."""
        for step, complete in self._found():
            if not complete:
                self.remove(checkpoint_path(step))

    def keep_last(self, count: int) -> None:
        """Removes all checkpoints but the last ones."""
        for step in self.checkpoints()[:-count]:
            self.remove(checkpoint_path(step))

    def _found(self) -> list[tuple[int, bool]]:
        selector = fs.FileSelector(self.path(CHECKPOINTS), allow_not_found=True)
        names = [re.fullmatch(r"step-(\d+)", info.base_name) for info in self.filesystem.get_file_info(selector)]
        return [(int(name[1]), self._is_complete(checkpoint_path(int(name[1])))) for name in names if name]

    def _is_complete(self, path: str) -> bool:
        try:
            files = dict(json.loads(self.read(f"{path}/{STATE}") or b"{}")["files"])
        except (KeyError, TypeError, ValueError):
            return False
        infos = self.filesystem.get_file_info([self.path(f"{path}/{name}") for name in files])
        return all(info.size == size for info, size in zip(infos, files.values(), strict=True))

    def _copy(self, source: str, path: str, source_filesystem: fs.FileSystem) -> None:
        self.filesystem.create_dir(self.path(path), recursive=True)
        fs.copy_files(
            source,
            self.path(path),
            source_filesystem=source_filesystem,
            destination_filesystem=self.filesystem,
            use_threads=self.is_local,  # uploads to S3 may hang: https://github.com/apache/arrow/issues/32372
        )


def checkpoint_path(step: int) -> str:
    """Where the checkpoint of a step is."""
    return f"{CHECKPOINTS}/{checkpoint_name(step)}"


def checkpoint_name(step: int) -> str:
    """Of a checkpoint's folder."""
    return f"step-{step:08d}"


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes the state.json of a checkpoint that is otherwise written: the state, and which files there are."""
    files = {file.relative_to(folder).as_posix(): file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    (folder / STATE).write_bytes(_json({**state, "files": files}))


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()
