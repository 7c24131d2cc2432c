"""Where a video stands between two frames, and its file.

The file is a safetensors file, which holds numbers and text but no code:

    memory.0, memory.1, …   the association's memory
    slots.gap, …            the running sums of `Slots`
    shots.reference         the thumbnail that the next frame is compared with, to find cuts
    ended.track_id, …       the tracks that have ended
    metadata                counters, a hash of the tensors, and what the state belongs to
"""

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor

from openvis_model.fingerprint import tensor_fingerprint
from openvis_model.shots import ShotState
from openvis_model.track import CategoryScore, Track
from openvis_model.video_tracker import Slots, TrackerState

_KEY = "openvis_video_state_2"


@dataclass(frozen=True, eq=False)
class VideoState:
    """Everything that a video's segmentation carries from one frame to the next; picklable.

    Attributes:
        tracker: the tracker's state.
        size: height and width of the video's frames, pixels; None before the first frame.
        ended: tracks that have ended.
        shots: state of the detection of cuts.
    """

    tracker: TrackerState = field(default_factory=TrackerState)
    size: tuple[int, int] | None = None
    ended: tuple[Track, ...] = ()
    shots: ShotState = field(default_factory=ShotState)


def write_state(state: VideoState, path: str | Path, owner: Mapping[str, str]) -> None:
    """Writes a state; the file is replaced whole or not at all.

    Args:
        state: of a video.
        path: local file.
        owner: what the state belongs to, such as the model's fingerprint, by name; `read_state` compares it.
    """
    path = Path(path)
    tensors = _to_tensors(state)
    content = {
        "owner": dict(owner),
        "size": state.size,
        "next_track_id": state.tracker.next_track_id,
        "frame": state.tracker.frame,
        "flash": state.shots.flash,
        "blank": state.shots.blank,
    }
    metadata = {_KEY: json.dumps(content), "sha256": _digest(content, tensors)}
    partial = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        with partial.open("wb") as file:
            file.write(serialize(tensors, metadata))
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_state(path: str | Path, owner: Mapping[str, str], names: tuple[str, ...]) -> VideoState:
    """Reads a state.

    Args:
        path: file written by `write_state`.
        owner: what the state must belong to.
        names: the categories of the vocabulary.

    Raises:
        ValueError: names the file: it cannot be read, is damaged, or belongs to another model, vocabulary or settings.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is not a dict
        content = json.loads(metadata[_KEY])
        intact = metadata["sha256"] == _digest(content, tensors)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path}: not the state of a video, as save() of this version writes it ({error!r})"
        ) from error
    if not intact:
        raise ValueError(f"{path}: damaged, its content does not have the hash that was saved; copy it again")
    for name, value in owner.items():
        if content["owner"].get(name) != value:
            raise ValueError(
                f"{path}: the video was segmented with another {name}; resume it with the one that it began with"
            )
    return _from_tensors(content, tensors, names)


def _to_tensors(state: VideoState) -> dict[str, Tensor]:
    tracker, ended = state.tracker, state.ended
    columns = {f"memory.{i}": column for i, column in enumerate(tracker.memory or ())}
    columns |= {f"slots.{name}": column for name, column in (tracker.slots._asdict() if tracker.slots else {}).items()}
    if state.shots.reference is not None:
        columns["shots.reference"] = torch.from_numpy(state.shots.reference)
    if ended:
        for name in ("track_id", "first_frame", "last_frame", "frames"):
            columns[f"ended.{name}"] = torch.tensor([getattr(track, name) for track in ended])
        columns |= {
            "ended.objectness": torch.tensor([track.objectness for track in ended], dtype=torch.float64),
            "ended.unknown": torch.tensor([track.unknown for track in ended], dtype=torch.float64),
            "ended.embedding": torch.stack([track.embedding for track in ended]),
            "ended.colour": torch.stack([track.colour for track in ended]),
            "ended.category": torch.tensor([[best.category_id for best in track.top] for track in ended]),
            "ended.score": torch.tensor([[best.score for best in track.top] for track in ended], dtype=torch.float64),
        }
    return {name: column.contiguous().clone() for name, column in columns.items()}


def _from_tensors(content: Mapping[str, Any], tensors: Mapping[str, Tensor], names: tuple[str, ...]) -> VideoState:
    memory = tuple(tensors[f"memory.{i}"] for i in range(sum(name.startswith("memory.") for name in tensors)))
    slots = Slots(*(tensors[f"slots.{name}"] for name in Slots._fields)) if "slots.gap" in tensors else None
    tracker = TrackerState(memory if slots else None, slots, content["next_track_id"], content["frame"])
    rows = range(len(tensors["ended.track_id"]) if "ended.track_id" in tensors else 0)
    ended = tuple(_ended_track(tensors, row, names) for row in rows)
    reference = tensors["shots.reference"].numpy() if "shots.reference" in tensors else None
    shots = ShotState(reference, content["flash"], content["blank"])
    return VideoState(tracker, content["size"] and tuple(content["size"]), ended, shots)


def _ended_track(tensors: Mapping[str, Tensor], row: int, names: tuple[str, ...]) -> Track:
    best = zip(tensors["ended.category"][row].tolist(), tensors["ended.score"][row].tolist(), strict=True)
    return Track(
        track_id=int(tensors["ended.track_id"][row]),
        top=tuple(CategoryScore(names[index], score, index) for index, score in best),
        first_frame=int(tensors["ended.first_frame"][row]),
        last_frame=int(tensors["ended.last_frame"][row]),
        frames=int(tensors["ended.frames"][row]),
        objectness=float(tensors["ended.objectness"][row]),
        embedding=tensors["ended.embedding"][row].clone(),
        unknown=float(tensors["ended.unknown"][row]),
        colour=tensors["ended.colour"][row].clone(),
    )


def _digest(content: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    return tensor_fingerprint(
        {**tensors, "content": torch.frombuffer(bytearray(json.dumps(content).encode()), dtype=torch.uint8)}
    )
