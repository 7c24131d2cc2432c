from pathlib import Path

import numpy as np
import pytest
import torch

from openvis_model.shots import ShotState
from openvis_model.track import CategoryScore, Track
from openvis_model.video_state import VideoState, read_state, write_state
from openvis_model.video_tracker import Slots, TrackerState

NAMES = ("star", "disc")
OWNER = {"model": "m", "vocabulary": "v", "setting": "s"}


def track(track_id: int) -> Track:
    best = (CategoryScore("disc", 1 / 3, 1), CategoryScore("star", 0.1, 0))
    return Track(
        track_id=track_id,
        top=best,
        first_frame=2,
        last_frame=9,
        frames=5,
        objectness=2 / 3,
        embedding=torch.rand(4),
        unknown=1 / 7,
        colour=255 * torch.rand(3),
    )


def filled() -> VideoState:
    counts = [torch.arange(2) for _ in range(5)]
    slots = Slots(*counts, torch.rand(2), torch.rand(2, 4), torch.rand(2), torch.rand(2, 3))
    tracker = TrackerState((torch.rand(2, 7), torch.rand(2, 0)), slots, next_track_id=5, frame=40)
    shots = ShotState(np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3), flash=2, blank=True)
    return VideoState(tracker, (96, 128), (track(0), track(3)), shots)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    state = filled()
    write_state(VideoState(), tmp_path / "state", OWNER)
    write_state(state, tmp_path / "state", OWNER)
    again = read_state(tmp_path / "state", OWNER, NAMES)
    assert (again.size, again.tracker.next_track_id, again.tracker.frame) == ((96, 128), 5, 40)
    assert state.tracker.memory
    assert again.tracker.memory
    assert state.tracker.slots
    assert again.tracker.slots
    assert all(map(torch.equal, state.tracker.memory, again.tracker.memory))
    assert all(map(torch.equal, state.tracker.slots, again.tracker.slots))
    for one, other in zip(state.ended, again.ended, strict=True):
        assert (one.track_id, one.top, one.frames, one.objectness, one.unknown) == (
            other.track_id,
            other.top,
            other.frames,
            other.objectness,
            other.unknown,
        )
        assert torch.equal(one.embedding, other.embedding)
        assert torch.equal(one.colour, other.colour)
    assert np.array_equal(again.shots.reference, state.shots.reference)
    assert (again.shots.flash, again.shots.blank) == (2, True)
    assert [file.name for file in tmp_path.iterdir()] == ["state"]


def test_a_state_before_the_first_frame(tmp_path: Path) -> None:
    write_state(VideoState(), tmp_path / "state", OWNER)
    again = read_state(tmp_path / "state", OWNER, NAMES)
    assert (again.tracker, again.size, again.ended) == (TrackerState(), None, ())


@pytest.mark.parametrize("name", OWNER)
def test_a_state_of_something_else_is_refused(name: str, tmp_path: Path) -> None:
    write_state(filled(), tmp_path / "state", OWNER)
    with pytest.raises(ValueError, match=f"state: the video was segmented with another {name}; resume it with"):
        read_state(tmp_path / "state", OWNER | {name: "other"}, NAMES)


def test_a_damaged_state_is_refused(tmp_path: Path) -> None:
    write_state(filled(), tmp_path / "state", OWNER)
    data = bytearray((tmp_path / "state").read_bytes())
    data[-1] ^= 1
    (tmp_path / "state").write_bytes(data)
    with pytest.raises(ValueError, match="state: damaged"):
        read_state(tmp_path / "state", OWNER, NAMES)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04K\x01.", b"\x02\0\0\0\0\0\0\0{}"])
def test_what_is_not_a_state_is_refused(content: bytes | None, tmp_path: Path) -> None:
    """Missing, empty, a pickle, and a safetensors file of something else."""
    if content is not None:
        (tmp_path / "state").write_bytes(content)
    with pytest.raises(ValueError, match="state: not the state of a video"):
        read_state(tmp_path / "state", OWNER, NAMES)
